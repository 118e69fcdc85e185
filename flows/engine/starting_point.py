"""Pin a training's starting point: the champion's checkpoint and training tokens, as DVC outs.

The pin (start.dvc, to be committed like dvc.lock) moves only when a training has to run anyway: if
a promotion alone caused one, every training would cause the next. Until then, and for `dvc repro`,
the last pin holds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.engine.stage_cache import StageCache
from tasks.core.errors import RegistryError
from tasks.core.progress import LINES
from tasks.params.schema import Params, read_yaml
from tasks.pipeline import STAGES, START_OUTS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def settle_start(
    cache: StageCache, params: Params, client: MlflowClient, uri: str, store: Path
) -> bool:
    """Pin and log the starting point of a training about to run; returns whether it changed.

    store  the workspace's store
    Raises RegistryError or WorkspaceError if training cannot start from the champion.
    """
    from tasks.lifecycle.ledger import open_ledger
    from tasks.lifecycle.registry import mlflow_errors

    if params.finetune.start_from == "base":
        _log_start("the base model")
        return cache.unpin_start()
    with mlflow_errors(uri):
        champion = open_ledger(client, uri, store, params.model_name).champion_version()
    if champion is None:
        _log_start(f"the base model: {params.model_name} has no champion yet")
        return cache.unpin_start()
    description = f"{params.model_name} version {champion.version} (champion)"
    moved = cache.pin_start(_hashes(client, uri, champion, description), description)
    _log_start(description)
    return moved


def _log_start(description: str) -> None:
    LINES.info("finetune   starts from %s", description)


def _hashes(
    client: MlflowClient, uri: str, version: ModelVersion, description: str
) -> dict[str, str]:
    """DVC's hashes of START_OUTS for a version, read from the dvc.lock in its MLflow run."""
    from tasks.lifecycle.registry import mlflow_errors, run_id_of

    paths = {
        name: path for stage in STAGES for name, path in stage.outs.items() if name in START_OUTS
    }
    lock: dict[str, Any] = {}
    with mlflow_errors(uri), tempfile.TemporaryDirectory() as directory:
        run_id = run_id_of(version)
        if any(artifact.path == "dvc.lock" for artifact in client.list_artifacts(run_id)):
            lock = read_yaml(Path(client.download_artifacts(run_id, "dvc.lock", directory)))
    hashes = {
        out["path"]: str(out["md5"])
        for stage in lock.get("stages", {}).values()
        for out in stage.get("outs", [])
    }
    if missing := [path for path in paths.values() if path not in hashes]:
        raise RegistryError(
            f"{description}: its MLflow run {run_id} has no dvc.lock that names "
            f"{' and '.join(missing)}.",
            "Train with finetune.start_from: base, and promote the result.",
        )
    return {name: hashes[path] for name, path in paths.items()}
