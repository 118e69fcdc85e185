"""Schedules on a real Prefect server.

Runs start when they should and never two at once; failures are reported; a signal ends them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import psutil
import pytest
from filelock import FileLock
from servers import prefect_server, webhook
from workspaces import (
    add_own_modules,
    clean_environment,
    copy_workspace,
    ratchet,
    ratchet_json,
    run,
)

from flows.engine.notification import failure_cause
from flows.schedules.deployments import deployment_name
from flows.schedules.timetable import read_plan
from tasks.core.errors import ParamsError, WorkspaceError
from tasks.params.schema import save_overrides
from tasks.params.workspace import Workspace

SOON = {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_WORKER_PREFETCH_SECONDS": "0"}
BERLIN = ZoneInfo("Europe/Berlin")
BUSY = "another `ratchet` run is using this workspace"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that plans more than a year ahead, so that its runs cross both clock changes."""
    settings = {
        "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_SCHEDULED_TIME": "P372D",
        "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_RUNS": "60",
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    }
    running = prefect_server(tmp_path_factory.mktemp("prefect"), **settings)
    try:
        running.start()
        running.wait("/api/health")
        pool = {"name": "machines", "type": "process"}
        httpx.post(f"{running.url}/api/work_pools/", json=pool).raise_for_status()
        yield f"{running.url}/api"
    finally:
        running.kill()


def wait_for(look: Callable[[], Any]) -> Any:
    """What `look` returns once it is true; the test's own timeout ends a wait in vain."""
    while not (value := look()):
        time.sleep(0.25)
    return value


@cache
def name_of(root: Path) -> str:
    return deployment_name(Workspace(root))


