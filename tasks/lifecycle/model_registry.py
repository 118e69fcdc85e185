"""The registered model of a workspace: versions, aliases, ledger, runs and bundles."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import BundleError, DamagedError, GateError, RegistryError, did_you_mean
from tasks.core.progress import LINES
from tasks.lifecycle.evidence import RunReports
from tasks.lifecycle.ledger import champion_history, open_ledger
from tasks.lifecycle.registered_files import download_bundle, registered_sha256
from tasks.lifecycle.registry import (
    CHAMPION,
    connect,
    mlflow_errors,
    run_id_of,
    versions,
)
from tasks.params.workspace import Workspace
from tasks.reports.stage_reports import (
    EvaluationReport,
    StageReport,
    ValidationReport,
    VerificationReport,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from tasks.inference.bundle import BundleInfo
    from tasks.lifecycle.decisions import Decision
    from tasks.lifecycle.ledger import Ledger

REPORTS: Mapping[str, type[StageReport]] = {
    "validation": ValidationReport,
    "evaluation": EvaluationReport,
    "verification": VerificationReport,
}


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

    @property
    def sha256(self) -> str | None:
        """Registered hash of the bundle; None if it is not registered."""
        return None if self.version is None else registered_sha256(self.version)

    def open(self, problems: Sequence[str] | None = None) -> BundleInfo:
        """Open and check the bundle; BundleError unless the files match the registered ones.

        problems  known problem types; None: any
        """
        from tasks.inference.bundle import open_bundle

        try:
            return open_bundle(self.directory, problems, self.sha256)
        except BundleError as error:
            if self.version is None:
                raise
            raise BundleError(
                f"{self.title}: {error.message}",
                "`ratchet train --force`, with the params.yaml of that version, puts its files "
                "back if it makes the same bundle again. Or name another version.",
            ) from error


class ModelRegistry:
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
            or self.workspace.mlflow_database.exists()
        )

    @cached_property
    def client(self) -> MlflowClient:
        """The MLflow client, connected on first use.

        Raises RegistryError if nothing was ever registered or MLflow cannot be reached.
        """
        if not self.is_made:
            raise RegistryError(
                f"{self.name}: no version is registered.",
                "Run `ratchet train`, which registers one.",
            )
        return connect(self.uri, self.workspace.store, self.name)[0]

    @cached_property
    def ledger(self) -> Ledger:
        """Every decision about this model."""
        return open_ledger(self.client, self.uri, self.workspace.store, self.name)

    def decisions(self) -> list[Decision]:
        """The ledger, oldest first; completes a move that a crash interrupted."""
        with mlflow_errors(self.uri):
            return self.ledger.decisions()

    def champion(self) -> int | None:
        """Version number that the alias `champion` points at."""
        with mlflow_errors(self.uri):
            return self.ledger.champion()

    def outside_the_gates(self, decisions: list[Decision] | None = None) -> str:
        """What to know if the alias `champion` is not where the ledger left it; else ''.

        decisions  the ledger, if it was just read
        Somebody moved it by hand, or on MLflow's pages.
        """
        history = champion_history(self.decisions() if decisions is None else decisions)
        recorded = next(iter(history.champions[-1:]), None)
        champion = self.champion()
        if champion == recorded:
            return ""
        pointed_at = f"points at version {champion}" if champion else "is not set"
        by_ledger = f"version {recorded}" if recorded else "no champion"
        remedy = "`ratchet rollback` moves it back" if recorded else "`ratchet promote` judges it"
        return (
            f"The alias `champion` {pointed_at}, the ledger records {by_ledger}: "
            f"it was moved outside the gates. {remedy}."
        )

    def versions(self) -> list[ModelVersion]:
        """Every version, newest first, with its aliases."""
        with mlflow_errors(self.uri):
            self.ledger.settle()
            return versions(self.client, self.name)

    def find(self, name: str) -> Contestant:
        """Find a version by number or alias, or a bundle by its directory; else RegistryError."""
        known = self.versions()
        if version := _named(known, name):
            return self.contestant(version)
        if Path(name).is_dir():
            return Contestant(name, Path(name).resolve())
        raise self._unknown(name, known)

    def registered(self, name: str) -> Contestant:
        """Find a version by number or alias; RegistryError also for a bundle's directory."""
        found = self.find(name)
        if found.version is None:
            raise RegistryError(
                f"{name}: only registered versions can be promoted; this bundle is not registered.",
                "Register it with `ratchet train`.",
            )
        return found

    def _unknown(self, name: str, known: Sequence[ModelVersion]) -> RegistryError:
        if not known:
            return RegistryError(
                f"{self.name}: no version is registered yet.", "Run `ratchet train`."
            )
        aliases = [alias for version in known for alias in version.aliases]
        numbers = [f"version {version.version}" for version in reversed(known)]
        return RegistryError(
            f"{self.name}: '{name}' is not a version, an alias or a bundle directory."
            f"{did_you_mean(name, aliases)} Registered: {', '.join([*numbers, *aliases])}.",
            "See `ratchet status`.",
        )

    def find_champion(self) -> Contestant | None:
        """The version in production, if any."""
        with mlflow_errors(self.uri):
            version = self.ledger.champion_version()
        return self.contestant(version) if version else None

    def contestant(self, version: ModelVersion) -> Contestant:
        """Download a version's bundle, unless it is here already."""
        with mlflow_errors(self.uri):
            directory = download_bundle(self.client, version, self.workspace.store / "downloads")
        aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
        return Contestant(f"version {version.version}{aliases}", directory, version)

    def run_params(self, version: ModelVersion) -> dict[str, str]:
        """Params that the version's run logged, without the pyfunc's, which MLflow adds to them."""
        from tasks.inference.bundle import PYFUNC_SHA256

        with mlflow_errors(self.uri):
            params = self.client.get_run(run_id_of(version)).data.params
        return {name: value for name, value in params.items() if name != PYFUNC_SHA256}

    def reports(self, version: ModelVersion) -> RunReports:
        """The reports in the version's run; one that is damaged counts as missing."""
        import tempfile

        with tempfile.TemporaryDirectory() as scratch, mlflow_errors(self.uri):
            artifacts = self.client.list_artifacts(run_id_of(version), "reports")
            present = {artifact.path for artifact in artifacts}
            reports: dict[str, Any] = {}
            for name, report in REPORTS.items():
                path = f"reports/{name}.json"
                if path in present:
                    file = self.client.download_artifacts(run_id_of(version), path, scratch)
                    try:
                        reports[name] = report.read(Path(file))
                    except DamagedError as error:
                        LINES.warning(
                            "version %s: %s of its run %s cannot be read: %s",
                            version.version, path, run_id_of(version), error.message,
                        )  # fmt: skip
            return RunReports(**reports)

    def report_page(self, name: str) -> tuple[int, str]:
        """(number, HTML page) of a version's report, by its number or alias; else RegistryError."""
        from tasks.lifecycle.version_report import version_report

        known = self.versions()
        chosen = _named(known, name)
        if chosen is None:
            raise self._unknown(name, known)
        champion = _named(known, CHAMPION)
        with mlflow_errors(self.uri):
            return int(chosen.version), version_report(self.client, chosen, champion)

    def find_version(self, alias: str | None, version: int | None) -> Contestant:
        """The version with this alias and number; without either, the champion, else the newest.

        Raises RegistryError if there is none.
        """
        remedy = "Run `ratchet train`, or see `ratchet status`."
        by_default = alias is None and version is None
        with mlflow_errors(self.uri):
            if alias == CHAMPION or by_default:
                self.ledger.settle()  # complete a move that a crash or a pause interrupted
            known = versions(self.client, self.name)
        if not known:
            raise RegistryError(f"{self.name}: no version is registered.", remedy)
        if by_default:
            return self.contestant(_named(known, CHAMPION) or known[0])
        for candidate in known:
            if alias in (None, *candidate.aliases) and version in (None, int(candidate.version)):
                return self.contestant(candidate)
        wanted = [f"alias '{alias}'"] if alias is not None else []
        wanted += [f"number {version}"] if version is not None else []
        registered = ", ".join(
            f"{v.version} ({', '.join(v.aliases)})" if v.aliases else str(v.version) for v in known
        )
        raise RegistryError(
            f"{self.name}: no version with {' and '.join(wanted)} is registered. "
            f"Registered: {registered}.",
            remedy,
        )

    def metrics(self, version: ModelVersion) -> dict[str, float]:
        """Test metrics, size and speed that the version was registered with; none without a run."""
        if not version.run_id:
            return {}
        with mlflow_errors(self.uri):
            logged = self.client.get_run(version.run_id).data.metrics
        return {
            name.partition("_")[2]: value
            for name, value in logged.items()
            if name.startswith(("test_", "perf_"))
        }

    def rollback_target(self, to: int | None) -> int:
        """The earlier champion to go back to; `to` None: the previous one.

        Raises GateError if there is none, or if `to` was never champion.
        """
        past, current = champion_history(self.decisions()).champions, self.champion()
        # an alias moved by hand goes back to the ledger's champion
        earlier = past[:-1] if past and past[-1] == current else past
        registered = {int(version.version) for version in self.versions()}
        targets = [version for version in earlier if version in registered and version != current]
        if not targets:
            only = f"version {current} is the only champion so far"
            reason = only if current else "no version was ever promoted"
            raise GateError(
                f"{self.name}: {reason}, so there is nothing to roll back to.",
                "See `ratchet history`; promote a version.",
            )
        if to is not None and to not in targets:
            raise GateError(
                f"{self.name}: version {to} was never champion; "
                f"earlier champions: {', '.join(map(str, targets))}.",
                "Name one of those, or `ratchet promote` it.",
            )
        return to or targets[-1]


def _named(known: Sequence[ModelVersion], name: str) -> ModelVersion | None:
    """The version of this number or alias, if any."""
    return next((v for v in known if name in (str(v.version), *v.aliases)), None)
