"""The retraining flow: if a trigger fires, train, compare and promote.

While another `ratchet` command holds the workspace, a run started by the clock is cancelled, a
run started on the server by an event or a person waits, and `ratchet retrain` reports it and ends.
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
from flows.engine.notification import notify_failure
from flows.engine.run_page import report_to_prefect, run_name
from flows.launch import workspace_lock
from flows.lifecycle.trigger_answers import evaluate_triggers, was_judged
from flows.promotion import promotion
from flows.training import training
from tasks.core.errors import WorkspaceError
from tasks.params.workspace import Workspace


@flow(
    name="retrain",
    flow_run_name=run_name("retrain {model}"),
    persist_result=False,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
def retraining(
    workspace: str, answers: Sequence[Mapping[str, Any]] | None = None, key: str = ""
) -> dict[str, Any]:
    """Train and promote a workspace's model if a trigger fires.

    workspace   its directory
    answers     the triggers' answers, if they have just been evaluated; None: evaluate them
    key         id of the decision, if the run comes to one; empty: a new one
    """
    opened = Workspace.find(Path(workspace))
    prepare(opened)  # a scheduled run starts in a process of Prefect's
    if deployment.get_id():
        # Ctrl-C is for the serving process, which ends this one
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ExitStack() as locks:
        if busy := _take_turn(opened, locks):
            _cancel(f"{busy} The schedule will start the next run.")
        triggers = ask_triggers(opened) if answers is None else [dict(item) for item in answers]
        fired = [trigger for trigger in triggers if trigger["fired"]]
        reason = " ".join(f"{trigger['name']}: {trigger['reason']}" for trigger in fired)
        get_run_logger().info(f"Retraining. {reason}" if fired else "No trigger fired.")
        if not fired:
            return {"state": "idle", "triggers": triggers, "version": None, "promotion": None}
        # rerun: DVC does not notice that a remote source has changed
        result = training(workspace, rerun=["ingest"], trigger=reason)
    version = result.version
    if was_judged(opened, version):
        return {"state": "cached", "triggers": triggers, "version": version, "promotion": None}
    outcome = promotion(workspace, str(version), trigger=reason, key=key)
    return {"state": "trained", "triggers": triggers, "version": version, "promotion": outcome}


def _take_turn(workspace: Workspace, locks: ExitStack) -> str:
    """Lock the workspace, waiting if this run may wait.

    locks  takes the lock
    Returns "" once locked, or the message about the current holder for a run that must not wait.
    """
    context = FlowRunContext.get()
    try:
        locks.enter_context(workspace_lock(workspace))
    except WorkspaceError as busy:
        if deployment.get_id() is None:
            raise
        if context and context.flow_run and context.flow_run.auto_scheduled:
            return busy.message
        get_run_logger().info("%s This run waits for it to end.", busy.message)
        locks.enter_context(workspace_lock(workspace, wait=True))
    return ""


def _cancel(message: str) -> NoReturn:
    """End this run as cancelled.

    Set on the server: a flow that returns the state makes its process print a traceback.
    """
    with get_client(sync_client=True) as client:
        response: OrchestrationResult[Any] = client.set_flow_run_state(
            UUID(flow_run.get_id()), Cancelled(message=message), force=True
        )
    abort = Abort(message)
    abort.state = response.state  # type: ignore[attr-defined]  # the engine adopts it
    raise abort


@task(name="triggers", task_run_name="triggers", cache_policy=NO_CACHE)
def ask_triggers(workspace: Workspace) -> list[dict[str, Any]]:
    """Evaluate every trigger."""
    with workspace_lock(workspace), report_to_prefect():
        return [asdict(trigger) for trigger in evaluate_triggers(workspace)]
