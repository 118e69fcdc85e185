"""Trains again when something calls for it: triggers, then training, comparison and promotion. A Prefect flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.environment import prepare
from flows.launch import workspace_lock
from flows.notification import tell_failure
from flows.promotion import promotion
from flows.reasons import look_for_reasons, was_judged
from flows.training import training
from tasks.core.workspace import Workspace


@flow(name="retrain", persist_result=False, on_failure=[tell_failure], on_crashed=[tell_failure])
def retraining(workspace: str, found: Sequence[Mapping[str, Any]] | None = None, key: str = "") -> dict[str, Any]:
    """Train and promote the model of a workspace, if anything calls for it.

    workspace   its directory
    found       the triggers, where somebody has asked them just now
    key         id of the decision that it may come to; empty: a new one
    """
    place = Workspace.find(Path(workspace))
    prepare(place)  # a schedule starts the flow in a process of Prefect's
    triggers = ask_triggers(place) if found is None else [dict(trigger) for trigger in found]
    fired = [trigger for trigger in triggers if trigger["fired"]]
    if not fired:
        return {"state": "idle", "triggers": triggers, "version": None, "promotion": None}
    reason = " ".join(f"{trigger['name']}: {trigger['reason']}" for trigger in fired)
    with workspace_lock(place):
        result = training(workspace, rerun=["ingest"], trigger=reason)  # DVC does not see that a remote source has changed
    if was_judged(place, result.version):
        return {"state": "cached", "triggers": triggers, "version": result.version, "promotion": None}
    outcome = promotion(workspace, str(result.version), trigger=reason, key=key)
    return {"state": "trained", "triggers": triggers, "version": result.version, "promotion": outcome}


@task(name="triggers", cache_policy=NO_CACHE)
def ask_triggers(place: Workspace) -> list[dict[str, Any]]:
    """Every trigger's answer."""
    with workspace_lock(place):
        return [asdict(trigger) for trigger in look_for_reasons(place)]
