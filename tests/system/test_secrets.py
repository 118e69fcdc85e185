"""Credentials in an address are refused wherever it stands, and end up nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from shared import prefect_server
from workspaces import copy_workspace, ratchet

CANARY = "c4n4ry5ecret"
ADDRESS = f"https://user:{CANARY}@127.0.0.1:9/rows.csv"
SIGNED = f"https://127.0.0.1:9/rows.csv?X-Amz-Signature={CANARY}"
IN_PARAMS = {
    "ingest.sources.0.url": ADDRESS,
    "base_model.path": SIGNED,
    "ingest.query": f"SELECT * FROM read_csv('{ADDRESS}')",
    "finetune.adapter": f"s3://KEY:{CANARY}@bucket/adapter",
    "retrain.performance.labelled": f"ftp://user:{CANARY}@127.0.0.1/log",
}


def written(*directories: Path) -> list[Path]:
    """Files that hold the canary."""
    files = (file for directory in directories for file in directory.rglob("*") if file.is_file())
    return [file for file in files if CANARY.encode() in file.read_bytes()]


def refused(directory: Path, *arguments: str, **environment: Any) -> None:
    done = ratchet(directory, *arguments, code=2, **environment)
    assert CANARY not in done.stdout + done.stderr
    assert "credentials" in done.stderr
    assert "belong" in done.stderr


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, Any]:
    """A home and a directory for temporary files of the test's own."""
    places = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "tmp"}
    for place in places.values():
        place.mkdir()
    return {name: str(place) for name, place in places.items()}


@pytest.mark.parametrize("key", IN_PARAMS)
def test_params_with_credentials_are_refused_before_anything_is_written(
    template: Path, tmp_path: Path, key: str
) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    refused(root, "-v", "train", "-S", f"{key}={IN_PARAMS[key]}")
    refused(root, "train", "--save", "-S", f"{key}={IN_PARAMS[key]}")
    assert written(tmp_path) == []


def test_a_params_yaml_with_credentials_is_refused_by_every_command(
    template: Path, tmp_path: Path
) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    params = root / "params.yaml"
    text = params.read_text(encoding="utf-8").replace('url: "reviews.csv"', f'url: "{ADDRESS}"')
    params.write_text(text, encoding="utf-8")
    assert CANARY in text
    for command in ("train", "status", "retrain", "promote", "dvc-yaml"):
        refused(root, command)
    assert written(tmp_path) == [params]


@pytest.mark.parametrize("options", [("--data", ADDRESS), ("--data", SIGNED)])
def test_init_refuses_credentials(
    tmp_path: Path, elsewhere: dict[str, Any], options: tuple[str, ...]
) -> None:
    refused(tmp_path, "-v", "init", "reviews", "--yes", *options, **elsewhere)
    assert written(tmp_path) == []


def test_the_password_of_a_registry_is_shown_and_stored_nowhere(
    template: Path, tmp_path: Path, elsewhere: dict[str, Any]
) -> None:
    """The environment may hold it; the registry does not answer."""
    root = copy_workspace(template, tmp_path / "reviews")
    environment = elsewhere | {
        "MLFLOW_TRACKING_URI": f"http://user:{CANARY}@127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    done = ratchet(root, "-v", "train", "-S", "finetune.epochs=2", code=2, **environment)
    assert CANARY not in done.stdout + done.stderr
    assert "MLflow at http://127.0.0.1:9" in done.stderr
    assert written(tmp_path) == []
    api = prefect_server()
    for kind in ("logs", "flow_runs", "task_runs", "artifacts"):
        assert CANARY not in httpx.post(f"{api}/{kind}/filter", json={}).text
