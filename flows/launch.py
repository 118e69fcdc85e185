"""Starts the flows with a Prefect server, the configured one or an ephemeral one; a run with nothing to do needs none.

No stage runs before its flow does, so that Prefect shows when things happened. While a server starts MLflow is opened, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flows.engine.background import in_background
from flows.engine.environment import has_prefect_server
from flows.engine.prefect_server import own_server, prefect_server
from flows.engine.training_run import ALL, TrainingRun, TrainResult
from flows.lifecycle.effects import UNKEPT, Effect
from tasks.core.errors import WorkspaceError
from tasks.core.files import sha256_json
from tasks.params.workspace import Workspace

if TYPE_CHECKING:
    from flows.lifecycle.contestants import Registry
    from tasks.lifecycle.decisions import Decision


def train(
    workspace: Workspace, overrides: Sequence[str] = (), *, force: bool = False
) -> TrainResult:
    """Every stage, then register; with nothing changed, what stands is returned and no flow is run."""
    with workspace_lock(workspace):
        with TrainingRun(workspace, overrides, rerun=ALL if force else ()) as run:
            # a configured server is to hear of a run with nothing to do as well
            if not force and not has_prefect_server() and (found := run.standing()):
                return found
            start_prefect(run)
        from flows.training import training

        return training(str(workspace.root), list(overrides), force)


@contextmanager
def workspace_lock(workspace: Workspace, *, wait: bool = False) -> Iterator[None]:
    """Hold the workspace for this process, which may take it again within.

    Raises WorkspaceError if another run holds it, unless `wait`: then it waits for that one to end.
    """
    from filelock import FileLock, Timeout

    workspace.store.mkdir(exist_ok=True)
    lock = FileLock(workspace.store / "lock", is_singleton=True)
    try:
        lock.acquire(blocking=wait, poll_interval=0.5)
    except Timeout:
        raise WorkspaceError(
            f"{workspace.root}: another `ratchet` run is at work here.",
            "Wait for it to end, or stop it.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def start_prefect(run: TrainingRun) -> None:
    """Have a Prefect server that answers; an ephemeral one takes seconds to start, in which MLflow is opened."""
    import flows.training  # noqa: F401

    require_server(run.workspace)
    if has_prefect_server():
        return
    server = in_background(own_server())
    run.wait_for_mlflow()
    server.result()


def have_server(workspace: Workspace) -> None:
    """Have a Prefect server that answers."""
    require_server(workspace)
    if not has_prefect_server():
        in_background(own_server()).result()


def require_server(workspace: Workspace) -> None:
    """ScheduleError where a Prefect server is configured and does not answer; an ephemeral one gets the workspace's store to be in."""
    workspace.store.mkdir(exist_ok=True)
    if has_prefect_server():
        with prefect_server():
            pass


def promote(
    workspace: Workspace, version: str, force_reason: str = "", effect: Effect = UNKEPT
) -> dict[str, Any]:
    """Judge a version, and make it champion if it passes or is forced."""
    from flows.lifecycle.contestants import Registry

    registry = Registry(workspace)
    number = registry.find(
        version
    ).number  # what is not there is told at once, without waiting for a server to start
    asked = {
        "version": number,
        "forced": bool(force_reason),
        "promotion": sha256_json(workspace.values().get("promotion")),
    }
    if done := effect.done(asked, registry):
        return _answer(registry, done)
    have_server(workspace)
    from flows.promotion import promotion

    return promotion(
        str(workspace.root), str(number or version), force_reason, key=effect.begin(asked)
    )


def roll_back(
    workspace: Workspace, to: int | None, reason: str, effect: Effect = UNKEPT
) -> dict[str, Any]:
    """Make an earlier champion champion again.

    to  its number; None: the one before the present champion
    """
    from flows.lifecycle.contestants import Registry, rollback_target

    registry, asked = Registry(workspace), {"to": to}
    if done := effect.done(asked, registry):
        return _answer(registry, done)
    decisions, current = registry.decisions(), registry.champion()
    if to is not None and to == current:
        return {
            "state": "unchanged",
            "model": registry.name,
            "version": to,
            "champion": to,
            "decision": None,
        }
    target = rollback_target(
        registry, decisions, to
    )  # where there is none, that is told without waiting for a server to start
    have_server(workspace)
    from flows.promotion import rolling_back

    return rolling_back(str(workspace.root), target, current, reason, key=effect.begin(asked))


def retrain(workspace: Workspace, effect: Effect = UNKEPT) -> dict[str, Any]:
    """Train and promote if anything calls for it; if nothing does, no flow is run where no server would hear of it."""
    from dataclasses import asdict

    from flows.lifecycle.contestants import Registry
    from flows.lifecycle.trigger_answers import look_for_reasons

    require_server(workspace)
    registry = Registry(workspace)
    if registry.is_made and (done := effect.done({}, registry)):
        return {
            "state": "trained",
            "triggers": [],
            "version": done.version,
            "promotion": _answer(registry, done),
        }
    found: list[dict[str, Any]] | None = None
    if not has_prefect_server():
        with workspace_lock(workspace):
            found = [asdict(trigger) for trigger in look_for_reasons(workspace)]
        if not any(trigger["fired"] for trigger in found):
            return {"state": "idle", "triggers": found, "version": None, "promotion": None}
        have_server(workspace)
    from flows.retraining import retraining

    return retraining(str(workspace.root), found, key=effect.begin({}))


def _answer(registry: Registry, done: Decision) -> dict[str, Any]:
    """What an attempt did that was killed before it could say so."""
    from dataclasses import asdict

    return {
        "state": done.outcome, "model": registry.name, "version": done.version, "champion": registry.champion(), "decision": asdict(done),
    }  # fmt: skip
