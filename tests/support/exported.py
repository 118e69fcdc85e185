"""A tiny model trained until it is good, its tokens, and its ONNX candidates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from tiny import LABELS, make_tokenizer, tiny_rows

from tasks.core.progress import silent
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import TokensInfo, load_tokenizer, read_features
from tasks.export import export_candidates
from tasks.inference.calibration import Calibration
from tasks.params.schema import ExportParams
from tasks.problems import load_problem
from tasks.shipping.bundle_writer import assemble_bundle, seal_bundle

PROBLEM = "text-classification"
MAX_LENGTH = 64
ROWS = {"train": 600, "validation": 300, "test": 200}


@dataclass(frozen=True)
class Exported:
    """Directories of the outs of the stages before verify."""

    tokens: Path
    checkpoint: Path
    candidates: Path

    @classmethod
    def in_directory(cls, directory: Path) -> Self:
        return cls(directory / "tokens", directory / "checkpoint", directory / "candidates")


def make_exported(base: Path, directory: Path) -> None:
    made = Exported.in_directory(directory)
    make_tokens(made.tokens)
    train(base, made.tokens, made.checkpoint)
    export_candidates(
        made.tokens,
        made.checkpoint,
        made.candidates,
        problem=PROBLEM,
        labels=LABELS,
        export=ExportParams(),
        seed=0,
        report=silent,
    )


def make_tokens(directory: Path) -> None:
    make_tokenizer(directory / "tokenizer", MAX_LENGTH)
    tokenizer = load_tokenizer(directory / "tokenizer", MAX_LENGTH)
    rows, start = tiny_rows(sum(ROWS.values())), 0
    for split, count in ROWS.items():
        chosen = {column: values[start : start + count] for column, values in rows.items()}
        features = encode_rows(load_problem(PROBLEM).encoding, tokenizer, chosen, LABELS)
        table = pa.table({"row": pa.array(range(count), pa.int64()), **features})
        with (
            pa.OSFile(str(directory / f"{split}.arrow"), "wb") as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)
        start += count
    pad = tokenizer.token_to_id("[PAD]")
    TokensInfo(MAX_LENGTH, pad, ROWS, dict.fromkeys(ROWS, 0.0)).write(directory)


def train(base: Path, tokens: Path, checkpoint: Path, epochs: int = 6) -> None:
    import torch

    torch.manual_seed(0)
    problem, pad = load_problem(PROBLEM), TokensInfo.read(tokens).pad_token_id
    model = problem.objective.load_model(base, LABELS, dropout=0.0).train()
    features = read_features(tokens / "train.arrow")
    references = torch.from_numpy(problem.encoding.references(features))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    draw = np.random.default_rng(0)
    for _ in range(epochs):
        for rows in np.array_split(draw.permutation(len(references)), len(references) // 32):
            ids = [features["input_ids"][row] for row in rows]
            batch = problem.encoding.collate({"input_ids": ids}, pad)
            inputs = {name: torch.from_numpy(values) for name, values in batch.items()}
            logits = model(**inputs)["logits"]
            torch.nn.functional.cross_entropy(logits, references[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval().save_pretrained(checkpoint)


def ship(made: Exported, bundle: Path) -> Path:
    """A sealed fp32 bundle: its outputs for a row do not depend on the rows beside it."""
    assemble_bundle(
        bundle,
        made.candidates / "fp32" / "model.onnx",
        made.tokens,
        made.checkpoint,
        problem=PROBLEM,
        labels=LABELS,
        recipe="fp32",
        calibration=Calibration(),
        threads=1,
    )
    seal_bundle(bundle, {})
    return bundle
