"""Every kind of error, by the command line: all of standard error is ours, and ours ends it.

`workspaces.checked` looks for libraries' noise after every command that fails in any test; here the
whole text is compared.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from servers import free_port
from tiny import tiny_rows
from workspaces import STAGES, copy_workspace, ratchet, write_csv

# lines about what was done before the error
BEFORE = re.compile(rf"({'|'.join(STAGES)}) +.*|Predicting with version \d+ \(\w+\)\.")


@dataclass(frozen=True)
class Case:
    """A command that fails, and what its message says; `fresh`: in a process of its own."""

    command: str
    says: str
    fresh: bool = False


def whole(root: Path, case: Case, **environment: Any) -> None:
    """Standard error ends with the message that --json gives; only progress stands before it."""
    arguments = [part.replace("_", " ") for part in case.command.split()]
    plain = ratchet(root, *arguments, code=2, server=not case.fresh, **environment)
    assert plain.stdout == ""
    assert case.says in plain.stderr
    answered = ratchet(root, *arguments, "--json", code=2, **environment)
    error = json.loads(answered.stdout)["error"]
    told = "\n".join(filter(None, (error["message"], error["remedy"])))
    lines = plain.stderr.splitlines()
    before = len(lines) - len(told.splitlines())
    assert "\n".join(lines[before:]) == f"ratchet: {told}"
    assert all(map(BEFORE.fullmatch, lines[:before])), lines[:before]
    assert all(map(BEFORE.fullmatch, answered.stderr.splitlines())), answered.stderr


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nowhere")


@pytest.mark.parametrize(
    "case",
    [
        Case("status", "not a workspace"),
        Case("train --nonsense", "No such option"),
        Case("no-such-command", "No such command"),
        Case("init new --yes --data missing.csv", "missing.csv"),
        Case("init new --yes --problem nonsense", "nonsense"),
        Case("predict --bundle . a", "manifest.json"),
    ],
    ids=lambda case: case.command,
)
def test_outside_a_workspace(nowhere: Path, case: Case) -> None:
    whole(nowhere, case)


@pytest.mark.parametrize(
    "case",
    [
        Case("train -S finetune.lr=1", "finetune.lr"),
        Case("train -S finetune.epochs=many", "finetune.epochs"),
        Case("train -S ingest.sources.0.url=gone.csv", "gone.csv", fresh=True),
        Case("train -S ingest.columns.text=nothing", "nothing"),
        Case("train -S base_model.path=gone", "gone"),
        Case("predict --version 9 a", "9"),
        Case("predict --alias nobody a", "nobody"),
        Case("predict --input gone.csv", "gone.csv"),
        Case("rank a", "rank"),
        Case("chat", "chat"),
        Case("compare 8 9", "8"),
        Case("promote 9", "9"),
        Case("approve 9", "9"),
        Case("rollback", "no version was ever promoted"),
        Case("report 9", "9"),
        Case("adapt", "Missing argument"),
        Case("schedule --cron nonsense", "nonsense"),
        Case("retrain --cause nonsense", "No such option"),
    ],
    ids=lambda case: case.command,
)
def test_in_a_workspace(template: Path, case: Case) -> None:
    whole(template, case)


def test_a_stage_alone(nowhere: Path, template: Path) -> None:
    assert ratchet(nowhere, "stage", "ingest", code=2).stderr.startswith("ratchet: /")
    told = "ratchet: no stage is called 'nonsense'.\nStages: ingest, validate, split, "
    assert ratchet(template, "stage", "nonsense", code=2).stderr.startswith(told)


@pytest.fixture
def closed() -> str:
    """An address where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


def test_a_source_an_mlflow_or_a_prefect_that_cannot_be_reached(
    template: Path, tmp_path: Path, closed: str
) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    source = f"train -S ingest.sources.0.url={closed}/a.csv"
    whole(root, Case(source, closed, fresh=True))
    once = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    for command in ("train", "predict a"):
        whole(root, Case(command, closed, fresh=True), MLFLOW_TRACKING_URI=closed, **once)
    whole(root, Case("train", closed, fresh=True), PREFECT_API_URL=f"{closed}/api")


def test_rows_that_are_not_fit_to_train_on(template: Path, tmp_path: Path) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    write_csv(root / "reviews.csv", tiny_rows(4))
    whole(root, Case("train", "Rows:"))


def test_what_is_stored_and_damaged(template: Path, tmp_path: Path) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    shutil.rmtree(root / ".ratchet" / "mlartifacts")
    (root / "models" / "bundle" / "model.onnx").write_bytes(b"nothing")
    whole(root, Case("predict --bundle models/bundle a", "model.onnx"))
    whole(root, Case("predict a", "no bundle"))
    (root / ".ratchet" / "mlflow.db").write_bytes(b"not a database")
    whole(root, Case("status", "mlflow.db"))
    (root / "params.yaml").write_text("a: [b\n")
    whole(root, Case("train", "params.yaml"))