def runs(server: str, root: Path, *states: str) -> list[dict[str, Any]]:
    """The deployment's runs in these states, in chronological order."""
    query = {
        "deployments": {"name": {"any_": [name_of(root)]}},
        "flow_runs": {"state": {"type": {"any_": states}}} if states else {},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    return list(httpx.post(f"{server}/flow_runs/filter", json=query).json())


def overlaps(server: str, root: Path) -> list[str]:
    """Names of runs that began before the previous one had ended; a cancelled run never began."""
    started = runs(server, root, "COMPLETED", "FAILED", "CRASHED", "RUNNING")
    began = sorted((run["start_time"], run["end_time"] or "never", run["name"]) for run in started)
    return [later[2] for earlier, later in pairwise(began) if later[0] < earlier[1]]


def hear_interrupts() -> None:
    """Undo what a shell does to background processes: they and their children ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def serving(root: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run `ratchet schedule`; it must exit with 0 on an interrupt, and log no secret.

    The workspace has the user's own modules with Ratchet's names, which no run may load.
    """
    add_own_modules(root)
    with (root / "served.log").open("w+") as log:
        command = ["ratchet", "schedule", *options, "--json"]
        process = subprocess.Popen(
            command,
            cwd=root,
            env=clean_environment() | SOON | environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=hear_interrupts,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
            log.seek(0)
            logged = log.read()
        assert process.returncode == 0, logged
        assert "secret-token" not in logged
        assert json.loads(out)[0]["name"] == name_of(root)


def in_prefect(server: str, code: str) -> None:
    run(Path.cwd(), sys.executable, "-c", code, PREFECT_API_URL=server)


def emit(server: str, times: int) -> None:
    call = "emit_event('data.updated', resource={'prefect.resource.id': f'data.{number}'})"
    loop = f"for number in range({times}): {call}"
    in_prefect(server, f"from prefect.events import emit_event\n{loop}")


def save_block(server: str, address: str) -> None:
    body = {"to": "ops", "body": "{{body}}"}
    code = (
        "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block\n"
        f"Block(name='ops', url='{address}', json_data={body}).save('ops')"
    )
    in_prefect(server, code)


def test_an_interval_starts_runs_one_at_a_time_and_only_a_failure_is_told(
    trained: Path, server: str
) -> None:
    blocks = "notify.blocks=[slack-webhook/nobody, custom-webhook/ops]"
    save_overrides(trained / "params.yaml", [blocks])

    def cancelled() -> list[dict[str, Any]]:
        busy = runs(server, trained, "CANCELLED")
        return [run for run in busy if BUSY in run["state"]["message"]]

    with webhook(200, 503) as (address, posted):
        save_block(server, address)
        with serving(trained, "--every", "4s", PREFECT_API_URL=server, RATCHET_WEBHOOK=address):
            # a command that somebody runs by hand holds this lock
            with FileLock(trained / ".ratchet" / "lock"):
                met = wait_for(cancelled)[0]
            assert posted == []
            (trained / "reviews.csv").rename(trained / "away.csv")
            wait_for(lambda: len(posted) >= 3)
            failed = wait_for(lambda: runs(server, trained, "FAILED"))[0]
            (trained / "away.csv").rename(trained / "reviews.csv")
            completed = wait_for(lambda: runs(server, trained, "COMPLETED"))[0]
            by_the_server = wait_for(
                lambda: [message for message in messages(server, failed) if "nobody" in message]
            )
        assert overlaps(server, trained) == []
    served = (trained / "served.log").read_text()
    before_failure = served[: served.index("SourceError")].rpartition("Beginning flow run")[0]
    assert "Traceback" not in before_failure
    assert (met["name"], met["state"]["name"]) == ("retrain tiny", "Cancelled")
    of_met = messages(server, met)
    assert not any("Traceback" in message or "hook" in message for message in of_met)
    assert completed["auto_scheduled"]
    assert completed["parameters"] == {"workspace": str(trained)}
    to_block, report, again = posted[:3]
    assert report == again  # the first time the answer was 503
    assert set(report) == {"text", "workspace", "flow_run", "url", "cause", "id"}
    assert (report["workspace"], report["flow_run"]) == (str(trained), failed["name"])
    assert report["url"] == f"{server.removesuffix('/api')}/runs/flow-run/{failed['id']}"
    assert "reviews.csv" in report["cause"]
    assert to_block == {"to": "ops", "body": report["text"]}
    assert {report["cause"], report["url"]} <= set(report["text"].splitlines())
    assert "could not be reported" in by_the_server[0]
    assert "SourceError" in failed["state"]["message"]
    ratchet(trained, "schedule", "--remove", PREFECT_API_URL=server)


def messages(server: str, flow_run: dict[str, Any]) -> list[str]:
    """The log of a flow run."""
    query = {"logs": {"flow_run_id": {"any_": [flow_run["id"]]}}}
    logs = httpx.post(f"{server}/logs/filter", json=query).json()
    return [log["message"] for log in logs]


def test_an_events_runs_wait_for_one_another_and_a_killed_one_is_told(
    trained: Path, server: str
) -> None:
    on_server, event = {"PREFECT_API_URL": server}, ("--on-event", "data.updated")
    with (
        webhook() as (address, posted),
        serving(trained, *event, **on_server, RATCHET_WEBHOOK=address) as process,
    ):
        wait_for(lambda: ratchet_json(trained, "schedule", "--list", **on_server))
        emit(server, 2)
        wait_for(lambda: len(runs(server, trained)) >= 2)
        assert len(runs(server, trained)) == 2
        wait_for(lambda: len(runs(server, trained, "COMPLETED")) == 2)
        assert overlaps(server, trained) == []

        with FileLock(trained / ".ratchet" / "lock"):
            emit(server, 1)
            waits = wait_for(lambda: runs(server, trained, "RUNNING"))[0]
            wait_for(lambda: "This run waits for it to end" in "\n".join(messages(server, waits)))
        wait_for(lambda: len(runs(server, trained, "COMPLETED")) == 3)

        assert ratchet_json(trained, "schedule", "--pause", **on_server)[0]["paused"]
        emit(server, 1)
        assert not ratchet_json(trained, "schedule", "--resume", **on_server)[0]["paused"]
        emit(server, 1)
        (running,) = wait_for(lambda: runs(server, trained, "RUNNING"))
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        report = wait_for(lambda: posted)[0]
        assert report["flow_run"] == running["name"]
        assert "crashed" in report["text"]
        assert len(runs(server, trained)) == 4  # the event during the pause started none
    ratchet(trained, "schedule", "--remove", **on_server)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_a_schedule_and_its_run_and_keeps_what_was_made(
    trained: Path, server: str, ending: signal.Signals
) -> None:
    save_overrides(trained / "params.yaml", ["finetune.epochs=500"])
    kept = trained / ".ratchet" / "work" / "finetune" / "last"
    on_server = {"PREFECT_API_URL": server}
    with (
        webhook() as (address, posted),
        serving(trained, "--every", "4s", **on_server, RATCHET_WEBHOOK=address) as process,
    ):
        wait_for(kept.exists)
        (running,) = runs(server, trained, "RUNNING")
        assert running["name"] == "retrain tiny"
        error = ratchet_json(trained, "train", code=2, **on_server)["error"]
        assert BUSY in error["message"]
        parent = psutil.Process(process.pid)
        processes = [parent, *parent.children(recursive=True)]
        # Ctrl-C goes to all processes that a terminal started
        for signalled in processes if ending == signal.SIGINT else processes[:1]:
            signalled.send_signal(ending)
        assert process.wait(timeout=60) == 0
        assert psutil.wait_procs(processes, timeout=1)[1] == []
        assert posted == []
    ended = next(run for run in runs(server, trained, "CANCELLED") if run["id"] == running["id"])
    assert ended["state"]["name"] == "Cancelled"
    assert runs(server, trained, "CRASHED", "FAILED", "CANCELLING") == []
    assert kept.exists()
    assert "Traceback" not in (trained / "served.log").read_text()
    ratchet(trained, "schedule", "--remove", **on_server)


def test_cron_keeps_the_wall_clock_when_the_clocks_change_and_workspaces_do_not_meet(
    template: Path, trained: Path, tmp_path: Path, server: str
) -> None:
    other = copy_workspace(template, tmp_path / "other")
    on_server = {"PREFECT_API_URL": server}
    for root, cron in ((trained, "0 3 * * sun"), (other, "30 2 * * sun")):
        options = ("--cron", cron, "--timezone", "Europe/Berlin", "--work-pool", "machines")
        (deployed,) = ratchet_json(root, "schedule", *options, **on_server)
        assert deployed["when"] == f"cron {cron} (Europe/Berlin)"
        assert deployed["work_pool"] == "machines"
    at_three = [planned(run) for run in wait_for(lambda: all_planned(server, trained))]
    assert {(start.hour, start.minute) for start in at_three} == {(3, 0)}
    assert len({start.utcoffset() for start in at_three}) == 2
    assert len({start.date() for start in at_three}) == len(at_three)
    skipped = [planned(run) for run in wait_for(lambda: all_planned(server, other))]
    odd = [start for start in skipped if (start.hour, start.minute) != (2, 30)]
    assert odd  # one night has no half past two
    assert {(start.hour, start.minute) for start in odd} <= {(1, 30), (3, 30)}
    # another night has it twice, but the run starts once
    assert len({start.date() for start in skipped}) == len(skipped)

    assert ratchet_json(trained, "schedule", "--pause", **on_server)[0]["next_run"] is None
    assert runs(server, trained, "SCHEDULED") == []
    assert not ratchet_json(other, "schedule", "--list", **on_server)[0]["paused"]
    every = ("--every", "2d", "--work-pool", "machines")
    (again,) = ratchet_json(trained, "schedule", *every, **on_server)
    # replaced, and still paused
    assert (again["paused"], again["when"]) == (True, "every 2 days, 0:00:00")
    ratchet(trained, "schedule", "--resume", **on_server)
    assert wait_for(lambda: runs(server, trained, "SCHEDULED"))
    ratchet(trained, "schedule", "--remove", **on_server)
    assert ratchet_json(trained, "schedule", "--list", **on_server) == []
    assert runs(server, trained, "SCHEDULED") == []
    error = ratchet_json(trained, "schedule", "--pause", code=2, **on_server)["error"]
    assert "nothing is scheduled" in error["message"]
    assert len(ratchet_json(other, "schedule", "--list", **on_server)) == 1
    ratchet(other, "schedule", "--remove", **on_server)


def all_planned(server: str, root: Path) -> list[dict[str, Any]]:
    """The planned runs, once they reach a year ahead; with a wrong SQLAlchemy there are none."""
    scheduled, year_ahead = runs(server, root, "SCHEDULED"), timedelta(days=360)
    if scheduled and planned(scheduled[-1]) > datetime.now(BERLIN) + year_ahead:
        return scheduled
    return []


def planned(run: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(run["expected_start_time"]).astimezone(BERLIN)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "neither"),
        ({"cron": "0 3 * * *", "every": "6h"}, "--cron and --every together"),
        ({"every": "6h", "on_event": "data.updated"}, "--every and --on-event together"),
        ({"cron": "61 3 * * *"}, "61 3 * * *"),
        ({"cron": "at three"}, "at three"),
        ({"cron": "0 0 30 2 *"}, "matches no date"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Berln"}, "Did you mean 'Europe/Berlin'"),
        ({"every": "6h", "timezone": "Europe/Berlin"}, "goes with --cron"),
        ({"every": "six hours"}, "six hours"),
        ({"every": "0h"}, "between a second and a year"),
        ({"every": "6"}, "not an interval"),
        ({"every": "999999999d"}, "between a second and a year"),
        ({"on_event": " "}, "empty"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(options: dict[str, str], says: str) -> None:
    unset: dict[str, str | None] = dict.fromkeys(("cron", "every", "on_event", "timezone"))
    with pytest.raises(ParamsError) as raised:
        read_plan(**(unset | options))
    assert says in raised.value.message
    assert raised.value.remedy


@pytest.mark.parametrize(("text", "hours"), [("6h", 6), ("90m", 1.5), ("2d", 48), ("1d12h", 36)])
def test_intervals_are_read(text: str, hours: float) -> None:
    assert read_plan(None, text, None, None).every == timedelta(hours=hours)


def test_what_the_server_cannot_do_ends_in_one_message(trained: Path, server: str) -> None:
    def error(*arguments: str, **environment: str) -> dict[str, str]:
        command = ("schedule", *arguments)
        return dict(ratchet_json(trained, *command, code=2, server=False, **environment)["error"])

    every = ("--every", "6h")
    nowhere = error(*every, HOME=str(trained))
    assert nowhere["type"] == "ScheduleError"
    assert "prefect server start" in nowhere["remedy"]
    assert "prefect config set PREFECT_API_URL=" in nowhere["remedy"]
    assert "cannot be reached" in error(*every, PREFECT_API_URL="http://127.0.0.1:9/api")["message"]
    pool = error(*every, "--work-pool", "machine", PREFECT_API_URL=server)["message"]
    assert "Did you mean 'machines'" in pool
    assert "cannot be combined" in error("--list", *every, PREFECT_API_URL=server)["message"]


def test_a_cause_is_one_line_without_passwords() -> None:
    from prefect.states import Crashed, Failed

    assert failure_cause(Failed(data=WorkspaceError("not\nhere", "Go there."))) == "not here"
    address = ValueError("no answer from postgresql://me:secret@host/db")
    assert failure_cause(Failed(data=address)) == "ValueError: no answer from postgresql://host/db"
    assert failure_cause(Crashed(message="Killed.")) == "Killed."
