"""What calls for training again in a workspace: its triggers, asked with its sources, its logged inputs and its champion."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows.engine.progress import listener
from flows.lifecycle.contestants import Contestant, Registry
from tasks.params.workspace import Workspace, cache_dir

if TYPE_CHECKING:
    from tasks.inference.predictor import Predictor
    from tasks.monitoring.triggers import Trigger


def look_for_reasons(workspace: Workspace) -> list[Trigger]:
    """Every trigger's answer; those that are off cost nothing."""
    from tasks.monitoring.triggers import age_trigger, drift_trigger, performance_trigger
    from tasks.problems import load_problem

    params, root = workspace.params(), workspace.root
    wanted, problem = params.retrain, load_problem(params.problem)
    registry = Registry(workspace)
    champion = registry.find_champion() if registry.is_made else None
    predictor = (
        _load(champion)
        if champion and (wanted.drift.enabled or wanted.performance.enabled)
        else None
    )
    labelled = root / wanted.performance.labelled if wanted.performance.labelled else None
    registered = _registered_metric(registry, champion, problem.metric) if champion else None
    return [
        _new_data(workspace, registry),
        drift_trigger(
            root / wanted.drift.inputs, root / "data" / "splits" / "train.parquet", predictor, wanted.drift, params.seed,
            tuple(problem.example()),
        ),
        performance_trigger(labelled, predictor, registered, wanted.performance, params.seed),
        age_trigger(_trained_at(champion), datetime.now(UTC), wanted.age),
        _unjudged(workspace, registry),
    ]  # fmt: skip


def was_judged(workspace: Workspace, version: int) -> bool:
    """Whether a decision was taken about a version, for or against."""
    return any(decision.version == version for decision in Registry(workspace).decisions())


def _unjudged(workspace: Workspace, registry: Registry) -> Trigger:
    """A version that nobody has judged, as a run leaves it that ended between registering and promoting."""
    from tasks.monitoring.triggers import Trigger

    newest = next(iter(registry.versions() if registry.is_made else []), None)
    if newest is None:
        return Trigger("unjudged", True, False, "There is no version yet.")
    if was_judged(workspace, int(newest.version)) or "champion" in newest.aliases:
        return Trigger("unjudged", True, False, "The newest version was judged.")
    return Trigger("unjudged", True, True, f"Version {newest.version} was never judged.")


def _load(champion: Contestant) -> Predictor:
    from tasks.inference.predictor import Predictor
    from tasks.problems import load_problem

    info = champion.open()
    return Predictor(info, load_problem(info.problem))


def _registered_metric(registry: Registry, champion: Contestant, metric: str) -> float | None:
    from tasks.lifecycle.registry import mlflow_errors

    assert champion.version is not None
    with mlflow_errors(registry.uri):
        found: float | None = registry.client.get_run(champion.version.run_id).data.metrics.get(
            f"test_{metric}"
        )
        return found


def _trained_at(champion: Contestant | None) -> datetime | None:
    return (
        None
        if champion is None or champion.version is None
        else datetime.fromtimestamp(champion.version.creation_timestamp / 1000, UTC)
    )


def _new_data(workspace: Workspace, registry: Registry) -> Trigger:
    """The sources as they are now, read into a scratch directory, against the rows of the newest version."""
    from tasks.ingestion import ingest_sources
    from tasks.monitoring.triggers import new_data_trigger
    from tasks.params.lifecycle import NewDataTrigger
    from tasks.problems import load_problem

    params = workspace.params()
    wanted: NewDataTrigger = params.retrain.new_data
    columns = tuple(load_problem(params.problem).columns)
    if not wanted.enabled:
        return new_data_trigger(Path(os.devnull), None, columns, wanted)
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
            fresh / "rows.parquet", _trained_rows(workspace, registry), columns, wanted
        )


def _trained_rows(workspace: Workspace, registry: Registry) -> Path | None:
    """The rows that the newest version was made from; None where there is none, or where the workspace holds others by now."""
    from flows.engine.stage_runner import StageRunner

    rows = workspace.root / "data" / "raw" / "rows.parquet"
    if not rows.is_file() or not registry.is_made:
        return None
    with closing(StageRunner(workspace, (), listener.get(), reading=True)) as runner:
        present = runner.lineage().data_hash
    return (
        rows
        if any(
            version.tags.get("ratchet.data_hash") == present for version in registry.versions()[:1]
        )
        else None
    )
