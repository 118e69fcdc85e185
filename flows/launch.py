"""Starts the flows with a configured or ephemeral Prefect server; a no-op run needs none.

No stage runs before its flow does, so that Prefect shows when things happened; while a server
starts, only MLflow is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flows.engine.background import in_background
from flows.engine.environment import has_prefect_server
from flows.engine.prefect_server import prefect_server, server_starter
from flows.engine.training_run import ALL, TrainingRun, TrainResult
from flows.lifecycle.effects import NO_KEY, Effect
from tasks.core.errors import WorkspaceError
from tasks.core.files import sha256_json
from tasks.core.memory import TO_TRAIN, require_address_space
from tasks.params.workspace import Workspace

if TYPE_CHECKING:
    from tasks.lifecycle.decisions import Decision
    from tasks.lifecycle.model_registry import ModelRegistry


def train(
    workspace: Workspace, overrides: Sequence[str] = (), *, force: bool = False
) -> TrainResult:
    """Run every stage, then register; if nothing has changed, return the registered version.

    Without a configured server, a no-op runs no flow.
    """
    with (
        workspace_lock(workspace),
        TrainingRun(workspace, overrides, rerun=ALL if force else ()) as run,
    ):
        # a configured server shows no-op runs too
        if not force and not has_prefect_server() and (finished := run.finished_result()):
            return finished
        start_prefect(run)
        from flows.training import training

        with run.shared():
            return training(str(workspace.root), list(overrides), force)


@contextmanager
def workspace_lock(workspace: Workspace, *, wait: bool = False) -> Iterator[None]:
    """Lock the workspace for this process; reentrant.

    wait  True: wait for the run that holds it; False: raise WorkspaceError
    """
    from filelock import FileLock, Timeout

    workspace.store.mkdir(exist_ok=True)
    lock = FileLock(workspace.store / "lock", is_singleton=True)
    try:
        lock.acquire(blocking=wait, poll_interval=0.5)
    except Timeout:
        raise WorkspaceError(
            f"{workspace.root}: another `ratchet` run is using this workspace.",
            "Wait for it to end, or stop it.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def start_prefect(run: TrainingRun) -> None:
    """Ensure a reachable Prefect server; MLflow opens in the seconds an ephemeral one takes."""
    require_address_space(TO_TRAIN)
    import flows.training  # noqa: F401

    require_server(run.workspace)
    if has_prefect_server():
        return
    server = in_background(server_starter())
    run.wait_for_mlflow()
    server.result()


def ensure_server(workspace: Workspace) -> None:
    """Ensure a reachable Prefect server."""
    require_server(workspace)
    if not has_prefect_server():
        in_background(server_starter()).result()


def require_server(workspace: Workspace) -> None:
    """Raise ScheduleError if the configured Prefect server does not answer.

    Also makes the workspace's store, where an ephemeral server keeps its files.
    """
    workspace.store.mkdir(exist_ok=True)
    if has_prefect_server():
        with prefect_server():
            pass


def promote(
    workspace: Workspace, version: str, force_reason: str = "", effect: Effect = NO_KEY
) -> dict[str, Any]:
    """Judge a version; make it champion if it passes or is forced."""
    from tasks.lifecycle.model_registry import ModelRegistry

    require_address_space(TO_TRAIN)
    registry = ModelRegistry(workspace)
    number = registry.registered(version).number  # an unknown one fails before a server starts
    asked = {
        "version": number,
        "forced": bool(force_reason),
        "promotion": sha256_json(workspace.values().get("promotion")),
    }
    if done := effect.done(asked, registry):
        return _answer(registry, done)
    ensure_server(workspace)
    from flows.promotion import promotion

    return promotion(
        str(workspace.root), str(number or version), force_reason, key=effect.begin(asked)
    )


def roll_back(
    workspace: Workspace, to: int | None, reason: str, effect: Effect = NO_KEY
) -> dict[str, Any]:
    """Make an earlier champion champion again.

    to  its version number; None: the champion before the current one
    """
    from tasks.lifecycle.model_registry import ModelRegistry

    registry, asked = ModelRegistry(workspace), {"to": to}
    if done := effect.done(asked, registry):
        return _answer(registry, done)
    current = registry.champion()
    if to is not None and to == current:
        return {
            "state": "unchanged",
            "model": registry.name,
            "version": to,
            "champion": to,
            "decision": None,
        }
    target = registry.rollback_target(to)  # fails before a server starts
    ensure_server(workspace)
    from flows.promotion import rollback_flow

    return rollback_flow(str(workspace.root), target, current, reason, key=effect.begin(asked))


def retrain(workspace: Workspace, effect: Effect = NO_KEY) -> dict[str, Any]:
    """Train and promote if a trigger fires.

    Without a configured server, the triggers are evaluated first; if none fires, no flow runs.
    """
    from dataclasses import asdict

    from flows.lifecycle.trigger_answers import evaluate_triggers
    from tasks.lifecycle.model_registry import ModelRegistry

    require_address_space(TO_TRAIN)
    require_server(workspace)
    registry = ModelRegistry(workspace)
    if registry.is_made and (done := effect.done({}, registry)):
        promotion = _answer(registry, done)
        return {"state": "trained", "triggers": [], "version": done.version, "promotion": promotion}
    triggers: list[dict[str, Any]] | None = None
    if not has_prefect_server():
        with workspace_lock(workspace):
            triggers = [asdict(trigger) for trigger in evaluate_triggers(workspace)]
        if not any(trigger["fired"] for trigger in triggers):
            return {"state": "idle", "triggers": triggers, "version": None, "promotion": None}
        ensure_server(workspace)
    from flows.retraining import retraining

    return retraining(str(workspace.root), triggers, key=effect.begin({}))


def _answer(registry: ModelRegistry, decision: Decision) -> dict[str, Any]:
    """The result of an attempt that was killed before it could report."""
    from dataclasses import asdict

    return {
        "state": decision.outcome,
        "model": registry.name,
        "version": decision.version,
        "champion": registry.champion(),
        "decision": asdict(decision),
    }
