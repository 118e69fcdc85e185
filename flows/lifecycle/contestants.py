"""Who is compared: a version number, an alias or a bundle directory becomes a bundle and all that is known of it."""

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
    """A bundle; `version` is None for one that is in no registry."""

    title: str
    directory: Path
    version: ModelVersion | None = None

    @property
    def number(self) -> int | None:
        """Its number in the registry."""
        return None if self.version is None else int(self.version.version)

    def open(self) -> BundleInfo:
        """The bundle, checked; BundleError unless the directory holds what was registered."""
        from tasks.inference.bundle import open_bundle
        from tasks.lifecycle.registry import registered_sha256
        from tasks.problems import problem_names

        return open_bundle(
            self.directory,
            problem_names(),
            None if self.version is None else registered_sha256(self.version),
        )


class Registry:
    """The workspace's registered model, as promotion sees it."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.name = workspace.params().model_name
        self.uri = os.environ["MLFLOW_TRACKING_URI"]

    @property
    def is_made(self) -> bool:
        """Whether anything can have been registered: looking must not make a database."""
        return (
            self.uri != self.workspace.default_tracking_uri
            or self.workspace.mlflow_database.is_file()
        )

    @cached_property
    def client(self) -> MlflowClient:
        """Connected at first use; RegistryError where nothing was ever registered or MLflow cannot be reached."""
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
        """The ledger, oldest first; a move that a crash cut short is completed."""
        from tasks.lifecycle.registry import mlflow_errors

        with mlflow_errors(self.uri):
            return self.ledger.decisions()

    def champion(self) -> int | None:
        """The number that the alias points at."""
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
        """A version by number or alias, or a bundle directory; RegistryError where there is none of that name."""
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
        there = ", ".join(
            [*(f"version {version.version}" for version in reversed(known)), *aliases]
        )
        raise RegistryError(
            f"{self.name}: '{name}' is no version, alias or bundle directory.{did_you_mean(name, aliases)} Registered: {there}.",
            "See `ratchet status`.",
        )

    def find_champion(self) -> Contestant | None:
        """The version that is in production, if there is one."""
        from tasks.lifecycle.registry import mlflow_errors

        with mlflow_errors(self.uri):
            found = self.ledger.champion_version()
        return self.contestant(found) if found else None

    def contestant(self, version: ModelVersion) -> Contestant:
        """A version's bundle, on this disk."""
        from tasks.lifecycle.registry import download_bundle, mlflow_errors

        with mlflow_errors(self.uri):
            directory = download_bundle(self.client, version, self.workspace.store / "downloads")
        aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
        return Contestant(f"version {version.version}{aliases}", directory, version)

    def run_params(self, version: ModelVersion) -> dict[str, str]:
        """The parameters that its run logged, without the pyfunc's own, which MLflow puts among them."""
        from tasks.lifecycle.registry import mlflow_errors
        from tasks.serving import BUNDLE_SHA256

        with mlflow_errors(self.uri):
            params = self.client.get_run(version.run_id).data.params
        return {name: value for name, value in params.items() if name != BUNDLE_SHA256}

    def reports(self, version: ModelVersion) -> dict[str, Any]:
        """The reports that its run holds, by name; those that are gone are left out."""
        import tempfile

        from tasks.lifecycle.registry import mlflow_errors

        with tempfile.TemporaryDirectory() as scratch, mlflow_errors(self.uri):
            there = {
                artifact.path for artifact in self.client.list_artifacts(version.run_id, "reports")
            }
            names = [name for name in REPORTS if f"reports/{name}.json" in there]
            return {
                name: read_json(
                    Path(
                        self.client.download_artifacts(
                            version.run_id, f"reports/{name}.json", scratch
                        )
                    )
                )
                for name in names
            }


def rollback_target(registry: Registry, decisions: list[Decision], to: int | None) -> int:
    """The earlier champion to go back to, the previous one where `to` is None; GateError where there is none, or `to` never was one."""
    from tasks.lifecycle.ledger import standing

    past, current = standing(decisions).champions, registry.champion()
    earlier = (
        past[:-1] if past and past[-1] == current else past
    )  # an alias that was moved by hand goes back to what the ledger says
    there = {int(version.version) for version in registry.versions()}
    left = [version for version in earlier if version in there and version != current]
    if not left:
        only = (
            f"version {current} is the only champion so far"
            if current
            else "no version was ever promoted"
        )
        raise GateError(
            f"{registry.name}: {only}, so there is nothing to roll back to.",
            "See `ratchet history`; promote a version.",
        )
    if to is not None and to not in left:
        raise GateError(
            f"{registry.name}: version {to} was not champion before; earlier champions: {', '.join(map(str, left))}.",
            "Name one of those, or `ratchet promote` it.",
        )
    return to or left[-1]
