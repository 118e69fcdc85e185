"""Fine-tuning, in rows a second.

Our loop (batches of 32) against transformers' Trainer, and against the matrix products alone.

python -m benchmarks.training          # the default workspace's rows and base model
python -m benchmarks.training --quick
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sections import BenchmarkSection, alternate, ratios, run_alone

BATCH = 32
OURS, FROZEN = "ours", "ours, embeddings frozen (the default workspace)"
BFLOAT16 = "the same in bfloat16"  # finetune.precision: bf16
DEFAULTS, DYNAMIC = "Trainer's defaults, batches of 8", "Trainer, batches of 32"
PADDED = "Trainer, batches of 32 padded to 128"
# the machine's limit: sgemm at the model's shapes, forward and backward
PRODUCTS = "the layers' matrix products alone"
MODULE = "benchmarks.training"


def measure(quick: bool) -> BenchmarkSection:
    """Time a few training steps of each variant, in turns, on the same rows.

    The rows are some batches of an epoch of ours; the Trainer shuffles them as it always does.
    """
    from benchmarks.material import computes_bfloat16, default_workspace

    rounds, steps = (2, 4) if quick else (5, 8)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = default_workspace(Path(scratch), "tokenize")
        common = {"root": str(workspace.root), "steps": steps}
        bfloat16 = [BFLOAT16] if computes_bfloat16() else []
        variants = (OURS, FROZEN, *bfloat16, DEFAULTS, DYNAMIC, PADDED, PRODUCTS)
        settings = {name: common | {"variant": name} for name in variants}
        answers = alternate(MODULE, settings, rounds)
        tokens, flops = work_a_row(workspace.root)
    rates = {
        name: [turn["rows"] / turn["seconds"] for turn in turns] for name, turns in answers.items()
    }
    others = (DEFAULTS, DYNAMIC, PADDED, PRODUCTS)
    rows = [
        [
            name,
            f"{np.median(rates[name]):.0f}",
            *(ratios(rates[other], rates[name]) for other in others),
        ]
        for name in rates
    ]
    note = (
        f"A row has {tokens:.1f} tokens and takes {flops / 1e9:.2f} GFLOP, forward and backward; "
        f"the products alone are done at {np.median(rates[PRODUCTS]) * flops / 1e9:.0f} GFLOP/s. "
        "Wanted: 2.5x, 6x and 0.75x of the products."
    )
    bars = {name: float(np.median(values)) for name, values in rates.items() if name != PRODUCTS}
    header = (
        "variant",
        "rows/s",
        "over Trainer's defaults",
        "over Trainer, 32",
        "over padding to 128",
        "over the products",
    )
    return BenchmarkSection("Fine-tuning", header, rows, [note], bars, "rows/s")


def base_config(root: Path) -> Any:
    """The configuration of the workspace's base model."""
    from transformers import AutoConfig

    from tasks.data.sources.fetching import resolve_model
    from tasks.params.workspace import Workspace, cache_dir

    base_model = Workspace(root).params().base_model
    return AutoConfig.from_pretrained(resolve_model(base_model, root, cache_dir()))


def work_a_row(root: Path) -> tuple[float, float]:
    """(mean tokens of a training row, FLOPs of its matrix products in the layers).

    The FLOPs count the forward and the backward pass.
    """
    from tasks.encoding.token_files import read_tokens, token_lengths

    config = base_config(root)
    lengths = token_lengths(read_tokens(root / "data" / "tokens" / "train.arrow"))
    tokens = float(lengths.mean())
    width, inner = config.hidden_size, config.intermediate_size
    weights = config.num_hidden_layers * (4 * width * width + 2 * width * inner)
    return tokens, 3 * 2 * tokens * weights


def products(root: Path) -> Callable[[Sequence[np.ndarray]], None]:
    """The matrix products that no training can avoid, for each batch.

    The output of each linear layer, and the gradients of its input and its weight.
    """
    import torch

    config, tokens = base_config(root), round(BATCH * work_a_row(root)[0])
    width, inner = config.hidden_size, config.intermediate_size
    shapes = [(width, width)] * 4 + [(width, inner), (inner, width)]
    layer = [
        (
            torch.randn(tokens, size_in),
            torch.randn(size_out, size_in),
            torch.randn(tokens, size_out),
        )
        for size_in, size_out in shapes
    ]

    def run(batches: Sequence[np.ndarray]) -> None:
        for _ in range(len(batches) * config.num_hidden_layers):
            for inputs, weight, gradient in layer:
                inputs @ weight.T
                gradient @ weight
                gradient.T @ inputs

    return run


def serve(root: str, variant: str, steps: int) -> None:
    """Answer questions in one variant's own process."""
    from benchmarks.material import epoch_batches, some_batches
    from tasks.shipping.workers import answer_questions

    workspace = Path(root)
    frozen = "finetune.freeze_embeddings=true"
    makers = {
        OURS: partial(ours, workspace, "finetune.freeze_embeddings=false"),
        FROZEN: partial(ours, workspace, frozen),
        BFLOAT16: partial(ours, workspace, frozen, "finetune.precision=bf16"),
        PRODUCTS: partial(products, workspace),
    }
    train = makers.get(variant, partial(trainer, workspace, variant))()
    all_batches = epoch_batches(workspace, BATCH)

    def turn(number: int) -> dict[str, Any]:
        batches = some_batches(all_batches, 2 if number < 0 else steps, number + 1)
        started = time.perf_counter()
        train(batches)
        return {"rows": sum(map(len, batches)), "seconds": time.perf_counter() - started}

    answer_questions({"turn": turn})


def ours(root: Path, *overrides: str) -> Callable[[Sequence[np.ndarray]], None]:
    """The steps of our own training loop."""
    from benchmarks.material import training_steps

    return training_steps(root, "finetune.epochs=100", *overrides)


def trainer(root: Path, variant: str) -> Callable[[Sequence[np.ndarray]], None]:
    """transformers' Trainer with its defaults, except for the size and padding of batches.

    Its rows are already tokenized.
    """
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
    )
    from transformers import Trainer as Loop

    from benchmarks.material import trainer_arguments
    from tasks.data.sources.fetching import resolve_model
    from tasks.encoding.token_files import read_tokens
    from tasks.params.workspace import Workspace, cache_dir

    params = Workspace(root).params()
    base = resolve_model(params.base_model, root, cache_dir())
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(params.labels), use_safetensors=True
    )
    table = read_tokens(root / "data" / "tokens" / "train.arrow")
    ids, labels = table["input_ids"].to_pylist(), table["references"].to_pylist()
    padded = variant == PADDED
    collate = DataCollatorWithPadding(
        tokenizer, padding="max_length" if padded else True, max_length=128 if padded else None
    )
    size = 8 if variant == DEFAULTS else BATCH
    arguments = trainer_arguments(root, per_device_train_batch_size=size)

    def run(batches: Sequence[np.ndarray]) -> None:
        rows = np.concatenate(batches)
        data = [
            {"input_ids": ids[row], "attention_mask": [1] * len(ids[row]), "labels": labels[row]}
            for row in rows
        ]
        Loop(model=model, args=arguments, train_dataset=data, data_collator=collate).train()

    return run


if __name__ == "__main__":
    run_alone(__doc__ or "", measure, serve)
