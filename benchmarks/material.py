"""The repository's default workspace in a scratch directory, as far as a benchmark needs it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.core.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent
# a bundle as it ships, without what only says how good it is
SHORT = (
    "finetune.epochs=0.05", "evaluate.bootstrap_resamples=100", "evaluate.behaviour.rows=1", "evaluate.baseline=false",
    "export.recipes=[int8-static]", "verify.timing_rows=32", "verify.max_metric_loss=1.0",
)  # fmt: skip


def default_workspace(scratch: Path, last: str, *overrides: str) -> Workspace:
    """Its stages run up to `last`, in this process."""
    from tasks.core.params import save_overrides
    from tasks.core.progress import silent
    from tasks.pipeline import STAGES, run_stage

    workspace = Workspace(scratch)
    shutil.copyfile(ROOT / "params.yaml", workspace.params_file)
    save_overrides(workspace.params_file, overrides)
    for stage in STAGES[: [stage.name for stage in STAGES].index(last) + 1]:
        run_stage(stage, workspace, workspace.params(), silent)
    return workspace
