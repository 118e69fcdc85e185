"""Scheduled retraining: one Prefect deployment of the retraining flow per workspace.

Cron expressions are croniter's, evaluated by Prefect in wall-clock time in the time zone. On the
night when clocks go forward, a time within the skipped hour (2:30 in Europe/Berlin) runs once, an
hour off: at 1:30 if the server runs on Python 3.11 or 3.12. When clocks go back, a time that occurs
twice runs the first time only. Intervals count elapsed time from 2020-01-01 00:00 UTC, so a restart
does not shift them.

Runs that fell due while the server or the runner was down stay in the server's database as late:
one is made up for and the others due by then are cancelled, because two runs of one workspace never
overlap. A run started by an event waits for the current one instead: data that arrived while that
one ran must not be missed.
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
ENTRYPOINT = "ratchet_flows.retraining"  # Prefect looks in the working directory first
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)  # intervals count from here
OUTAGE_WAIT_S = 10.0


@dataclass(frozen=True)
class Scheduled:
    """The state of a workspace's deployment; times are ISO 8601."""

    name: str
    when: str
    work_pool: str | None  # None: run by the serving process
    paused: bool
    next_run: str | None = None
    last_run: str | None = None
    last_state: str | None = None


def deployment_name(workspace: Workspace) -> str:
    """The model's name and a short hash of the workspace's path: unique to the workspace."""
    path_hash = hashlib.sha256(str(workspace.root).encode()).hexdigest()
    return f"{workspace.params().model_name}-{path_hash[:8]}"


def make_deployment(workspace: Workspace, plan: Plan, work_pool: str | None) -> RunnerDeployment:
    """The deployment for a plan, not yet applied; a paused one stays paused.

    Raises ParamsError if the work pool does not exist.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.events import DeploymentEventTrigger
    from prefect.types.entrypoint import EntrypointType

    from flows.retraining import retraining

    name = deployment_name(workspace)
    with prefect_server() as client:
        if work_pool is not None:
            _check_work_pool(client, work_pool)
        existing = _find(client, name)
    paused = existing is not None and existing.paused
    triggers: list[Any] = []
    strategy = ConcurrencyLimitStrategy.CANCEL_NEW
    if plan.event:
        triggers = [DeploymentEventTrigger(name=name, enabled=not paused, expect={plan.event})]
        strategy = ConcurrencyLimitStrategy.ENQUEUE
    # a coroutine only within a running loop
    deployment: RunnerDeployment = retraining.to_deployment(  # type: ignore[assignment]
        name,
        schedules=_schedules(plan),
        triggers=triggers,
        # grace: how long a run killed before it began keeps its slot; workers may start containers
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=strategy, grace_period_seconds=600 if work_pool else 60
        ),
        parameters={"workspace": str(workspace.root)},
        tags=["ratchet", name],
        paused=paused,
        work_pool_name=work_pool,
        # a file path would be relative to the working directory
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment.entrypoint = ENTRYPOINT
    # set even if None, or a deployment that had a work pool would keep it
    deployment.work_pool_name = work_pool
    return deployment


def deploy(workspace: Workspace, plan: Plan, work_pool: str) -> Scheduled:
    """Apply the plan; the work pool's workers execute the runs."""
    deployment = make_deployment(workspace, plan, work_pool)
    with prefect_server():
        deployment.apply()
    return scheduled(workspace)[0]


def serve(deployment: RunnerDeployment) -> None:
    """Run the deployment's runs in this process until a signal; wait out server outages."""
    from tenacity import Retrying, retry_if_exception, wait_fixed

    from flows.schedules.runner import serve_until_signal

    def run() -> None:
        # Prefect prints tracebacks during an outage; standard output carries only our own output
        with redirect_stdout(sys.stderr):
            serve_until_signal(deployment)

    Retrying(retry=retry_if_exception(_is_outage), wait=wait_fixed(OUTAGE_WAIT_S))(run)


def scheduled(workspace: Workspace) -> list[Scheduled]:
    """The workspace's deployment, if it has one."""
    name = deployment_name(workspace)
    with prefect_server() as client:
        deployment = _find(client, name)
        return [_describe(client, deployment)] if deployment else []


def pause(workspace: Workspace, *, paused: bool) -> Scheduled:
    """Pause or resume the schedule and event triggers; a current run continues."""
    with prefect_server() as client:
        deployment = _require(client, workspace)
        if paused:
            client.pause_deployment(deployment.id)
        else:
            client.resume_deployment(deployment.id)
        # events would start runs of a paused deployment too
        for automation in _automations(client, deployment.id):
            if paused:
                client.pause_automation(automation.id)
            else:
                client.resume_automation(automation.id)
        return _describe(client, client.read_deployment(deployment.id))


def remove(workspace: Workspace) -> Scheduled:
    """Delete the deployment and its pending runs; past runs stay in the server's history."""
    with prefect_server() as client:
        deployment = _require(client, workspace)
        last = replace(_describe(client, deployment), next_run=None)
        client.delete_resource_owned_automations(f"prefect.deployment.{deployment.id}")
        client.delete_deployment(deployment.id)
        return last


def _is_outage(error: BaseException) -> bool:
    """Whether the server was unreachable, which ends Prefect's runner after three polls."""
    import httpx

    if isinstance(error, BaseExceptionGroup):
        return all(_is_outage(inner) for inner in error.exceptions)
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
            f"Create it with `prefect work-pool create {name} --type process` "
            "(or docker or kubernetes).",
        ) from None


def _find(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(f"{FLOW}/{name}")
    except ObjectNotFound:
        return None


def _require(client: SyncPrefectClient, workspace: Workspace) -> DeploymentResponse:
    deployment = _find(client, deployment_name(workspace))
    if deployment is None:
        raise ScheduleError(
            f"{workspace.root}: nothing is scheduled here.",
            "Schedule it: see `ratchet schedule --help`.",
        )
    return deployment


def _automations(client: SyncPrefectClient, deployment_id: UUID) -> list[Automation]:
    return client.read_resource_related_automations(f"prefect.deployment.{deployment_id}")


def _describe(client: SyncPrefectClient, deployment: DeploymentResponse) -> Scheduled:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    def first(sort: FlowRunSort, states: dict[str, Any]) -> Any:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate({"state": states}),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            sort=sort,
            limit=1,
        )
        return runs[0] if runs else None

    upcoming = first(FlowRunSort.EXPECTED_START_TIME_ASC, {"type": {"any_": ["SCHEDULED"]}})
    ended = first(FlowRunSort.END_TIME_DESC, {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}})
    return Scheduled(
        name=deployment.name,
        when=", ".join(_when(client, deployment)),
        work_pool=deployment.work_pool_name,
        paused=deployment.paused,
        next_run=_iso(upcoming.expected_start_time) if upcoming else None,
        last_run=_iso(ended.end_time) if ended else None,
        last_state=ended.state_name if ended else None,
    )


def _when(client: SyncPrefectClient, deployment: DeploymentResponse) -> Iterator[str]:
    for entry in deployment.schedules:
        schedule: Any = entry.schedule
        cron, every = getattr(schedule, "cron", None), getattr(schedule, "interval", None)
        yield str(Plan(cron=cron, timezone=schedule.timezone, every=every))
    for automation in _automations(client, deployment.id):
        events = sorted(getattr(automation.trigger, "expect", ()))
        yield from (str(Plan(event=event)) for event in events)


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None
