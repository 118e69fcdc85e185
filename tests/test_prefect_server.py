"""With a Prefect server: the flow runs against it, and its states say how each stage came to be clean."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from shared import prefect_server
from workspaces import ratchet_json

from flows import launch
from tasks.core.workspace import Workspace


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    """Of the API; other tests run flows on it at the same time."""
    with httpx.Client(base_url=prefect_server(), timeout=60) as client:
        yield client


def found(server: httpx.Client, what: str, **filters: Any) -> list[dict[str, Any]]:
    return list(server.post(f"/{what}/filter", json=filters).raise_for_status().json())


def flow_run_of(server: httpx.Client, workspace: Path) -> dict[str, Any]:
    """The only run of a workspace."""
    runs = found(server, "flow_runs", sort="START_TIME_DESC")
    (ours,) = [run for run in runs if run["parameters"].get("workspace") == str(workspace)]
    return ours


def task_states(server: httpx.Client, flow_run_id: str) -> dict[str, str]:
    """State of the newest run of each task of a flow run."""
    runs = found(server, "task_runs", sort="EXPECTED_START_TIME_ASC", flow_runs={"id": {"any_": [flow_run_id]}})
    return {run["name"].rsplit("-", 1)[0]: run["state"]["name"] for run in runs}


def test_states_say_ran_and_then_cached(trained: Path, server: httpx.Client) -> None:
    result = ratchet_json(trained, "train", "-S", "evaluate.min_slice_rows=5")
    ran = {stage["name"]: stage["state"].capitalize() for stage in result["stages"]}
    assert ran["finetune"] == "Cached"
    assert ran["evaluate"] == "Ran"
    flow_run_id = flow_run_of(server, trained)["id"]
    wanted = ran | {"register": "Completed"}
    states = task_states(server, flow_run_id)
    for _ in range(200):  # the server takes in the tasks' states after the fact, when it comes to it
        if wanted.items() <= states.items():
            break
        time.sleep(0.5)
        states = task_states(server, flow_run_id)
    assert {name: state for name, state in states.items() if name in wanted} == wanted
    (summary,) = [
        artifact for artifact in found(server, "artifacts") if (artifact["key"], artifact["flow_run_id"]) == ("train", flow_run_id)
    ]
    assert "report.html" in summary["data"]


def test_a_users_mistake_fails_the_flow_in_one_message(trained: Path, server: httpx.Client) -> None:
    error = ratchet_json(trained, "train", "-S", "ingest.columns.text=txet", code=2)["error"]
    assert error["type"] == "DataError"
    assert flow_run_of(server, trained)["state"]["name"] == "Failed"


def test_prefects_server_is_imported_when_mlflow_is_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prefect.server.api.server import SubprocessASGIServer

    told: list[str] = []
    monkeypatch.setattr(SubprocessASGIServer, "start", lambda server: told.append("prefect"))

    class Run:
        workspace = Workspace(tmp_path)

        def wait_for_mlflow(self) -> None:
            told.append("mlflow")

    launch._start_prefect(Run())  # type: ignore[arg-type]
    assert told == ["mlflow", "prefect"]
