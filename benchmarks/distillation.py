"""What is lost when what ships has half the layers: macro-F1 on the test rows, beside the checkpoint's and the whole model's in int8.

python -m benchmarks.distillation         # 6,000 rows of the default workspace, 3 seeds: half an hour
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
    """A training and a distillation a seed."""
    from benchmarks.material import SHORT, default_workspace, keep_rows

    rows, seeds = (200, 1) if quick else (6000, 3)
    scores: dict[str, list[float]] = {CHECKPOINT: [], STATIC: [], DISTILLED: []}
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        workspace = default_workspace(
            Path(scratch), "tokenize", *(override for override in SHORT if "epochs" not in override)
        )
        keep_rows(workspace.root, rows)
        for seed in range(seeds):
            seconds.append(train(workspace.root, seed, scores))
    table = []
    for name, found in scores.items():
        lost = 100 * np.subtract(scores[CHECKPOINT], found)
        each = ", ".join(f"{one:+.1f}" for one in lost)
        table.append(
            [
                name,
                f"{np.mean(found):.3f} ± {np.std(found, ddof=min(1, seeds - 1)):.3f}",
                f"{lost.mean():+.2f} ({each})",
            ]
        )
    note = (
        f"{rows} training rows, {seeds} seeds; the student learns for 3 epochs, {np.median(seconds):.0f} s. "
        "The budget of `verify` is 0.5 points of validation."
    )
    return BenchmarkSection(
        "Distilling", ("variant", "macro-F1", "points lost (seed by seed)"), table, [note]
    )


def train(root: Path, seed: int, scores: dict[str, list[float]]) -> float:
    """Add a seed's scores; the seconds that the student's training took."""
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
    scores[CHECKPOINT].append(
        read_json(root / "reports" / "evaluation.json")["metrics"]["macro_f1"]["value"]
    )
    for recipe in (STATIC, DISTILLED):
        run("export", "verify", recipe=recipe)
        scores[recipe].append(read_json(root / "reports" / "metrics.json")["macro_f1"])
    shutil.rmtree(root / ".ratchet", ignore_errors=True)
    return float(
        read_json(root / "models" / "candidates" / "export.json")["recipes"][-1]["training_seconds"]
    )


if __name__ == "__main__":
    run_alone(__doc__ or "", measure)
