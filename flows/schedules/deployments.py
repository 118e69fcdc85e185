"""When a workspace is trained again by itself: one Prefect deployment a workspace, of the retraining flow.

Cron expressions are croniter's as Prefect evaluates them, by wall-clock time in the time zone. On the night when clocks go forward, a
time within the skipped hour (2:30 in Europe/Berlin) is run once, an hour off: at 1:30 where the server runs on Python 3.11 or 3.12.
When they go back, a time that comes twice is run the first time only. Intervals count elapsed time from 2020-01-01 00:00 UTC, so a
restart does not shift them. Runs that were due while no server or nobody to run them was up stay in the server's database, late: one of
them is made up for, the others that are due by then are cancelled, for two runs of one workspace never overlap. A run that an event
started waits for the one at work instead: data that came while that one ran must not be missed.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.engine.prefect_server import prefect_server
from flows.schedules.timetable import Plan
from tasks.core.errors import ParamsError, ScheduleError, did_you_mean
from tasks.params.workspace import Workspace

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.deployments.runner import RunnerDeployment
    from prefect.events.schemas.automations import Automation
    from prefect.schedules import Schedule

FLOW = "retrain"
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)  # what intervals count from
OUTAGE_WAIT_S = 10.0


@dataclass(frozen=True)
class Scheduled:
    """A workspace's deployment as it stands; times are ISO 8601."""

    name: str
    when: str
    work_pool: str | None  # None: by the process that serves it
    paused: bool
    next_run: str | None = None
    last_run: str | None = None
    last_state: str | None = None


def deployment_name(workspace: Workspace) -> str:
    """The model's name and a short hash of where the workspace lies: no two workspaces share it."""
    return f"{workspace.params().model_name}-{hashlib.sha256(str(workspace.root).encode()).hexdigest()[:8]}"


def make_deployment(workspace: Workspace, plan: Plan, work_pool: str | None) -> RunnerDeployment:
    """The deployment for a plan, not yet applied; one that was paused stays paused, and a work pool must exist."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.events import DeploymentEventTrigger
    from prefect.types.entrypoint import EntrypointType

    from flows.retraining import retraining

    name = deployment_name(workspace)
    with prefect_server() as client:
        if work_pool is not None:
            _check_work_pool(client, work_pool)
        standing = _find(client, name)
    paused = standing is not None and standing.paused
    triggers: list[Any] = (
        [DeploymentEventTrigger(name=name, enabled=not paused, expect={plan.event})]
        if plan.event
        else []
    )
    strategy = (
        ConcurrencyLimitStrategy.ENQUEUE if plan.event else ConcurrencyLimitStrategy.CANCEL_NEW
    )
    deployment: RunnerDeployment = retraining.to_deployment(  # type: ignore[assignment]  # a coroutine only within a running loop
        name,
        schedules=_schedules(plan),
        triggers=triggers,
        # a run whose process was killed before it began holds its place so long; workers may have a container to start
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=strategy, grace_period_seconds=600 if work_pool else 60
        ),
        parameters={"workspace": str(workspace.root)},
        tags=["ratchet", name],
        paused=paused,
        work_pool_name=work_pool,
        entrypoint_type=EntrypointType.MODULE_PATH,  # a file's path would hold from the working directory only
    )
    deployment.work_pool_name = (
        work_pool  # said also where it is None, or a deployment that had one would keep it
    )
    return deployment


def deploy(workspace: Workspace, plan: Plan, work_pool: str) -> Scheduled:
    """Hand the runs to a work pool's workers."""
    deployment = make_deployment(workspace, plan, work_pool)
    with prefect_server():
        deployment.apply()
    return scheduled(workspace)[0]


def serve(deployment: RunnerDeployment) -> None:
    """Start its runs from this process until it is told to end; a server that goes away is waited for."""
    from tenacity import Retrying, retry_if_exception, wait_fixed

    from flows.schedules.runner import serve_until_told

    def run() -> None:
        with redirect_stdout(
            sys.stderr
        ):  # Prefect prints an outage's tracebacks; standard output is ours
            serve_until_told(deployment)

    Retrying(retry=retry_if_exception(_is_outage), wait=wait_fixed(OUTAGE_WAIT_S))(run)


