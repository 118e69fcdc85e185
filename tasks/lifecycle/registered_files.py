"""The files of registered versions: where they lie, and whether they are the registered ones."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import BundleError
from tasks.core.files import atomic_path
from tasks.inference.bundle import open_bundle
from tasks.lifecycle.registry import BUNDLE_SHA256

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)


def registered_sha256(version: ModelVersion) -> str:
    """SHA-256 of the manifest of the version's bundle.

    Raises BundleError if the registry lost it, because then nothing could be verified.
    """
    sha256 = version.tags.get(BUNDLE_SHA256)
    if not sha256:
        raise BundleError(
            f"{version.name} version {version.version}: its tag {BUNDLE_SHA256} is gone, "
            "so its files cannot be checked.",
            "Name another version, or register it again with `ratchet train`.",
        )
    return str(sha256)


def logged_model_of(version: ModelVersion) -> str:
    """Id of the version's logged model; its own `model_id` is empty, its source is models:/ID."""
    return str(version.source).removeprefix("models:/")


def download_bundle(client: MlflowClient, version: ModelVersion, downloads: Path) -> Path:
    """A local directory with the version's bundle.

    It is a copy in `downloads` unless MLflow's artifacts are on this disk.
    """
    from mlflow.artifacts import download_artifacts

    model_id = logged_model_of(version)
    location = client.get_logged_model(model_id).artifact_location
    if (stored := _on_this_disk(location)) is not None:
        return stored
    target = downloads / model_id  # not the version number, which other registries use too
    if target.is_dir() and not _is_sound(target / "bundle", version):
        shutil.rmtree(target)
    if not target.is_dir():
        with atomic_path(target) as new:
            new.mkdir()
            log.debug("downloading the bundle of version %s to %s", version.version, target)
            download_artifacts(f"{location}/artifacts/bundle", dst_path=str(new))
    return target / "bundle"


def has_bundle(client: MlflowClient, version: ModelVersion, files: Collection[str]) -> bool:
    """Whether the registry still has the version's files, intact if they are on this disk.

    files   names of the bundle's files
    """
    model_id = logged_model_of(version)
    stored = _on_this_disk(client.get_logged_model(model_id).artifact_location)
    if stored is not None:
        return _is_sound(stored, version)
    listed = client.list_logged_model_artifacts(model_id, "artifacts/bundle")
    return {Path(entry.path).name for entry in listed} >= {Path(name).parts[0] for name in files}


def _on_this_disk(location: str) -> Path | None:
    """The bundle's directory below a logged model's artifacts; None if they are elsewhere."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    if not location.startswith(("file:", "/")):
        return None
    return Path(local_file_uri_to_path(location)) / "artifacts" / "bundle"


def _is_sound(copy: Path, version: ModelVersion) -> bool:
    try:
        open_bundle(copy, registered=registered_sha256(version))
    except BundleError:
        return False
    return True
