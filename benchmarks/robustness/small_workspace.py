"""A small workspace, trained and registered in this process without Prefect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from flows.engine.training_run import TrainingRun
from flows.workspaces.creation import guess_problem, make_workspace
from flows.workspaces.request import Request
from tasks.params.schema import save_overrides
from tasks.params.workspace import Workspace
from tasks.pipeline import STAGES
from tasks.training.networks.scratch_model import Shape, make_scratch_model

WORDS = {"good": ("lovely", "superb", "bright"), "bad": ("awful", "broken", "dull")}
ROWS = 300
FAST = (
    "finetune.epochs=1",
    "tokenize.max_length=32",
    "evaluate.bootstrap_resamples=100",
    "evaluate.behaviour.rows=1",
    "verify.timing_rows=16",
    "verify.max_metric_loss=1.0",
    "export.calibration_rows=32",
    "export.recipes=[int8-dynamic]",
    "device=cpu",
    "validate.max_duplicate_share=1.0",
)


@contextmanager
def own_registry(root: Path) -> Iterator[None]:
    """Use this workspace's own registry, whatever the environment says."""
    with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": Workspace(root).default_tracking_uri}):
        yield


def train_small_workspace(root: Path) -> Workspace:
    """A small workspace, trained and registered in this process."""
    root.mkdir()
    draw = np.random.default_rng(0)
    filler = [*"abcdefghijklmnop"]
    texts = []
    for _ in range(ROWS):
        label = draw.choice(list(WORDS))
        words = [*draw.choice(filler, 8), *draw.choice(WORDS[str(label)], 2)]
        draw.shuffle(words)
        texts.append((" ".join(words), str(label)))
    (root / "reviews.csv").write_text(
        "text,label\n" + "".join(f"{text},{label}\n" for text, label in texts), encoding="utf-8"
    )
    shape = Shape(vocabulary=200, layers=2, width=32)
    make_scratch_model([text for text, _ in texts], root / "base", shape, seed=0)
    data, base = [str(root / "reviews.csv")], str(root / "base")
    request = Request(root, "text-classification", data, {}, "tampering", base)
    make_workspace(request, guess_problem(request))
    save_overrides(root / "params.yaml", FAST)
    workspace = Workspace(root)
    with TrainingRun(workspace) as run:
        for stage in STAGES:
            run.stage(stage.name)
        run.register("")
    return workspace
