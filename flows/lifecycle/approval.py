"""Manual approval: answer a paused promotion."""

from __future__ import annotations

import asyncio
import getpass
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.lifecycle.effects import Effect
from tasks.core.errors import GateError
from tasks.params.workspace import Workspace

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun


def answer(workspace: Workspace, effect: Effect, *, approve: bool, reason: str) -> str:
    """Resume the workspace's paused promotion with the answer, and return the flow run's name.

    If an earlier attempt was killed after delivering the same answer, returns the name of that run
    and resumes nothing. Raises GateError if no promotion is waiting.
    """
    return asyncio.run(
        _answer(workspace, effect, {"approve": approve, "reason": reason, "who": getpass.getuser()})
    )


async def _answer(workspace: Workspace, effect: Effect, reply: dict[str, Any]) -> str:
    from prefect import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.responses import SetStateStatus
    from prefect.client.schemas.sorting import FlowRunSort

    paused = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
    )
    async with get_client() as client:
        if answered := await _answered_before(client, effect, reply):
            return answered
        paused_runs = await client.read_flow_runs(
            flow_run_filter=paused, sort=FlowRunSort.START_TIME_DESC
        )
        waiting = [
            run
            for run in paused_runs
            if run.parameters.get("workspace") == str(workspace.root) and _is_waiting(run)
        ]
        if not waiting:
            raise GateError(
                f"{workspace.root}: no promotion is waiting for an answer.",
                "`ratchet promote` asks for one if promotion.approval is manual.",
            )
        run = waiting[0]
        effect.begin({"flow_run": str(run.id), "approve": reply["approve"]})
        response = await client.resume_flow_run(run.id, run_input=reply)
    if response.status != SetStateStatus.ACCEPT:
        why = getattr(response.details, "reason", None) or "no reason given"
        raise GateError(
            f"{run.name}: Prefect rejected the answer: {why}.",
            "See `ratchet history`, and check whether the promotion is still waiting.",
        )
    return run.name


async def _answered_before(
    client: PrefectClient, effect: Effect, reply: dict[str, Any]
) -> str | None:
    """Name of the promotion that an earlier, killed attempt already gave the same answer."""
    from prefect.exceptions import ObjectNotFound

    asked = (effect.left() or {}).get("asked") or {}
    if asked.get("approve") != reply["approve"]:
        return None
    try:
        run = await client.read_flow_run(UUID(asked["flow_run"]))
        inputs = await client.filter_flow_run_input(
            run.id, key_prefix="paused-", limit=200, exclude_keys=set()
        )
    except ObjectNotFound:  # on another server, or deleted
        return None
    answers = [json.loads(entry.value) for entry in inputs if entry.key.endswith("-response")]
    delivered = any(
        answer.get("approve") == reply["approve"] and answer.get("who") == reply["who"]
        for answer in answers
    )
    return run.name if delivered and not (run.state and run.state.is_paused()) else None


def _is_waiting(run: FlowRun) -> bool:
    """Whether the pause has not timed out: a killed run stays paused but can take no answer."""
    timeout = run.state.state_details.pause_timeout if run.state else None
    return timeout is None or timeout > datetime.now(UTC)
