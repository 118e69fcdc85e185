"""Models to compare: resolves a version number, an alias or a bundle directory to a bundle."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import GateError, RegistryError, did_you_mean
from tasks.core.files import read_json
from tasks.params.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from tasks.inference.bundle import BundleInfo
    from tasks.lifecycle.decisions import Decision
    from tasks.lifecycle.ledger import Ledger

REPORTS = ("validation", "evaluation", "verification")


@dataclass(frozen=True, eq=False)
class Contestant:
    """A bundle to compare; `version` is None if it is not registered."""

    title: str
    directory: Path
    version: ModelVersion | None = None

    @property
    def number(self) -> int | None:
        """Version number in the registry; None if not registered."""
        return None if self.version is None else int(self.version.version)

    def open(self) -> BundleInfo:
        """Open and check the bundle; BundleError unless the files match the registered ones."""
        from tasks.inference.bundle import open_bundle
        from tasks.lifecycle.registry import registered_sha256
        from tasks.problems import problem_names

        sha256 = None if self.version is None else registered_sha256(self.version)
        return open_bundle(self.directory, problem_names(), sha256)


class Registry:
    """The workspace's registered model: its versions, ledger and runs."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.name = workspace.params().model_name
        self.uri = os.environ["MLFLOW_TRACKING_URI"]

    @property
    def is_made(self) -> bool:
        """Whether anything can have been registered; a look-up must not create a database."""
        return (
            self.uri != self.workspace.default_tracking_uri
            or self.workspace.mlflow_database.is_file()
        )

    @cached_property
    def client(self) -> MlflowClient:
        """The MLflow client, connected on first use.

        Raises RegistryError if nothing was ever registered or MLflow cannot be reached.
        """
        from tasks.lifecycle.registry import connect

        if not self.is_made:
            raise RegistryError(
                f"{self.name}: no version is registered.",
                "Run `ratchet train`, which registers one.",
            )
        return connect(self.uri, self.workspace.store, self.name)[0]

    @cached_property
    def ledger(self) -> Ledger:
        """Every decision about this model."""
        from tasks.lifecycle.ledger import open_ledger

        return open_ledger(self.client, self.uri, self.workspace.store, self.name)

    def decisions(self) -> list[Decision]:
        """The ledger, oldest first; completes a move that a crash interrupted."""
        from tasks.lifecycle.registry import mlflow_errors

        with mlflow_errors(self.uri):
            return self.ledger.decisions()

    def champion(self) -> int | None:
        """Version number that the alias `champion` points at."""
        from tasks.lifecycle.registry import mlflow_errors

        with mlflow_errors(self.uri):
            return self.ledger.champion()

    def versions(self) -> list[ModelVersion]:
        """Every version, newest first, with its aliases."""
        from tasks.lifecycle.registry import mlflow_errors, versions

        with mlflow_errors(self.uri):
            self.ledger.settle()
            return versions(self.client, self.name)

    def find(self, name: str) -> Contestant:
        """Find a version by number or alias, or a bundle by its directory; else RegistryError."""
        known = self.versions()
        for version in known:
            if name == str(version.version) or name in version.aliases:
                return self.contestant(version)
        if Path(name).is_dir():
            return Contestant(name, Path(name).resolve())
        if not known:
            raise RegistryError(
                f"{self.name}: no version is registered yet.", "Run `ratchet train`."
            )
        aliases = [alias for version in known for alias in version.aliases]
        numbers = [f"version {version.version}" for version in reversed(known)]
        raise RegistryError(
            f"{self.name}: '{name}' is not a version, an alias or a bundle directory."
            f"{did_you_mean(name, aliases)} Registered: {', '.join([*numbers, *aliases])}.",
            "See `ratchet status`.",
        )

    def find_champion(self) -> Contestant | None:
        """The version in production, if any."""
        from tasks.lifecycle.registry import mlflow_errors

        with mlflow_errors(self.uri):
            version = self.ledger.champion_version()
        return self.contestant(version) if version else None

    def contestant(self, version: ModelVersion) -> Contestant:
        """Download a version's bundle, unless it is here already."""
        from tasks.lifecycle.registry import download_bundle, mlflow_errors

        with mlflow_errors(self.uri):
            directory = download_bundle(self.client, version, self.workspace.store / "downloads")
        aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
        return Contestant(f"version {version.version}{aliases}", directory, version)

    def run_params(self, version: ModelVersion) -> dict[str, str]:
        """Params that the version's run logged, without the pyfunc's, which MLflow adds to them."""
        from tasks.lifecycle.registry import mlflow_errors, run_id_of
        from tasks.serving import BUNDLE_SHA256

        with mlflow_errors(self.uri):
            params = self.client.get_run(run_id_of(version)).data.params
        return {name: value for name, value in params.items() if name != BUNDLE_SHA256}

    def reports(self, version: ModelVersion) -> dict[str, Any]:
        """The reports in the version's run, by name; missing ones are left out."""
        import tempfile

        from tasks.lifecycle.registry import mlflow_errors, run_id_of

        with tempfile.TemporaryDirectory() as scratch, mlflow_errors(self.uri):
            artifacts = self.client.list_artifacts(run_id_of(version), "reports")
            present = {artifact.path for artifact in artifacts}
            reports = {}
            for name in REPORTS:
                path = f"reports/{name}.json"
                if path in present:
                    file = self.client.download_artifacts(run_id_of(version), path, scratch)
                    reports[name] = read_json(Path(file))
            return reports


def rollback_target(registry: Registry, decisions: list[Decision], to: int | None) -> int:
    """The earlier champion to go back to; `to` None: the previous one.

    Raises GateError if there is none, or if `to` was never champion.
    """
    from tasks.lifecycle.ledger import champion_history

    past, current = champion_history(decisions).champions, registry.champion()
    # an alias moved by hand goes back to the ledger's champion
    earlier = past[:-1] if past and past[-1] == current else past
    registered = {int(version.version) for version in registry.versions()}
    targets = [version for version in earlier if version in registered and version != current]
    if not targets:
        only = f"version {current} is the only champion so far"
        reason = only if current else "no version was ever promoted"
        raise GateError(
            f"{registry.name}: {reason}, so there is nothing to roll back to.",
            "See `ratchet history`; promote a version.",
        )
    if to is not None and to not in targets:
        raise GateError(
            f"{registry.name}: version {to} was never champion; "
            f"earlier champions: {', '.join(map(str, targets))}.",
            "Name one of those, or `ratchet promote` it.",
        )
    return to or targets[-1]
