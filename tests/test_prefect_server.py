"""With a Prefect server: the flow runs against it, and its states say how each stage came to be clean."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from workspaces import clean_environment, ratchet_json

from tasks.pipeline import STAGES


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API address of a real server with a database of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = clean_environment() | {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(120):
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def task_states(server: str) -> dict[str, str]:
    """State of the newest run of each task."""
    found = httpx.post(f"{server}/task_runs/filter", json={"sort": "EXPECTED_START_TIME_ASC"}).json()
    return {run["name"].rsplit("-", 1)[0]: run["state"]["name"] for run in found}


def test_states_say_ran_and_then_cached(trained: Path, server: str) -> None:
    result = ratchet_json(trained, "train", "-S", "evaluate.min_slice_rows=5", PREFECT_API_URL=server)
    ran = {stage["name"]: stage["state"].capitalize() for stage in result["stages"]}
    assert ran["finetune"] == "Cached"
    assert ran["evaluate"] == "Ran"
    for _ in range(40):  # the client sends states after the fact
        states = task_states(server)
        if len(states) > len(STAGES):
            break
        time.sleep(0.25)
    assert {name: state for name, state in states.items() if name in ran} == ran
    assert states["register"] == "Completed"
    artifacts = httpx.post(f"{server}/artifacts/filter", json={}).json()
    (summary,) = [artifact for artifact in artifacts if artifact["key"] == "train"]
    assert "report.html" in summary["data"]


def test_a_users_mistake_fails_the_flow_in_one_message(trained: Path, server: str) -> None:
    error = ratchet_json(trained, "train", "-S", "ingest.columns.text=txet", code=2, PREFECT_API_URL=server)["error"]
    assert error["type"] == "DataError"
    runs = httpx.post(f"{server}/flow_runs/filter", json={"sort": "START_TIME_DESC"}).json()
    assert "Failed" in {run["state"]["name"] for run in runs}
