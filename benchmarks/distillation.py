"""Macro-F1 lost when the shipped model has half the layers.

Measured on the test rows, against the checkpoint and against all layers in int8.

python -m benchmarks.distillation         # half an hour: 6,000 rows, 3 seeds
python -m benchmarks.distillation --quick
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.sections import BenchmarkSection, run_alone

CHECKPOINT, STATIC, DISTILLED = "checkpoint, PyTorch", "int8-static", "int8-static-distilled"


def measure(quick: bool) -> BenchmarkSection:
    """One training and one distillation a seed."""
    from benchmarks.material import SHORT, default_workspace, keep_rows

    rows, seeds = (200, 1) if quick else (6000, 3)
    scores: dict[str, list[float]] = {CHECKPOINT: [], STATIC: [], DISTILLED: []}
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        overrides = [override for override in SHORT if "epochs" not in override]
        workspace = default_workspace(Path(scratch), "tokenize", *overrides)
        keep_rows(workspace.root, rows)
        for seed in range(seeds):
            seconds.append(train(workspace.root, seed, scores))
    table = []
    for name, by_seed in scores.items():
        lost = 100 * np.subtract(scores[CHECKPOINT], by_seed)
        score = f"{np.mean(by_seed):.3f} ± {np.std(by_seed, ddof=min(1, seeds - 1)):.3f}"
        lost_by_seed = ", ".join(f"{points:+.1f}" for points in lost)
        table.append([name, score, f"{lost.mean():+.2f} ({lost_by_seed})"])
    note = (
        f"{rows} training rows, {seeds} seeds; "
        f"the student learns for 3 epochs, {np.median(seconds):.0f} s. "
        "The budget of `verify` is 0.5 points of validation."
    )
    header = ("variant", "macro-F1", "points lost (seed by seed)")
    return BenchmarkSection("Distilling", header, table, [note])


def train(root: Path, seed: int, scores: dict[str, list[float]]) -> float:
    """Append a seed's scores to `scores`; returns the seconds of the student's training."""
    from tasks.core.files import read_json
    from tasks.core.progress import silent
    from tasks.params.workspace import Workspace
    from tasks.pipeline import find_stage, run_stage

    workspace = Workspace(root)

    def run(*stages: str, recipe: str) -> None:
        params = workspace.params([f"seed={seed}", f"export.recipes=[{recipe}]"])
        for name in stages:
            run_stage(find_stage(name), workspace, params, silent)

    run("finetune", "evaluate", recipe=STATIC)
    evaluation = read_json(root / "reports" / "evaluation.json")
    scores[CHECKPOINT].append(evaluation["metrics"]["macro_f1"]["value"])
    for recipe in (STATIC, DISTILLED):
        run("export", "verify", recipe=recipe)
        scores[recipe].append(read_json(root / "reports" / "metrics.json")["macro_f1"])
    shutil.rmtree(root / ".ratchet", ignore_errors=True)
    exported = read_json(root / "models" / "candidates" / "export.json")
    return float(exported["recipes"][-1]["training_seconds"])


if __name__ == "__main__":
    run_alone(__doc__ or "", measure)
