"""With a Prefect server, every stage is a task run, and a run's name says what it is.

Task runs have their true times, states, logs and progress.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow, task
from prefect.runtime import task_run
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from shared import prefect_server
from workspaces import STAGES, ratchet_json

from flows.engine import prefect_server as engine_server
from flows.engine import run_page
from flows.engine.progress import listener
from flows.engine.run_page import version_link
from tasks.core.errors import ScheduleError, TrainingError
from tasks.core.progress import silent


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    """Of the API; other tests run flows on it at the same time."""
    with httpx.Client(base_url=prefect_server(), timeout=60) as client:
        yield client


def test_a_server_that_does_not_answer_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's own client would ask it six times, a minute each."""
    monkeypatch.setattr(engine_server, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent_server:
        url = f"http://127.0.0.1:{silent_server.getsockname()[1]}/api"
        monkeypatch.setenv("PREFECT_API_URL", url)
        with (
            temporary_settings({PREFECT_API_URL: url}),
            pytest.raises(ScheduleError, match=r"cannot be reached \(ReadTimeout\)"),
            engine_server.prefect_server(),
        ):
            pass
        silent_server.setblocking(False)
        silent_server.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent_server.accept()  # it was asked once


def found(server: httpx.Client, what: str, **filters: Any) -> list[dict[str, Any]]:
    return list(server.post(f"/{what}/filter", json=filters).raise_for_status().json())


def of_run(flow_run: dict[str, Any]) -> dict[str, Any]:
    return {"id": {"any_": [flow_run["id"]]}}


def flow_runs_of(server: httpx.Client, workspace: Path) -> dict[str, dict[str, Any]]:
    """Runs of a workspace, by name."""
    runs = found(server, "flow_runs", sort="START_TIME_DESC")
    return {
        run["name"]: run for run in runs if run["parameters"].get("workspace") == str(workspace)
    }


def eventually(look: Callable[[], Any]) -> Any:
    """Wait until `look` returns something true: the server records task runs and logs late."""
    for _ in range(200):
        if value := look():
            return value
        time.sleep(0.5)
    raise AssertionError("the server did not take it in")


def task_runs_of(server: httpx.Client, flow_run: dict[str, Any]) -> list[dict[str, Any]]:
    """In the order of their time, once the last has ended."""

    def look() -> list[dict[str, Any]]:
        runs = found(
            server, "task_runs", sort="EXPECTED_START_TIME_ASC", flow_runs=of_run(flow_run)
        )
        return (
            runs
            if runs and all(run["end_time"] for run in runs) and runs[-1]["name"] == "register"
            else []
        )

    return list(eventually(look))


def logs_of(server: httpx.Client, flow_run: dict[str, Any]) -> list[dict[str, Any]]:
    def look() -> list[dict[str, Any]]:
        logs = found(
            server, "logs", sort="TIMESTAMP_ASC", logs={"flow_run_id": {"any_": [flow_run["id"]]}}
        )
        return (
            logs
            if any(
                "Finished in state" in log["message"] and log["task_run_id"] is None for log in logs
            )
            else []
        )

    return list(eventually(look))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def seconds(run: dict[str, Any]) -> float:
    return (moment(run["end_time"]) - moment(run["start_time"])).total_seconds()


def test_a_training_is_shown_as_it_happened(trained: Path, server: httpx.Client) -> None:
    result = ratchet_json(
        trained, "train", "-S", "finetune.epochs=3", "-S", "validate.min_length=2"
    )
    outcomes = {stage["name"]: stage for stage in result["stages"]}
    (flow_run,) = flow_runs_of(server, trained).values()
    assert flow_run["name"] == "train tiny v2"
    tasks = task_runs_of(server, flow_run)
    assert [run["name"] for run in tasks] == [*STAGES, "register"]

    assert {run["name"]: run["state"]["name"].lower() for run in tasks[:-1]} == {
        name: stage["state"] for name, stage in outcomes.items()
    }
    assert outcomes["ingest"]["state"] == "cached"
    assert outcomes["finetune"]["state"] == "ran"

    edges = [
        flow_run["start_time"],
        *(run[edge] for run in tasks for edge in ("start_time", "end_time")),
        flow_run["end_time"],
    ]
    assert [moment(edge) for edge in edges] == sorted(
        moment(edge) for edge in edges
    )  # within the flow, one after the other
    for run in tasks[:-1]:
        assert 0 <= seconds(run) - outcomes[run["name"]]["seconds"] < 5  # the rest is Prefect's
    assert seconds(flow_run) <= result["wall_s"]
    assert sum(stage["seconds"] for stage in result["stages"]) <= seconds(flow_run)

    names = {run["id"]: run["name"] for run in tasks}
    logs = [
        (names.get(log["task_run_id"], "train"), log["message"])
        for log in logs_of(server, flow_run)
    ]
    for name, stage in outcomes.items():
        own = [message for logger, message in logs if logger == name]
        assert own[0] == f"{name} starts"
        assert f"{name:<10} {stage['state'].capitalize():<9} {stage['seconds']:8.1f} s" in own
    assert ("finetune", "finetune   starts from the base model") in logs
    assert any(
        logger == "register" and "tiny version 2 registered" in message for logger, message in logs
    )

    artifacts = {
        artifact["key"]: artifact
        for artifact in found(
            server, "artifacts", artifacts={"flow_run_id": of_run(flow_run)["id"]}
        )
    }
    progress = {
        artifact["task_run_id"]: artifact["data"]
        for key, artifact in artifacts.items()
        if key != "train"
    }
    assert progress == {run["id"]: 100 for run in tasks if f"progress-{run['name']}" in artifacts}
    assert all(
        outcomes[key.removeprefix("progress-")]["state"] == "ran"
        for key in artifacts
        if key != "train"
    )
    summary = artifacts["train"]["data"]
    assert f"`{trained}/reports/report.html`" in summary
    assert "](" not in summary  # no page of a server: no link


@pytest.mark.parametrize(("ends_well", "at_last"), [(True, 100), (False, 50)])
def test_progress_of_a_long_stage_is_an_artifact_of_its_task_run(
    monkeypatch: pytest.MonkeyPatch, server: httpx.Client, ends_well: bool, at_last: int
) -> None:
    monkeypatch.setattr(run_page, "UPDATE_SECONDS", 0.05)

    def shown() -> list[tuple[Any, ...]]:
        ours = {"id": {"any_": [str(task_run.get_id())]}}
        return [
            (one["type"], one["key"], one["data"])
            for one in found(server, "artifacts", artifacts={"task_run_id": ours["id"]})
        ]

    def shows(percent: float) -> bool:
        return shown() == [("progress", "progress-finetune", percent)]

    @task(task_run_name="finetune")
    def work() -> list[tuple[Any, ...]]:
        with suppress(TrainingError), run_page.report_to_prefect():
            report = listener.get()("finetune")
            for share in (0.25, 0.5):
                report(1, {"progress": share, "loss": 0.1})
                eventually(partial(shows, 100 * share))
            if not ends_well:
                raise TrainingError("the loss became nan", "")
        return shown()

    @flow
    def training() -> list[tuple[Any, ...]]:
        return work()

    with temporary_settings(
        {PREFECT_API_URL: prefect_server(), PREFECT_LOGGING_TO_API_ENABLED: False}
    ):
        assert training() == [("progress", "progress-finetune", at_last)]
    assert listener.get()("finetune") is silent


def test_links_are_to_pages_that_a_server_serves() -> None:
    link = version_link("http://me:secret@tracking:5000/", "my reviews", 3, "abc")
    assert (
        link
        == "[Version 3](http://tracking:5000/#/models/my%20reviews/versions/3) and [its run](http://tracking:5000/#/runs/abc)"
    )
    assert version_link("sqlite:////home/me/reviews/.ratchet/mlflow.db", "reviews", 3, "abc") == ""


def test_a_run_with_nothing_to_do_is_all_cached(trained: Path, server: httpx.Client) -> None:
    assert ratchet_json(trained, "train")["state"] == "cached"
    (flow_run,) = flow_runs_of(server, trained).values()
    assert flow_run["name"] == "train tiny v1"
    states = {run["name"]: run["state"]["name"] for run in task_runs_of(server, flow_run)}
    assert states == dict.fromkeys(STAGES, "Cached") | {"register": "Completed"}


def test_promotions_and_rollbacks_are_named_by_what_they_do(
    trained: Path, server: httpx.Client
) -> None:
    ratchet_json(trained, "promote")
    second = ratchet_json(trained, "train", "-S", "evaluate.min_slice_rows=5")["version"]
    ratchet_json(trained, "promote", str(second), "--force", "--reason", "to go back from it")
    ratchet_json(trained, "rollback")
    ratchet_json(trained, "retrain")
    assert flow_runs_of(server, trained).keys() == {
        "promote tiny v1", f"train tiny v{second}", f"promote tiny v{second}",
        "rollback tiny to v1", "retrain tiny",
    }  # fmt: skip


def test_a_users_mistake_fails_the_flow_in_one_message(trained: Path, server: httpx.Client) -> None:
    error = ratchet_json(trained, "train", "-S", "ingest.columns.text=txet", code=2)["error"]
    assert error["type"] == "DataError"
    (flow_run,) = flow_runs_of(server, trained).values()
    assert (flow_run["name"], flow_run["state"]["name"]) == ("train tiny", "Failed")
    assert any(
        error["message"].splitlines()[0][:60] in log["message"] for log in logs_of(server, flow_run)
    )
