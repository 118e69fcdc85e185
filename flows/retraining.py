"""Trains again when something calls for it: triggers, then training, comparison and promotion. A Prefect flow.

Where another `ratchet` command is at work in the workspace, a run that the clock started is cancelled, one that an event or a person
started on the server waits for it, and `ratchet retrain` says so and ends.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas import OrchestrationResult
from prefect.context import FlowRunContext
from prefect.exceptions import Abort
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled

from flows.engine.environment import prepare
from flows.engine.notification import tell_failure
from flows.engine.run_page import run_name, shown_in_prefect
from flows.launch import workspace_lock
from flows.lifecycle.trigger_answers import look_for_reasons, was_judged
from flows.promotion import promotion
from flows.training import training
from tasks.core.errors import WorkspaceError
from tasks.params.workspace import Workspace


@flow(
    name="retrain",
    flow_run_name=run_name("retrain {model}"),
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def retraining(
    workspace: str, found: Sequence[Mapping[str, Any]] | None = None, key: str = ""
) -> dict[str, Any]:
    """Train and promote the model of a workspace, if anything calls for it.

    workspace   its directory
    found       the triggers, where somebody has asked them just now
    key         id of the decision that it may come to; empty: a new one
    """
    place = Workspace.find(Path(workspace))
    prepare(place)  # a schedule starts the flow in a process of Prefect's
    if deployment.get_id():
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C is for the process that serves it, which ends it
    with ExitStack() as held:
        if busy := _take_turn(place, held):
            _cancel(f"{busy} The schedule starts the next run.")
        triggers = ask_triggers(place) if found is None else [dict(trigger) for trigger in found]
        fired = [trigger for trigger in triggers if trigger["fired"]]
        reason = " ".join(f"{trigger['name']}: {trigger['reason']}" for trigger in fired)
        get_run_logger().info(f"Trains again. {reason}" if fired else "Nothing calls for training.")
        if not fired:
            return {"state": "idle", "triggers": triggers, "version": None, "promotion": None}
        result = training(
            workspace, rerun=["ingest"], trigger=reason
        )  # DVC does not see that a remote source has changed
    if was_judged(place, result.version):
        return {
            "state": "cached",
            "triggers": triggers,
            "version": result.version,
            "promotion": None,
        }
    outcome = promotion(workspace, str(result.version), trigger=reason, key=key)
    return {
        "state": "trained",
        "triggers": triggers,
        "version": result.version,
        "promotion": outcome,
    }


def _take_turn(place: Workspace, held: ExitStack) -> str:
    """Hold the workspace as soon as this run may have it; who has it instead, where the run is not to wait."""
    run = FlowRunContext.get()
    try:
        held.enter_context(workspace_lock(place))
    except WorkspaceError as busy:
        if deployment.get_id() is None:
            raise
        if run and run.flow_run and run.flow_run.auto_scheduled:
            return busy.message
        get_run_logger().info("%s This run waits for it to end.", busy.message)
        held.enter_context(workspace_lock(place, wait=True))
    return ""


def _cancel(message: str) -> NoReturn:
    """End this run as cancelled; of a state that a flow returns, the process that runs it prints a traceback."""
    with get_client(sync_client=True) as client:
        answer: OrchestrationResult[Any] = client.set_flow_run_state(
            UUID(flow_run.get_id()), Cancelled(message=message), force=True
        )
    ended = Abort(message)
    ended.state = answer.state  # type: ignore[attr-defined]  # the engine takes it over
    raise ended


@task(name="triggers", task_run_name="triggers", cache_policy=NO_CACHE)
def ask_triggers(place: Workspace) -> list[dict[str, Any]]:
    """Every trigger's answer."""
    with workspace_lock(place), shown_in_prefect():
        return [asdict(trigger) for trigger in look_for_reasons(place)]
