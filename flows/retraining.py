"""Trains again when something calls for it: triggers, then training, then promotion. A Prefect flow."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.training import training


@flow(name="retrain", persist_result=False)
def retraining(workspace: str) -> dict[str, Any]:
    """Retrain the model of a workspace.

    workspace   its directory
    """
    result = training(workspace)
    return {"state": result.state, "version": result.version}
