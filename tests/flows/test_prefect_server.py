"""What a Prefect server shows: every stage as a task run, with its times, state, logs and progress.

Flow runs are named by what they do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow, task
from prefect.runtime import task_run
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from shared import prefect_server
from workspaces import STAGES, ratchet_json

from flows.engine import run_page
from flows.engine.progress import listener
from flows.engine.run_page import version_link
from tasks.core.errors import TrainingError
from tasks.core.progress import silent


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    """A client of the API; other tests run flows on the same server."""
    with httpx.Client(base_url=prefect_server(), timeout=60) as client:
        yield client


def query(server: httpx.Client, collection: str, **filters: Any) -> list[dict[str, Any]]:
    return list(server.post(f"/{collection}/filter", json=filters).raise_for_status().json())


def of_run(flow_run: dict[str, Any]) -> dict[str, Any]:
    return {"id": {"any_": [flow_run["id"]]}}


def flow_runs_of(server: httpx.Client, workspace: Path) -> dict[str, dict[str, Any]]:
    """Flow runs of a workspace, by name."""
    runs = query(server, "flow_runs", sort="START_TIME_DESC")
    return {
        run["name"]: run for run in runs if run["parameters"].get("workspace") == str(workspace)
    }


def eventually(look: Callable[[], Any]) -> Any:
    """What `look` returns once it is true: the server stores task runs and logs with a delay."""
    for _ in range(200):
        if value := look():
            return value
        time.sleep(0.5)
    raise AssertionError("the server did not take it in")


def task_runs_of(server: httpx.Client, flow_run: dict[str, Any]) -> list[dict[str, Any]]:
    """Task runs in chronological order, once the last has ended."""

    def look() -> list[dict[str, Any]]:
        order = "EXPECTED_START_TIME_ASC"
        runs = query(server, "task_runs", sort=order, flow_runs=of_run(flow_run))
        have_ended = all(run["end_time"] for run in runs)
        return runs if runs and have_ended and runs[-1]["name"] == "register" else []

    return list(eventually(look))


def logs_of(server: httpx.Client, flow_run: dict[str, Any]) -> list[dict[str, Any]]:
    def look() -> list[dict[str, Any]]:
        run_filter = {"flow_run_id": {"any_": [flow_run["id"]]}}
        logs = query(server, "logs", sort="TIMESTAMP_ASC", logs=run_filter)
        of_flow = [log["message"] for log in logs if log["task_run_id"] is None]
        return logs if any("Finished in state" in message for message in of_flow) else []

    return list(eventually(look))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def seconds(run: dict[str, Any]) -> float:
    return (moment(run["end_time"]) - moment(run["start_time"])).total_seconds()


def test_a_training_is_shown_as_it_happened(trained: Path, server: httpx.Client) -> None:
    overrides = ("-S", "finetune.epochs=3", "-S", "validate.min_length=2")
    result = ratchet_json(trained, "train", *overrides)
    outcomes = {stage["name"]: stage for stage in result["stages"]}
    (flow_run,) = flow_runs_of(server, trained).values()
    assert flow_run["name"] == "train tiny v2"
    tasks = task_runs_of(server, flow_run)
    assert [run["name"] for run in tasks] == [*STAGES, "register"]

    shown_states = {run["name"]: run["state"]["name"].lower() for run in tasks[:-1]}
    assert shown_states == {name: stage["state"] for name, stage in outcomes.items()}
    assert outcomes["ingest"]["state"] == "cached"
    assert outcomes["finetune"]["state"] == "ran"

    # within the flow, one after the other
    of_tasks = [run[edge] for run in tasks for edge in ("start_time", "end_time")]
    edges = [moment(text) for text in (flow_run["start_time"], *of_tasks, flow_run["end_time"])]
    assert edges == sorted(edges)
    for run in tasks[:-1]:
        # the rest is Prefect's overhead
        assert 0 <= seconds(run) - outcomes[run["name"]]["seconds"] < 5
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

    run_filter = {"flow_run_id": of_run(flow_run)["id"]}
    artifacts = {
        artifact["key"]: artifact for artifact in query(server, "artifacts", artifacts=run_filter)
    }
    summary = artifacts.pop("train")["data"]
    progress = {artifact["task_run_id"]: artifact["data"] for artifact in artifacts.values()}
    assert progress == {run["id"]: 100 for run in tasks if f"progress-{run['name']}" in artifacts}
    assert all(outcomes[key.removeprefix("progress-")]["state"] == "ran" for key in artifacts)
    assert f"`{trained}/reports/report.html`" in summary
    assert "](" not in summary  # no server serves a page: no link


@pytest.mark.parametrize(("ends_well", "at_last"), [(True, 100), (False, 50)])
def test_progress_of_a_long_stage_is_an_artifact_of_its_task_run(
    monkeypatch: pytest.MonkeyPatch, server: httpx.Client, ends_well: bool, at_last: int
) -> None:
    monkeypatch.setattr(run_page, "UPDATE_SECONDS", 0.05)

    def shown() -> list[tuple[Any, ...]]:
        run_filter = {"task_run_id": {"any_": [str(task_run.get_id())]}}
        artifacts = query(server, "artifacts", artifacts=run_filter)
        return [(artifact["type"], artifact["key"], artifact["data"]) for artifact in artifacts]

    @task(task_run_name="finetune")
    def work() -> list[tuple[Any, ...]]:
        with suppress(TrainingError), run_page.report_to_prefect():
            report = listener.get()("finetune")
            for share in (0.25, 0.5):
                report(1, {"progress": share, "loss": 0.1})
                wanted = [("progress", "progress-finetune", 100 * share)]
                eventually(lambda wanted=wanted: shown() == wanted)
            if not ends_well:
                raise TrainingError("the loss became nan", "")
        return shown()

    @flow
    def training() -> list[tuple[Any, ...]]:
        return work()

    settings = {PREFECT_API_URL: prefect_server(), PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(settings):
        assert training() == [("progress", "progress-finetune", at_last)]
    assert listener.get()("finetune") is silent


def test_links_are_to_pages_that_a_server_serves() -> None:
    link = version_link("http://me:secret@tracking:5000/", "my reviews", 3, "abc")
    page = "http://tracking:5000/#"
    model_page, logged_run = f"{page}/models/my%20reviews/versions/3", f"{page}/runs/abc"
    assert link == f"[Version 3]({model_page}) and [its run]({logged_run})"
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
        "promote tiny v1",
        f"train tiny v{second}",
        f"promote tiny v{second}",
        "rollback tiny to v1",
        "retrain tiny",
    }


def test_a_users_mistake_fails_the_flow_in_one_message(trained: Path, server: httpx.Client) -> None:
    error = ratchet_json(trained, "train", "-S", "ingest.columns.text=txet", code=2)["error"]
    assert error["type"] == "DataError"
    (flow_run,) = flow_runs_of(server, trained).values()
    assert (flow_run["name"], flow_run["state"]["name"]) == ("train tiny", "Failed")
    start = error["message"].splitlines()[0][:60]
    assert any(start in log["message"] for log in logs_of(server, flow_run))
