"""A person's answer to a promotion that waits for one."""

from __future__ import annotations

import asyncio
import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tasks.core.errors import GateError
from tasks.core.workspace import Workspace

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


def answer(workspace: Workspace, *, approve: bool, reason: str) -> str:
    """Resume the workspace's paused promotion with the answer; its name. GateError where none waits."""
    return asyncio.run(_answer(workspace, approve, reason))


async def _answer(workspace: Workspace, approve: bool, reason: str) -> str:
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.responses import SetStateStatus
    from prefect.client.schemas.sorting import FlowRunSort

    paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    async with get_client() as client:
        found = await client.read_flow_runs(flow_run_filter=paused, sort=FlowRunSort.START_TIME_DESC)
        waiting = [run for run in found if run.parameters.get("workspace") == str(workspace.root) and _still_waits(run)]
        if not waiting:
            raise GateError(
                f"{workspace.root}: no promotion waits for an answer.", "`ratchet promote` asks for one where promotion.approval is manual."
            )
        run = waiting[0]
        response = await client.resume_flow_run(run.id, run_input={"approve": approve, "reason": reason, "who": getpass.getuser()})
    if response.status != SetStateStatus.ACCEPT:
        why = getattr(response.details, "reason", None) or "no reason given"
        raise GateError(f"{run.name}: Prefect did not take the answer: {why}.", "See `ratchet history`, and whether it still waits.")
    return run.name


def _still_waits(run: FlowRun) -> bool:
    """Not one whose time is over, or whose process was killed before that and can take no answer."""
    timeout = run.state.state_details.pause_timeout if run.state else None
    return timeout is None or timeout > datetime.now(UTC)
