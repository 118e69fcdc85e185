"""Schedules on a real Prefect server: runs start on time and never two at once.

A failure is reported, and a signal ends the runs.
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
from servers import hear_interrupts, prefect_server, webhook
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
    """A server that plans more than a year ahead, so that runs always cross both clock changes."""
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
        httpx.post(
            f"{running.url}/api/work_pools/", json={"name": "machines", "type": "process"}
        ).raise_for_status()
        yield f"{running.url}/api"
    finally:
        running.kill()


def wait_for(found: Callable[[], Any]) -> Any:
    """What `found` returns once it is true; the test's own timeout ends a wait in vain."""
    while not (value := found()):
        time.sleep(0.25)
    return value


@cache
def name_of(root: Path) -> str:
    return deployment_name(Workspace(root))


def runs(server: str, root: Path, *states: str) -> list[dict[str, Any]]:
    """The deployment's runs in these states, in the order of their time."""
    wanted = {
        "deployments": {"name": {"any_": [name_of(root)]}},
        "flow_runs": {"state": {"type": {"any_": states}}} if states else {},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    return list(httpx.post(f"{server}/flow_runs/filter", json=wanted).json())


def overlaps(server: str, root: Path) -> list[str]:
    """Names of runs that began before the previous run ended; a cancelled run never began."""
    found = runs(server, root, "COMPLETED", "FAILED", "CRASHED", "RUNNING")
    began = sorted((run["start_time"], run["end_time"] or "never", run["name"]) for run in found)
    return [later[2] for earlier, later in pairwise(began) if later[0] < earlier[1]]


@contextmanager
def serving(root: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run `ratchet schedule` as a process that exits cleanly when interrupted and names no secret.

    The workspace has user modules with the same names as ours; no scheduled run loads them.
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
            told = log.read()
        assert process.returncode == 0, told
        assert "secret-token" not in told
        assert json.loads(out)[0]["name"] == name_of(root)


def in_prefect(server: str, code: str) -> None:
    run(Path.cwd(), sys.executable, "-c", code, PREFECT_API_URL=server)


def emit(server: str, times: int) -> None:
    one = "emit_event('data.updated', resource={'prefect.resource.id': f'data.{number}'})"
    in_prefect(
        server, f"from prefect.events import emit_event\nfor number in range({times}): {one}"
    )


def save_block(server: str, address: str) -> None:
    block = (
        f"CustomWebhookNotificationBlock(name='ops', url='{address}', "
        "json_data={'to': 'ops', 'body': '{{body}}'})"
    )
    in_prefect(
        server,
        "from prefect.blocks.notifications import CustomWebhookNotificationBlock\n"
        f"{block}.save('ops')",
    )


def test_an_interval_starts_runs_one_at_a_time_and_only_a_failure_is_told(
    trained: Path, server: str
) -> None:
    save_overrides(
        trained / "params.yaml", ["notify.blocks=[slack-webhook/nobody, custom-webhook/ops]"]
    )
    with webhook(200, 503) as (address, posted):
        save_block(server, address)
        with serving(trained, "--every", "4s", PREFECT_API_URL=server, RATCHET_WEBHOOK=address):
            with FileLock(
                trained / ".ratchet" / "lock"
            ):  # as a command holds it that somebody runs by hand
                met = wait_for(
                    lambda: [
                        run
                        for run in runs(server, trained, "CANCELLED")
                        if BUSY in run["state"]["message"]
                    ]
                )[0]
            assert posted == []
            (trained / "reviews.csv").rename(trained / "away.csv")
            wait_for(lambda: len(posted) >= 3)
            failed = wait_for(lambda: runs(server, trained, "FAILED"))[0]
            (trained / "away.csv").rename(trained / "reviews.csv")
            completed = wait_for(lambda: runs(server, trained, "COMPLETED"))[0]
            by_the_server = wait_for(
                lambda: [
                    log["message"] for log in logs(server, failed) if "nobody" in log["message"]
                ]
            )
        assert overlaps(server, trained) == []
    served = (trained / "served.log").read_text()
    assert (
        "Traceback" not in served[: served.index("SourceError")].rpartition("Beginning flow run")[0]
    )
    assert (met["name"], met["state"]["name"]) == ("retrain tiny", "Cancelled")
    assert not any(
        "Traceback" in log["message"] or "hook" in log["message"] for log in logs(server, met)
    )
    assert completed["auto_scheduled"]
    assert completed["parameters"] == {"workspace": str(trained)}
    to_block, told, again = posted[:3]
    assert told == again  # the first time the answer was 503
    assert set(told) == {"text", "workspace", "flow_run", "url", "cause", "id"}
    assert (told["workspace"], told["flow_run"]) == (str(trained), failed["name"])
    assert told["url"] == f"{server.removesuffix('/api')}/runs/flow-run/{failed['id']}"
    assert "reviews.csv" in told["cause"]
    assert to_block == {"to": "ops", "body": told["text"]}
    assert {told["cause"], told["url"]} <= set(told["text"].splitlines())
    assert "could not be reported" in by_the_server[0]
    assert "SourceError" in failed["state"]["message"]
    ratchet(trained, "schedule", "--remove", PREFECT_API_URL=server)


def logs(server: str, flow_run: dict[str, Any]) -> list[dict[str, Any]]:
    return list(
        httpx.post(
            f"{server}/logs/filter", json={"logs": {"flow_run_id": {"any_": [flow_run["id"]]}}}
        ).json()
    )


def test_an_events_runs_wait_for_one_another_and_a_killed_one_is_told(
    trained: Path, server: str
) -> None:
    on_server: dict[str, Any] = {"PREFECT_API_URL": server}
    with (
        webhook() as (address, posted),
        serving(
            trained, "--on-event", "data.updated", **on_server, RATCHET_WEBHOOK=address
        ) as process,
    ):
        wait_for(lambda: ratchet_json(trained, "schedule", "--list", **on_server))
        emit(server, 2)
        assert len(wait_for(lambda: (found := runs(server, trained))[1:] and found)) == 2
        wait_for(lambda: len(runs(server, trained, "COMPLETED")) == 2)
        assert overlaps(server, trained) == []

        with FileLock(trained / ".ratchet" / "lock"):
            emit(server, 1)
            waits = wait_for(lambda: runs(server, trained, "RUNNING"))[0]
            wait_for(
                lambda: any(
                    "This run waits for it to end" in log["message"] for log in logs(server, waits)
                )
            )
        wait_for(lambda: len(runs(server, trained, "COMPLETED")) == 3)

        assert ratchet_json(trained, "schedule", "--pause", **on_server)[0]["paused"]
        emit(server, 1)
        assert not ratchet_json(trained, "schedule", "--resume", **on_server)[0]["paused"]
        emit(server, 1)
        (running,) = wait_for(lambda: runs(server, trained, "RUNNING"))
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        told = wait_for(lambda: posted)[0]
        assert told["flow_run"] == running["name"]
        assert "crashed" in told["text"]
        assert len(runs(server, trained)) == 4  # the event during the pause started none
    ratchet(trained, "schedule", "--remove", **on_server)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_a_schedule_and_its_run_and_keeps_what_was_made(
    trained: Path, server: str, ending: signal.Signals
) -> None:
    save_overrides(trained / "params.yaml", ["finetune.epochs=500"])
    kept = trained / ".ratchet" / "work" / "finetune" / "last"
    on_server: dict[str, Any] = {"PREFECT_API_URL": server}
    with (
        webhook() as (address, posted),
        serving(trained, "--every", "4s", **on_server, RATCHET_WEBHOOK=address) as process,
    ):
        wait_for(kept.exists)
        (running,) = runs(server, trained, "RUNNING")
        assert running["name"] == "retrain tiny"
        error = ratchet_json(trained, "train", code=2, **on_server)["error"]
        assert BUSY in error["message"]
        processes = [
            psutil.Process(process.pid),
            *psutil.Process(process.pid).children(recursive=True),
        ]
        for told in (
            processes if ending == signal.SIGINT else processes[:1]
        ):  # Ctrl-C goes to all that a terminal started
            told.send_signal(ending)
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
    on_server: dict[str, Any] = {"PREFECT_API_URL": server}
    for root, cron in ((trained, "0 3 * * sun"), (other, "30 2 * * sun")):
        options = ("--cron", cron, "--timezone", "Europe/Berlin", "--work-pool", "machines")
        (deployed,) = ratchet_json(root, "schedule", *options, **on_server)
        assert deployed["when"] == f"cron {cron} (Europe/Berlin)"
        assert deployed["work_pool"] == "machines"
    at_three = [planned(one) for one in wait_for(lambda: all_planned(server, trained))]
    assert {(one.hour, one.minute) for one in at_three} == {(3, 0)}
    assert len({one.utcoffset() for one in at_three}) == 2
    assert len({one.date() for one in at_three}) == len(at_three)
    skipped = [planned(one) for one in wait_for(lambda: all_planned(server, other))]
    odd = [one for one in skipped if (one.hour, one.minute) != (2, 30)]
    assert odd  # half past two does not come on that night
    assert {(one.hour, one.minute) for one in odd} <= {(1, 30), (3, 30)}
    assert len({one.date() for one in skipped}) == len(
        skipped
    )  # and comes twice on another, when it is run once

    assert ratchet_json(trained, "schedule", "--pause", **on_server)[0]["next_run"] is None
    assert runs(server, trained, "SCHEDULED") == []
    assert not ratchet_json(other, "schedule", "--list", **on_server)[0]["paused"]
    (again,) = ratchet_json(
        trained, "schedule", "--every", "2d", "--work-pool", "machines", **on_server
    )
    assert (again["paused"], again["when"]) == (
        True,
        "every 2 days, 0:00:00",
    )  # replaced, and paused as it was
    ratchet(trained, "schedule", "--resume", **on_server)
    assert wait_for(lambda: runs(server, trained, "SCHEDULED"))
    ratchet(trained, "schedule", "--remove", **on_server)
    assert ratchet_json(trained, "schedule", "--list", **on_server) == []
    assert runs(server, trained, "SCHEDULED") == []
    assert (
        "nothing is scheduled"
        in ratchet_json(trained, "schedule", "--pause", code=2, **on_server)["error"]["message"]
    )
    assert len(ratchet_json(other, "schedule", "--list", **on_server)) == 1
    ratchet(other, "schedule", "--remove", **on_server)


def all_planned(server: str, root: Path) -> list[dict[str, Any]]:
    """The runs planned, once they reach a year ahead; with a wrong SQLAlchemy there are none."""
    found = runs(server, root, "SCHEDULED")
    return (
        found if found and planned(found[-1]) > datetime.now(BERLIN) + timedelta(days=360) else []
    )


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
    wanted: dict[str, str | None] = {
        "cron": None,
        "every": None,
        "on_event": None,
        "timezone": None,
    }
    with pytest.raises(ParamsError) as raised:
        read_plan(**(wanted | options))
    assert says in raised.value.message
    assert raised.value.remedy


@pytest.mark.parametrize(("text", "hours"), [("6h", 6), ("90m", 1.5), ("2d", 48), ("1d12h", 36)])
def test_intervals_are_read(text: str, hours: float) -> None:
    assert read_plan(None, text, None, None).every == timedelta(hours=hours)


def test_what_the_server_cannot_do_ends_in_one_message(trained: Path, server: str) -> None:
    def error(*arguments: str, **environment: str) -> dict[str, str]:
        return dict(
            ratchet_json(trained, "schedule", *arguments, code=2, server=False, **environment)[
                "error"
            ]
        )

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
    assert (
        failure_cause(Failed(data=address)) == "ValueError: no answer from postgresql://***@host/db"
    )
    assert failure_cause(Crashed(message="Killed.")) == "Killed."
