"""A registered version gives the same answers wherever it is used: docs/elsewhere.md's code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pandas as pd
import pytest
from servers import Server, free_port
from workspaces import clean_environment, copy_workspace, ratchet_json, run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "elsewhere.md"
PYTHON = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
TEXTS = ["a good lovely film", "a bad awful phone", "a phone"]
URI = "models:/tiny@challenger"


@pytest.fixture(scope="module")
def workspace(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_workspace(template, tmp_path_factory.mktemp("elsewhere") / "reviews")


@pytest.fixture(scope="module")
def expected(workspace: Path) -> list[dict[str, Any]]:
    """What `ratchet predict` answers."""
    answers: list[dict[str, Any]] = ratchet_json(workspace, "predict", *TEXTS)
    return answers


@pytest.fixture(scope="module")
def tracking(workspace: Path) -> dict[str, str]:
    uri = f"sqlite:///{workspace}/.ratchet/mlflow.db"
    return clean_environment() | {"MLFLOW_TRACKING_URI": uri}


@pytest.fixture
def restored_uri(tracking: dict[str, str]) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking["MLFLOW_TRACKING_URI"])
    yield
    mlflow.set_tracking_uri(before)


@pytest.mark.usefixtures("restored_uri")
def test_mlflow_loads_it(expected: list[dict[str, Any]]) -> None:
    answers = mlflow.pyfunc.load_model(URI).predict(pd.DataFrame({"text": TEXTS}))
    assert answers["predicted_label"].tolist() == [row["predicted_label"] for row in expected]
    assert answers["predicted_score"].tolist() == pytest.approx(
        [row["predicted_score"] for row in expected], abs=1e-3
    )


def test_mlflow_serves_it(
    tracking: dict[str, str], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    command = ["mlflow", "models", "serve", "-m", URI, "--env-manager", "local"]
    server = Server(command, free_port(), tmp_path / "log", tracking)
    server.start()
    try:
        server.wait("/health")
        rows = [{"text": text} for text in TEXTS]
        body = {"dataframe_records": rows}
        response = httpx.post(f"{server.url}/invocations", json=body, timeout=60)
        answers = response.json()["predictions"]
    finally:
        server.kill()
    labels = [row["predicted_label"] for row in expected]
    assert [row["predicted_label"] for row in answers] == labels


def test_onnxruntime_and_tokenizers_are_enough(
    tracking: dict[str, str], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The page's script, in a process that cannot import Ratchet, torch or transformers."""
    download = [sys.executable, "-m", "mlflow", "artifacts", "download", "--artifact-uri", URI]
    subprocess.run(
        [*download, "--dst-path", tmp_path / "exported"], env=tracking, check=True, timeout=280
    )
    banned = ("tasks", "flows", "applications", "torch", "transformers", "mlflow")
    guard = f"import sys\nsys.modules.update(dict.fromkeys({banned!r}))\n"
    (tmp_path / "alone.py").write_text(guard + PYTHON[1], encoding="utf-8")
    bundle = tmp_path / "exported" / "artifacts" / "bundle"
    printed = run(tmp_path, sys.executable, "alone.py", str(bundle), *TEXTS).stdout
    answers = [json.loads(line) for line in printed.splitlines()]
    assert [row["label"] for row in answers] == [row["predicted_label"] for row in expected]
    assert [row["score"] for row in answers] == pytest.approx(
        [row["predicted_score"] for row in expected], abs=0.02
    )


def test_rows_go_through_a_pipe(workspace: Path, expected: list[dict[str, Any]]) -> None:
    rows = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS))
    done = subprocess.run(
        ["ratchet", "-C", workspace, "predict", "--output", "-"],
        input=rows,
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=280,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in answers] == [0, 1, 2]
    labels = [row["predicted_label"] for row in expected]
    assert [row["predicted_label"] for row in answers] == labels
    assert done.stderr == "Predicting with version 1 (challenger).\n"
