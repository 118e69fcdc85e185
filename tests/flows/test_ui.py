"""`ratchet ui` serves MLflow's own pages for the workspace's registry, and ends on Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from servers import Server, free_port
from workspaces import make_workspace, ratchet

from tasks.lifecycle.registry import connect

MODEL = "tiny"


@pytest.fixture(scope="module")
def workspace(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose registry has a model without a version."""
    root = tmp_path_factory.mktemp("ui") / "reviews"
    make_workspace(root, base_dir, rows=60)
    client, _ = connect(f"sqlite:///{root}/.ratchet/mlflow.db", root / ".ratchet", MODEL)
    client.create_registered_model(MODEL)
    return root


def test_the_pages_show_the_workspaces_registry(workspace: Path, tmp_path: Path) -> None:
    server = Server(["ratchet", "-C", str(workspace), "ui"], free_port(), tmp_path / "ui.log")
    server.start()
    try:
        server.wait("/health")
        page = httpx.get(f"{server.url}/api/2.0/mlflow/registered-models/search").json()
        assert [model["name"] for model in page["registered_models"]] == [MODEL]
        assert httpx.get(server.url).status_code == 200
        assert server.interrupt() == 130
        assert "Traceback" not in (tmp_path / "ui.log").read_text(encoding="utf-8")
    finally:
        server.kill()


def test_a_server_that_is_named_is_told_without_its_password(workspace: Path) -> None:
    address = "http://me:secret@mlflow.example:5000"
    done = ratchet(workspace, "ui", MLFLOW_TRACKING_URI=address)
    assert done.stdout == "MLflow UI: http://mlflow.example:5000\n"