def scheduled(workspace: Workspace) -> list[Scheduled]:
    """The workspace's deployment, if it has one."""
    name = deployment_name(workspace)
    with prefect_server() as client:
        found = _find(client, name)
        return [_describe(client, found)] if found else []


def pause(workspace: Workspace, *, paused: bool) -> Scheduled:
    """Start no more runs, or start them again; a run at work goes on."""
    with prefect_server() as client:
        found = _found(client, workspace)
        if paused:
            client.pause_deployment(found.id)
        else:
            client.resume_deployment(found.id)
        for automation in _automations(
            client, found.id
        ):  # a paused deployment's events would start runs all the same
            client.pause_automation(automation.id) if paused else client.resume_automation(
                automation.id
            )
        return _describe(client, client.read_deployment(found.id))


def remove(workspace: Workspace) -> Scheduled:
    """Take the deployment away with its pending runs; the runs that were stay in the server's history."""
    with prefect_server() as client:
        found = _found(client, workspace)
        last = replace(_describe(client, found), next_run=None)
        client.delete_resource_owned_automations(f"prefect.deployment.{found.id}")
        client.delete_deployment(found.id)
        return last


def _is_outage(error: BaseException) -> bool:
    """Whether the server was away, which ends Prefect's runner after three polls."""
    import httpx

    if isinstance(error, BaseExceptionGroup):
        return all(_is_outage(one) for one in error.exceptions)
    return isinstance(error, httpx.TransportError) or (
        isinstance(error, RuntimeError) and "error threshold" in str(error)
    )


def _schedules(plan: Plan) -> list[Schedule]:
    from prefect.schedules import Cron, Interval

    if plan.cron:
        return [Cron(plan.cron, timezone=plan.timezone)]
    return [Interval(plan.every, anchor_date=EPOCH, timezone="UTC")] if plan.every else []


def _check_work_pool(client: SyncPrefectClient, name: str) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        known = [pool.name for pool in client.read_work_pools()]
        raise ParamsError(
            f"--work-pool {name}: the server has no such work pool.{did_you_mean(name, known)}",
            f"Make it with `prefect work-pool create {name} --type process`, or docker or kubernetes.",
        ) from None


def _find(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(f"{FLOW}/{name}")
    except ObjectNotFound:
        return None


def _found(client: SyncPrefectClient, workspace: Workspace) -> DeploymentResponse:
    found = _find(client, deployment_name(workspace))
    if found is None:
        raise ScheduleError(
            f"{workspace.root}: nothing is scheduled here.",
            "Schedule it: see `ratchet schedule --help`.",
        )
    return found


def _automations(client: SyncPrefectClient, deployment_id: UUID) -> list[Automation]:
    return client.read_resource_related_automations(f"prefect.deployment.{deployment_id}")


def _describe(client: SyncPrefectClient, deployment: DeploymentResponse) -> Scheduled:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    def first(sort: FlowRunSort, states: dict[str, Any]) -> Any:
        which = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate({"state": states}),
            deployment_filter=which,
            sort=sort,
            limit=1,
        )
        return runs[0] if runs else None

    coming = first(FlowRunSort.EXPECTED_START_TIME_ASC, {"type": {"any_": ["SCHEDULED"]}})
    ended = first(FlowRunSort.END_TIME_DESC, {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}})
    return Scheduled(
        name=deployment.name,
        when=", ".join(_when(client, deployment)),
        work_pool=deployment.work_pool_name,
        paused=deployment.paused,
        next_run=_iso(coming.expected_start_time) if coming else None,
        last_run=_iso(ended.end_time) if ended else None,
        last_state=ended.state_name if ended else None,
    )


def _when(client: SyncPrefectClient, deployment: DeploymentResponse) -> Iterator[str]:
    for standing in deployment.schedules:
        schedule: Any = standing.schedule
        yield str(
            Plan(
                cron=getattr(schedule, "cron", None),
                timezone=schedule.timezone,
                every=getattr(schedule, "interval", None),
            )
        )
    for automation in _automations(client, deployment.id):
        yield from (
            str(Plan(event=event)) for event in sorted(getattr(automation.trigger, "expect", ()))
        )


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None
