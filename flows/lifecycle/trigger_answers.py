"""Evaluates a workspace's retraining triggers: sources, logged inputs, champion, ledger."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows.engine.progress import listener
from tasks.lifecycle.model_registry import Contestant, ModelRegistry
from tasks.params.workspace import Workspace, cache_dir

if TYPE_CHECKING:
    from tasks.inference.predictor import Predictor
    from tasks.monitoring.triggers import Trigger


def evaluate_triggers(workspace: Workspace) -> list[Trigger]:
    """Evaluate every trigger; disabled ones cost nothing."""
    from tasks.monitoring.triggers import age_trigger, drift_trigger, performance_trigger
    from tasks.problems import load_problem

    params, root = workspace.params(), workspace.root
    settings, problem = params.retrain, load_problem(params.problem)
    registry = ModelRegistry(workspace)
    champion = registry.find_champion() if registry.is_made else None
    needs_model = settings.drift.enabled or settings.performance.enabled
    predictor = _load(champion) if champion and needs_model else None
    labelled = root / settings.performance.labelled if settings.performance.labelled else None
    registered = (
        _registered_metric(registry, champion, problem.scoring.metric) if champion else None
    )
    return [
        _new_data(workspace, registry),
        drift_trigger(
            root / settings.drift.inputs,
            root / "data" / "splits" / "train.parquet",
            predictor,
            settings.drift,
            params.seed,
            tuple(problem.decoding.example()),
        ),
        performance_trigger(
            labelled, problem, predictor, registered, settings.performance, params.seed
        ),
        age_trigger(_trained_at(champion), datetime.now(UTC), settings.age),
        _unjudged(workspace, registry),
    ]


def was_judged(workspace: Workspace, version: int) -> bool:
    """Whether there is a decision about a version, for or against."""
    return any(decision.version == version for decision in ModelRegistry(workspace).decisions())


def _unjudged(workspace: Workspace, registry: ModelRegistry) -> Trigger:
    """Fires if the newest version was never judged: its run ended before promotion."""
    from tasks.monitoring.triggers import Trigger

    newest = next(iter(registry.versions() if registry.is_made else []), None)
    if newest is None:
        return Trigger("unjudged", True, False, "There is no version yet.")
    if was_judged(workspace, int(newest.version)) or "champion" in newest.aliases:
        return Trigger("unjudged", True, False, "The newest version has been judged.")
    return Trigger("unjudged", True, True, f"Version {newest.version} was never judged.")


def _load(champion: Contestant) -> Predictor:
    from tasks.inference.predictor import Predictor
    from tasks.problems import load_problem, problem_names

    info = champion.open(problem_names())
    return Predictor(info, load_problem(info.problem))


def _registered_metric(registry: ModelRegistry, champion: Contestant, metric: str) -> float | None:
    assert champion.version is not None
    return registry.metrics(champion.version).get(metric)


def _trained_at(champion: Contestant | None) -> datetime | None:
    if champion is None or champion.version is None:
        return None
    return datetime.fromtimestamp(champion.version.creation_timestamp / 1000, UTC)


def _new_data(workspace: Workspace, registry: ModelRegistry) -> Trigger:
    """Compare the sources, read afresh into a scratch directory, with the newest version's rows."""
    from tasks.ingestion import ingest_sources
    from tasks.monitoring.triggers import new_data_trigger
    from tasks.params.lifecycle import NewDataTrigger
    from tasks.problems import load_problem

    params = workspace.params()
    settings: NewDataTrigger = params.retrain.new_data
    columns = tuple(load_problem(params.problem).rows.columns)
    if not settings.enabled:
        return new_data_trigger(Path(os.devnull), None, columns, settings)
    workspace.store.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.store) as scratch:
        fresh = Path(scratch) / "raw"
        report = listener.get()("ingest")
        ingest_sources(
            fresh,
            problem=params.problem,
            ingest=params.ingest,
            root=workspace.root,
            cache=cache_dir(),
            report=report,
        )
        return new_data_trigger(
            fresh / "rows.parquet", _trained_rows(workspace, registry), columns, settings
        )


def _trained_rows(workspace: Workspace, registry: ModelRegistry) -> Path | None:
    """The newest version's rows; None if there is no version, or if they were replaced since."""
    from flows.engine.stage_runner import StageRunner

    rows = workspace.root / "data" / "raw" / "rows.parquet"
    if not rows.is_file() or not registry.is_made:
        return None
    with closing(StageRunner(workspace, (), listener.get(), reading=True)) as runner:
        data_hash = runner.lineage().data_hash
    newest = registry.versions()[:1]
    is_same = any(version.tags.get("ratchet.data_hash") == data_hash for version in newest)
    return rows if is_same else None
