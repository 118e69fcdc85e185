"""`ratchet schedule`: schedule retraining by the clock or on an event, and manage the schedule."""

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
            help="Run on this work pool's workers instead of in this process.", show_default=False
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Show the schedule.")] = False,
    pause: Annotated[
        bool, typer.Option("--pause", help="Start no more runs, also after a restart.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a paused schedule.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the schedule.")] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Schedule retraining by the clock or on an event, with a Prefect server.

    Without --work-pool, this process keeps running and executes due runs
    until it is stopped. A new schedule replaces the workspace's old one.

    Daylight saving (Prefect's cron): a time in the skipped hour runs once
    that night, an hour off; a time that occurs twice runs the first time
    only. --every counts elapsed time from midnight UTC, 1 January 2020,
    whatever the clocks do.

    Missed runs: of those due while the server, this process or the workers
    were down, one is made up for and the others are cancelled. A run that
    is due while another run or `ratchet` command is using the workspace is
    cancelled too; a run started by an event waits instead.

    SIGTERM or Ctrl-C ends this process within seconds. A current run is
    cancelled; its finished work is kept for the next run.
    """
    flags = {"list": show, "pause": pause, "resume": resume, "remove": remove}
    actions = [name for name, is_set in flags.items() if is_set]
    timing = [value for value in (cron, timezone, every, on_event, work_pool) if value is not None]
    if len(actions) > 1 or (actions and timing):
        raise ParamsError(
            f"schedule: --{actions[0]} cannot be combined with other options.",
            "Give one of --list, --pause, --resume, --remove, or a schedule.",
        )
    if not actions:
        # a long-running process logs what it does, to standard error
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
    workspace = open_workspace(context, directory)
    from flows.schedules import deployments as scheduling
    from flows.schedules.timetable import read_plan

    if actions:
        if show:
            schedules = scheduling.scheduled(workspace)
        elif remove:
            schedules = [scheduling.remove(workspace)]
        else:
            schedules = [scheduling.pause(workspace, paused=pause)]
        _print(schedules, as_json, "Removed: " if remove else "")
        return
    plan = read_plan(cron, every, on_event, timezone)
    if work_pool is not None:
        _print([scheduling.deploy(workspace, plan, work_pool)], as_json)
        return
    deployment = scheduling.make_deployment(workspace, plan, None)
    paused = bool(deployment.paused)
    _print([scheduling.Scheduled(deployment.name, str(plan), None, paused)], as_json)
    sys.stdout.flush()
    scheduling.serve(deployment)


def _print(schedules: list[Scheduled], as_json: bool, verb: str = "") -> None:
    if as_json:
        print_json([asdict(entry) for entry in schedules])
        return
    if not schedules:
        print("Nothing is scheduled here.")
    for entry in schedules:
        pool = entry.work_pool
        runner = f"work pool {pool}" if pool else "served by `ratchet schedule`"
        print(f"{verb}{entry.name}: {entry.when}, {runner}{', paused' if entry.paused else ''}")
        if entry.next_run:
            print(f"  next run  {entry.next_run}")
        if entry.last_run:
            print(f"  last run  {entry.last_run}  {entry.last_state}")
