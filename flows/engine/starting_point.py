"""Where a training starts: an effect that pins the champion's checkpoint, and the tokens that it was trained on, as DVC outs.

The pin (start.dvc, to be committed as dvc.lock is) moves only when a training has to run anyway: a promotion alone calls for none,
or every training would, for ever. Until then, and for `dvc repro`, what was pinned last stands.
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
    """Pin what the training that is about to run starts from, and say so in a line; True if that is other than it was.

    store  the workspace's
    Raises RegistryError or WorkspaceError if the champion cannot be started from.
    """
    from tasks.lifecycle.ledger import open_ledger
    from tasks.lifecycle.registry import mlflow_errors

    if params.finetune.start_from == "base":
        _say("the base model")
        return cache.unpin_start()
    with mlflow_errors(uri):
        champion = open_ledger(client, uri, store, params.model_name).champion_version()
    if champion is None:
        _say(f"the base model: {params.model_name} has no champion yet")
        return cache.unpin_start()
    says = f"{params.model_name} version {champion.version} (champion)"
    moved = cache.pin_start(_hashes(client, uri, champion, says), says)
    _say(says)
    return moved


def _say(where: str) -> None:
    LINES.info("finetune   starts from %s", where)


def _hashes(client: MlflowClient, uri: str, version: ModelVersion, says: str) -> dict[str, str]:
    """DVC's hashes of the version's outs that a training starts from, of the dvc.lock that its run holds."""
    from tasks.lifecycle.registry import mlflow_errors

    paths = {
        name: path for stage in STAGES for name, path in stage.outs.items() if name in START_OUTS
    }
    lock: dict[str, Any] = {}
    with mlflow_errors(uri), tempfile.TemporaryDirectory() as directory:
        if any(
            artifact.path == "dvc.lock" for artifact in client.list_artifacts(str(version.run_id))
        ):
            lock = read_yaml(
                Path(client.download_artifacts(str(version.run_id), "dvc.lock", directory))
            )
    made = {
        out["path"]: str(out["md5"])
        for stage in lock.get("stages", {}).values()
        for out in stage.get("outs", [])
    }
    if missing := [path for path in paths.values() if path not in made]:
        raise RegistryError(
            f"{says}: its MLflow run {version.run_id} has no dvc.lock that names {' and '.join(missing)}.",
            "Train with finetune.start_from: base, and promote what comes of it.",
        )
    return {name: made[path] for name, path in paths.items()}
