"""Quality of the default workspace's models over three seeds, beside transformers' Trainer.

python -m benchmarks.quality         # 6,000 of the training rows; 20 minutes
python -m benchmarks.quality --quick # 200 rows, one seed

It also compares the shipped bundle with its checkpoint. Scores are macro-F1 on the whole test
split, mean ± standard deviation over seeds. The Trainer keeps its defaults: batches of 8, a
learning rate of 5e-5, no warm-up.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sections import BenchmarkSection, run_alone

OURS, SHIPPED, TRAINER = "ours, PyTorch", "ours, what ships (int8-static)", "Trainer's defaults"


def measure(quick: bool) -> BenchmarkSection:
    """A training of each a seed."""
    from benchmarks.material import SHORT, default_workspace, keep_rows

    rows, seeds = (200, 1) if quick else (6000, 3)
    scores: dict[str, list[float]] = {OURS: [], SHIPPED: [], TRAINER: []}
    with tempfile.TemporaryDirectory() as scratch:
        workspace = default_workspace(
            Path(scratch), "tokenize", *(override for override in SHORT if "epochs" not in override)
        )
        keep_rows(workspace.root, rows)
        for seed in range(seeds):
            checkpoint, shipped = train_ours(workspace.root, seed)
            scores[OURS].append(checkpoint)
            scores[SHIPPED].append(shipped)
            scores[TRAINER].append(train_theirs(workspace.root, seed))
    table = [
        [name, f"{np.mean(found):.3f} ± {np.std(found, ddof=min(1, seeds - 1)):.3f}"]
        for name, found in scores.items()
    ]
    lost = np.subtract(scores[OURS], scores[SHIPPED])
    notes = [
        f"{rows} training rows, one epoch, {seeds} seeds. Wanted: no more than one standard "
        "deviation between ours and the Trainer's, and",
        f"at most 0.005 lost by what ships; lost are {lost.mean():+.4f} "
        f"(seed by seed {', '.join(f'{one:+.4f}' for one in lost)}).",
    ]
    return BenchmarkSection("Quality", ("variant", "macro-F1"), table, notes)


def train_ours(root: Path, seed: int) -> tuple[float, float]:
    """(of the checkpoint, of the bundle) by the workspace's own stages."""
    from tasks.core.files import read_json
    from tasks.core.progress import silent
    from tasks.params.workspace import Workspace
    from tasks.pipeline import find_stage, run_stage

    workspace = Workspace(root)
    for name in ("finetune", "evaluate", "export", "verify"):
        run_stage(find_stage(name), workspace, workspace.params([f"seed={seed}"]), silent)
    shutil.rmtree(root / ".ratchet", ignore_errors=True)
    checkpoint = read_json(root / "reports" / "evaluation.json")["metrics"]["macro_f1"]["value"]
    return checkpoint, read_json(root / "reports" / "metrics.json")["macro_f1"]


def train_theirs(root: Path, seed: int) -> float:
    """Of the Trainer's model."""
    from sklearn.metrics import f1_score
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
    )
    from transformers import set_seed as seed_everything

    from benchmarks.material import trainer_arguments
    from tasks.data.sources.fetching import resolve_model
    from tasks.encoding.token_files import read_features
    from tasks.params.workspace import Workspace, cache_dir

    params = Workspace(root).params()
    base = resolve_model(params.base_model, root, cache_dir())
    seed_everything(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(params.labels), use_safetensors=True
    )
    arguments = trainer_arguments(root, seed=seed, per_device_eval_batch_size=32)

    def rows(split: str) -> Any:  # a list will do where the Trainer asks for a Dataset
        found = read_features(root / "data" / "tokens" / f"{split}.arrow")
        pairs = zip(found["input_ids"], found["references"], strict=True)
        return [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label}
            for ids, label in pairs
        ]

    collate, test = DataCollatorWithPadding(AutoTokenizer.from_pretrained(base)), rows("test")
    loop = Trainer(model=model, args=arguments, train_dataset=rows("train"), data_collator=collate)
    loop.train()
    predicted = np.asarray(loop.predict(test).predictions).argmax(-1)
    return float(f1_score([row["labels"] for row in test], predicted, average="macro"))


if __name__ == "__main__":
    run_alone(__doc__ or "", measure)
