"""`ratchet schedule`: start retraining by the clock or on an event; list, pause, resume and remove that."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import AsJson, Directory, app, open_workspace, print_json
from tasks.core.errors import ParamsError

if TYPE_CHECKING:
    from flows.schedules.deployments import Scheduled


@app.command()
def schedule(
    context: typer.Context,
    cron: Annotated[
        str | None, typer.Option(help='Cron expression, such as "0 3 * * *".', show_default=False)
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(help="IANA time zone of --cron (default: UTC).", show_default=False),
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="Interval, such as 30m, 6h or 2d.", show_default=False)
    ] = None,
    on_event: Annotated[
        str | None, typer.Option(help="Prefect event, such as data.updated.", show_default=False)
    ] = None,
    work_pool: Annotated[
        str | None,
        typer.Option(
            help="Let this work pool's workers run it, instead of this process.", show_default=False
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Show what is scheduled here.")] = False,
    pause: Annotated[
        bool, typer.Option("--pause", help="Start no more runs; holds over restarts.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Start runs again.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the schedule away.")] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Retrain by the clock or on an event, with a Prefect server.

    Without --work-pool this process stays and runs what is due, until it is
    stopped. A new schedule replaces the workspace's old one.

    Daylight saving (Prefect's cron): a time in the hour that is skipped is
    run once that night, an hour off; one that comes twice is run the first
    time only. --every counts elapsed time from midnight UTC, 1 January
    2020, whatever the clocks do.

    Missed runs: of those due while the server, this process or the workers
    were down, one is made up for and the others are cancelled. So is a run
    that is due while another one, or a `ratchet` command, is at work in the
    workspace; one that an event started waits for it.

    SIGTERM or Ctrl-C ends this process within seconds. A run at work is
    cancelled, and what it has finished is kept for the next.
    """
    actions = [
        name
        for name, wanted in (
            ("list", show),
            ("pause", pause),
            ("resume", resume),
            ("remove", remove),
        )
        if wanted
    ]
    timing = [value for value in (cron, timezone, every, on_event, work_pool) if value is not None]
    if len(actions) > 1 or (actions and timing):
        raise ParamsError(
            f"schedule: --{actions[0]} goes alone.",
            "Give one of --list, --pause, --resume, --remove, or a schedule.",
        )
    if not actions:
        os.environ.setdefault(
            "PREFECT_LOGGING_LEVEL", "INFO"
        )  # a process that stays says what it does; on standard error
    workspace = open_workspace(context, directory)
    from flows.schedules import deployments as scheduling
    from flows.schedules.timetable import read_plan

    if actions:
        if show:
            found = scheduling.scheduled(workspace)
        elif remove:
            found = [scheduling.remove(workspace)]
        else:
            found = [scheduling.pause(workspace, paused=pause)]
        _tell(found, as_json, "Removed: " if remove else "")
        return
    plan = read_plan(cron, every, on_event, timezone)
    if work_pool is not None:
        _tell([scheduling.deploy(workspace, plan, work_pool)], as_json)
        return
    deployment = scheduling.make_deployment(workspace, plan, None)
    _tell(
        [scheduling.Scheduled(deployment.name, str(plan), None, bool(deployment.paused))], as_json
    )
    sys.stdout.flush()
    scheduling.serve(deployment)


def _tell(found: list[Scheduled], as_json: bool, verb: str = "") -> None:
    if as_json:
        print_json([asdict(one) for one in found])
    elif not found:
        print("Nothing is scheduled here.")
    for one in [] if as_json else found:
        runner = f"work pool {one.work_pool}" if one.work_pool else "served by `ratchet schedule`"
        print(f"{verb}{one.name}: {one.when}, {runner}{', paused' if one.paused else ''}")
        if one.next_run:
            print(f"  next run  {one.next_run}")
        if one.last_run:
            print(f"  last run  {one.last_run}  {one.last_state}")
