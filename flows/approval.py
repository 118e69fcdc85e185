"""A person's answer to a promotion that waits for one."""

from __future__ import annotations

import asyncio
import getpass

from tasks.core.errors import GateError
from tasks.core.workspace import Workspace


def answer(workspace: Workspace, *, approve: bool, reason: str) -> str:
    """Resume the workspace's paused promotion with the answer; its name. GateError where none waits."""
    return asyncio.run(_answer(workspace, approve, reason))


async def _answer(workspace: Workspace, approve: bool, reason: str) -> str:
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    async with get_client() as client:
        waiting = [
            run for run in await client.read_flow_runs(flow_run_filter=paused) if run.parameters.get("workspace") == str(workspace.root)
        ]
        if not waiting:
            raise GateError(
                f"{workspace.root}: no promotion waits for an answer.", "`ratchet promote` asks for one where promotion.approval is manual."
            )
        run = waiting[-1]
        await client.resume_flow_run(run.id, run_input={"approve": approve, "reason": reason, "who": getpass.getuser()})
    return run.name
