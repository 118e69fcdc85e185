"""One training run of a workspace: stages, MLflow run, result; independent of the orchestrator."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from flows.engine.background import in_background
from flows.engine.known_versions import KnownVersion
from flows.engine.progress import listener, stage_line
from flows.engine.stage_cache import Lineage, StageCache
from flows.engine.stage_runner import StageOutcome, StageRunner
from flows.engine.starting_point import settle_start
from tasks.core.files import read_json, read_kept, sha256_file, sha256_json, write_json
from tasks.core.git import git_state
from tasks.core.progress import Report
from tasks.core.version import own_version
from tasks.data.quality.row_account import Account
from tasks.inference.bundle import MANIFEST
from tasks.params.workspace import Workspace
from tasks.pipeline import STAGES, check_params
from tasks.reports.stage_reports import EvaluationReport, TrainingReport, VerificationReport

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tasks.registration import Registered


@dataclass(frozen=True)
class TrainResult:
    """Result of `ratchet train`, trained now or found in the cache.

    state  'trained' or 'cached'
    plain  the baseline's `name`, `metrics` and the checkpoint's paired `difference` to it, on the
           test rows; None without a baseline
    rows   the account of data/quality/row_account.py
    notes  caveats to read before believing the metrics
    ships  {recipe, why, candidates: [{recipe, verdict, reason, ...}]}
    """

    state: str
    model: str
    version: int
    mlflow_run_id: str
    content_key: str
    recipe: str
    metrics: dict[str, float]
    plain: dict[str, Any] | None
    rows: dict[str, Any]
    notes: list[str]
    stages: list[StageOutcome]
    ships: dict[str, Any]


ALL = tuple(stage.name for stage in STAGES)
# SQLite's and PostgreSQL's messages, passed on by MLflow: busy, or another machine wrote the row
BUSY = ("database is locked", "UNIQUE constraint failed", "UniqueViolation", "DeadlockDetected")


def last_training(workspace: Workspace) -> Path:
    """File that says which version the last training made or found, and with which `-S`."""
    return workspace.store / "last_training.json"


def is_transient(error: Exception) -> bool:
    """Whether a retry may help: for the network or a busy database, never a user error or a bug."""
    chain = (error, error.__cause__)
    return any(
        isinstance(e, ConnectionError | TimeoutError) or any(text in str(e) for text in BUSY)
        for e in chain
    )


_shared: ContextVar[TrainingRun | None] = ContextVar("shared", default=None)


class TrainingRun:
    """Stages and effects of one run.

    Opens MLflow in the background, because the first use of a database takes seconds.

    rerun    stages to run even if they are clean
    trigger  what caused the training
    """

    def __init__(
        self,
        workspace: Workspace,
        overrides: Sequence[str] = (),
        *,
        rerun: Sequence[str] = (),
        trigger: str = "",
    ) -> None:
        self.workspace = workspace
        self.overrides = list(overrides)
        self.outcomes: dict[str, StageOutcome] = {}
        self._runner = StageRunner(
            workspace, overrides, self._listen, settle=self._settle, rerun=rerun
        )
        check_params(self._runner.params, workspace.root)
        self._runner.read_inputs()
        self._trigger = trigger
        self._uri = os.environ["MLFLOW_TRACKING_URI"]
        self._mlflow: Future[tuple[MlflowClient, str]] | None = None

    @classmethod
    @contextmanager
    def open(
        cls,
        workspace: Workspace,
        overrides: Sequence[str] = (),
        *,
        rerun: Sequence[str] = (),
        trigger: str = "",
    ) -> Iterator[TrainingRun]:
        """The run that this process has `shared`, or one of its own."""
        if run := _shared.get():
            yield run
            return
        with cls(workspace, overrides, rerun=rerun, trigger=trigger) as run:
            yield run

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Let the flow that runs inside of the context use this run, with its DVC repository."""
        token = _shared.set(self)
        try:
            yield
        finally:
            _shared.reset(token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.close()

    def open_mlflow(self) -> None:
        """Connect in the background; a connection error surfaces on first use."""
        if self._mlflow is None:
            # MLflow, Prefect and Great Expectations import it on different threads; its modules
            # import each other circularly, so two threads would deadlock (Python raises an error)
            import sqlalchemy.orm  # noqa: F401

            self._mlflow = in_background(self._connect)

    def wait_for_mlflow(self) -> None:
        """Block until connected; a connection error surfaces on first use."""
        self.open_mlflow()
        assert self._mlflow is not None
        wait([self._mlflow])

    def stage(self, name: str) -> StageOutcome:
        """Make one stage clean and log how."""
        return self._note(self._runner.run(name))

    def finished_result(self) -> TrainResult | None:
        """Result if nothing is left to do: every stage clean, the model registered; else None."""
        from tasks.registration import Registered

        if any(status != "clean" for status in self._runner.statuses().values()):
            return None
        lineage = self._runner.lineage()
        version = self._registered_version(lineage)
        if version is None:
            return None
        self._remember(version["version"])
        for stage in STAGES:
            self._note(StageOutcome(stage.name, "cached", 0.0))
        return self.result(
            Registered(
                self._runner.params.model_name,
                version["version"],
                version["run_id"],
                lineage.content_key,
                created=False,
            )
        )

    def register(self, flow_run_id: str) -> Registered:
        """Register what the stages made."""
        from tasks.registration import register_model

        lineage = self._runner.lineage()
        tags = self._tags(lineage) | {"prefect.flow_run_id": flow_run_id}
        params, values, store = self._runner.params, self._runner.values, self.workspace.store
        # the connection may still be opening if no stage ran; a second one at the same time would
        # create the experiment twice
        self._client()
        registered = register_model(
            self.workspace.root, store, self._uri, params, values, lineage.content_key, tags
        )
        self._registered_version(lineage)  # caches it for the next run
        self._remember(registered.version)
        return registered

    def result(self, registered: Registered) -> TrainResult:
        """Summarize the run from its reports."""
        reports = self.workspace.root / "reports"
        metrics = {
            name: value
            for name, value in read_json(reports / "metrics.json").items()
            if isinstance(value, int | float)
        }
        evaluation = EvaluationReport.read(reports / "evaluation.json")
        outcomes = [self.outcomes[stage.name] for stage in STAGES]
        verified = VerificationReport.read(reports / "verification.json")
        cached = not registered.created and all(outcome.state == "cached" for outcome in outcomes)
        return TrainResult(
            state="cached" if cached else "trained",
            model=registered.name,
            version=registered.version,
            mlflow_run_id=registered.mlflow_run_id,
            content_key=registered.content_key,
            recipe=verified.shipped,
            metrics=metrics,
            plain=evaluation.baseline.model_dump() if evaluation.baseline else None,
            rows=Account.read(self.workspace.root / "data" / "splits").plain(),
            notes=[*evaluation.notes, *verified.notes, *self._outside_the_gates(cached)],
            stages=outcomes,
            ships={
                "recipe": verified.shipped,
                "why": verified.reason,
                "candidates": [entry.model_dump() for entry in verified.candidates],
            },
        )

    def _remember(self, version: int) -> None:
        """Write what `last_training` says, unless it says so already."""
        made = {"version": version, "overrides": self.overrides}
        if read_kept(last_training(self.workspace)) != made:
            write_json(last_training(self.workspace), made)

    def _outside_the_gates(self, cached: bool) -> list[str]:
        from tasks.lifecycle.model_registry import ModelRegistry

        # a run that has nothing to do does not ask the registry
        note = "" if cached else ModelRegistry(self.workspace).outside_the_gates()
        return [note] if note else []

    def _note(self, outcome: StageOutcome) -> StageOutcome:
        self.outcomes[outcome.name] = outcome
        stage_line(outcome.name, outcome.state, outcome.seconds)
        return outcome

    def _registered_version(self, lineage: Lineage) -> dict[str, Any] | None:
        """Registered `version` and `run_id` of the lineage, from the cache or else the registry."""
        name, store = self._runner.params.model_name, self.workspace.store
        known = KnownVersion(self._uri, store, name, lineage.content_key)
        if version := known.recall():
            return version
        from tasks.lifecycle.registry import BUNDLE_SHA256, DATA_HASH, mlflow_errors

        with mlflow_errors(self._uri):
            tags = {BUNDLE_SHA256: self._bundle_sha256(), DATA_HASH: lineage.data_hash}
            return known.ask(*self._client(), tags)

    def _check_ahead(self) -> None:
        """Fail early, before training: on unknown recipes or slices, or an unreachable registry."""
        from tasks.evaluation import check_slice_columns
        from tasks.export import check_recipes
        from tasks.lifecycle.registry import require_active

        params = self._runner.params
        check_recipes(params.export.recipes or ())
        test_rows = self.workspace.root / "data" / "splits" / "test.parquet"
        check_slice_columns(test_rows, params.evaluate.slices)
        require_active(*self._client(), self._uri)

    def _connect(self) -> tuple[MlflowClient, str]:
        from tasks.lifecycle.registry import connect, mlflow_errors

        name = self._runner.params.model_name
        client, experiment_id = connect(self._uri, self.workspace.store, name)
        with mlflow_errors(self._uri):
            # opens the registry too, a separate store that MLflow opens on first use
            client.search_registered_models(max_results=1)
        return client, experiment_id

    def _client(self) -> tuple[MlflowClient, str]:
        self.open_mlflow()
        assert self._mlflow is not None
        return self._mlflow.result()

    def _settle(self, cache: StageCache) -> bool:
        client, _ = self._client()
        return settle_start(cache, self._runner.params, client, self._uri, self.workspace.store)

    def _listen(self, stage: str) -> Report:
        shown = listener.get()(stage)
        if stage != "finetune":
            return shown
        self._check_ahead()
        from tasks.lifecycle.live_curves import LiveCurves
        from tasks.lifecycle.registry import claim_run, find_version, mlflow_errors

        client, experiment_id = self._client()
        key, name = self._runner.lineage().content_key, self._runner.params.model_name
        with mlflow_errors(self._uri):
            if find_version(client, name, key, {}):
                return shown  # trained again, by --force: its run is complete
            run = claim_run(client, experiment_id, key, name)
        curves = LiveCurves(client, run.info.run_id)

        def report(step: int, metrics: Mapping[str, float]) -> None:
            shown(step, metrics)
            with mlflow_errors(self._uri):
                curves(step, metrics)
                if metrics.get("progress") == 1:
                    curves.flush()

        return report

    def _bundle_sha256(self) -> str:
        return sha256_file(self.workspace.root / "models" / "bundle" / MANIFEST)

    def _tags(self, lineage: Lineage) -> dict[str, str]:
        from tasks.lifecycle.registry import BUNDLE_SHA256, DATA_HASH, STAGE_VERSIONS
        from tasks.lifecycle.version_report import machine

        state = git_state(self.workspace.root)
        reports = self.workspace.root / "reports"
        params = self._runner.params
        training = TrainingReport.read(reports / "training.json")
        tags: dict[str, Any] = {
            DATA_HASH: lineage.data_hash,
            STAGE_VERSIONS: ", ".join(
                f"{name} {version}" for name, version in lineage.code.items()
            ),
            "ratchet.git_commit": state.commit or "none",
            "ratchet.git_dirty": str(state.dirty or bool(self.overrides)).lower(),
            "ratchet.base_model": params.base_model.path,
            "ratchet.base_model_sha256": training.base_sha256,
            "ratchet.base_model_files_sha256": (
                sha256_json(training.base_files) if training.base_files else "none"
            ),
            "ratchet.start_sha256": training.start.checkpoint_sha256 if training.start else "none",
            BUNDLE_SHA256: self._bundle_sha256(),
            "ratchet.recipe": VerificationReport.read(reports / "verification.json").shipped,
            "ratchet.problem": params.problem,
            "ratchet.code_version": own_version(),
            "ratchet.machine": machine(),
        }
        if self._trigger:
            tags["ratchet.trigger"] = self._trigger
        return {name: str(value) for name, value in tags.items()}
