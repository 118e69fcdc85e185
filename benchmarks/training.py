"""Fine-tuning, rows a second: ours (batches of 32) beside transformers' Trainer, and beside the machine's limit.

python -m benchmarks.training          # the default workspace's rows and base model
python -m benchmarks.training --quick
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sections import Section, alternate, ratios, run_alone

BATCH = 32
OURS, FROZEN = "ours", "ours, embeddings frozen (the default workspace)"
DEFAULTS, DYNAMIC, PADDED = "Trainer's defaults, batches of 8", "Trainer, batches of 32", "Trainer, batches of 32 padded to 128"
MODULE = "benchmarks.training"


def measure(quick: bool) -> Section:
    """Steps of each variant in turns, on the same rows."""
    from benchmarks.material import default_workspace

    rounds, steps = (2, 4) if quick else (5, 8)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = default_workspace(Path(scratch), "tokenize")
        common = {"root": str(workspace.root), "steps": steps}
        found = alternate(MODULE, {name: common | {"variant": name} for name in (OURS, FROZEN, DEFAULTS, DYNAMIC, PADDED)}, rounds)
        limit = roofline(workspace.root)
    rates = {name: [turn["rows"] / turn["seconds"] for turn in turns] for name, turns in found.items()}
    others = (DEFAULTS, DYNAMIC, PADDED)
    rows = [[name, f"{np.median(rates[name]):.0f}", *(ratios(rates[other], rates[name]) for other in others)] for name in rates]
    share = np.median(rates[OURS]) * limit["flops_a_row"] / limit["flops_a_second"]
    note = (
        f"A row has {limit['tokens']:.1f} tokens and takes {limit['flops_a_row'] / 1e9:.2f} GFLOP, forward and backward; the machine's "
        f"sgemm does {limit['flops_a_second'] / 1e9:.0f} GFLOP/s at these shapes, so ours is at {share:.0%} of that. "
        "Wanted: 2.5x, 6x and 75%."
    )
    bars = {name: float(np.median(values)) for name, values in rates.items()}
    header = ("variant", "rows/s", "over Trainer's defaults", "over Trainer, 32", "over padding to 128")
    return Section("Fine-tuning", header, rows, [note], bars, "rows/s")


def roofline(root: Path) -> dict[str, float]:
    """Floating-point operations of a training row, and how many a second the machine's matrix product does at the layers' shapes."""
    import torch
    from transformers import AutoConfig

    from tasks.core.sources import resolve_model
    from tasks.core.tokens import read_tokens, token_lengths
    from tasks.core.workspace import Workspace, cache_dir

    config = AutoConfig.from_pretrained(resolve_model(Workspace(root).params().base_model, root, cache_dir()))
    tokens = float(token_lengths(read_tokens(root / "data" / "tokens" / "train.arrow")).mean())
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    forward = layers * (2 * tokens * (4 * width * width + 2 * width * inner) + 4 * tokens * tokens * width)
    rows = round(BATCH * tokens)
    shapes = [(rows, width, width)] * 4 + [(rows, width, inner), (rows, inner, width)]
    pairs = [(torch.randn(n, k), torch.randn(k, m)) for n, k, m in shapes]
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        for one, other in pairs:
            one @ other
        best = min(best, time.perf_counter() - started)
    return {"tokens": tokens, "flops_a_row": 3 * forward, "flops_a_second": sum(2 * n * k * m for n, k, m in shapes) / best}


def serve(root: str, variant: str, steps: int) -> None:
    """A variant's own process."""
    from tasks.core.workers import answer_questions

    train = ours(Path(root), variant == FROZEN) if variant in (OURS, FROZEN) else trainer(Path(root), variant)

    def turn(number: int) -> dict[str, Any]:
        rows = np.random.default_rng(number + 1).permutation(18_000)[: BATCH * (2 if number < 0 else steps)]
        started = time.perf_counter()
        train(rows)
        return {"rows": len(rows), "seconds": time.perf_counter() - started}

    answer_questions({"turn": turn})


def ours(root: Path, frozen: bool) -> Callable[[np.ndarray], None]:
    """The training loop's own steps."""
    from benchmarks.material import training_steps

    return training_steps(root, BATCH, f"finetune.freeze_embeddings={str(frozen).lower()}", "finetune.epochs=100")


def trainer(root: Path, variant: str) -> Callable[[np.ndarray], None]:
    """transformers' Trainer as it comes, but for the size and padding of batches; rows are tokenized already."""
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding
    from transformers import Trainer as Loop

    from benchmarks.material import trainer_arguments
    from tasks.core.sources import resolve_model
    from tasks.core.tokens import read_tokens
    from tasks.core.workspace import Workspace, cache_dir

    params = Workspace(root).params()
    base = resolve_model(params.base_model, root, cache_dir())
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(params.labels), use_safetensors=True)
    table = read_tokens(root / "data" / "tokens" / "train.arrow")
    ids, labels = table["input_ids"].to_pylist(), table["references"].to_pylist()
    padded = variant == PADDED
    collate = DataCollatorWithPadding(tokenizer, padding="max_length" if padded else True, max_length=128 if padded else None)
    size = 8 if variant == DEFAULTS else BATCH
    arguments = trainer_arguments(root, per_device_train_batch_size=size)

    def run(rows: np.ndarray) -> None:
        data = [{"input_ids": ids[row], "attention_mask": [1] * len(ids[row]), "labels": labels[row]} for row in rows]
        Loop(model=model, args=arguments, train_dataset=data, data_collator=collate).train()

    return run


if __name__ == "__main__":
    run_alone(__doc__ or "", measure, serve)
