"""`ratchet compare`: compare two models on the same test rows and log the result to both runs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.engine.progress import listener
from tasks.core.errors import RegistryError
from tasks.core.files import write_json, write_text
from tasks.core.memory import TO_TRAIN, require_address_space
from tasks.core.progress import LINES
from tasks.lifecycle.model_registry import Contestant, ModelRegistry
from tasks.params.schema import SplitParams
from tasks.params.workspace import Workspace
from tasks.problems import problem_names
from tasks.scoring.statistics.bootstrap import Resampling

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from tasks.comparison import Scored, TestRows

FROZEN = (
    "These test rows were held out by a hash of their text, so neither model was trained on them."
)
FOREIGN = "{title} is not registered: it may have been trained on these rows."
OTHER_SPLIT = (
    "{title} was split with other shares ({changes}): "
    "it may have been trained on some of these rows."
)
GIVEN_SPLIT = (
    "The splits were given as files: whoever made them has to ensure that no model was trained "
    "on these rows."
)


def compare(
    workspace: Workspace, first: str = "challenger", second: str = "champion"
) -> dict[str, Any]:
    """Compare two models, log the comparison to both MLflow runs, and return it as JSON values."""
    require_address_space(TO_TRAIN)
    registry = ModelRegistry(workspace)
    pair = [_find(registry, name) for name in (first, second)]
    comparison = compare_pair(workspace, registry, *pair)
    if outside := registry.outside_the_gates():
        comparison["notes"] = [*comparison["notes"], outside]
    log_comparison(registry, comparison, pair)
    return comparison


def compare_pair(
    workspace: Workspace, registry: ModelRegistry, first: Contestant, second: Contestant
) -> dict[str, Any]:
    """Score and compare two contestants; nothing is logged."""
    rows, scored = score(workspace, {"first": first, "second": second})
    return describe_pair(
        workspace, registry, rows, {first: scored["first"], second: scored["second"]}
    )


def describe_pair(
    workspace: Workspace,
    registry: ModelRegistry,
    rows: TestRows,
    scored: Mapping[Contestant, Scored],
) -> dict[str, Any]:
    """Compare two contestants that were scored on the same rows, the first with the second."""
    from tasks.comparison import check_labels, compare_scored, describe_model

    first, second = scored.values()
    check_labels(first.info, second.info)
    params = workspace.params()
    single = Resampling(seed=params.seed)
    paired = Resampling(params.promotion.resamples, seed=params.seed)
    return {
        "test": describe_rows(rows),
        "metric": rows.problem.scoring.metric,
        "models": [
            {"title": c.title, "version": c.number, **describe_model(model, rows, single)}
            for c, model in scored.items()
        ],
        **compare_scored(first, second, rows, paired, params.promotion.min_slice_rows),
        "params": _changed([registry.run_params(c.version) for c in scored if c.version]),
        "lineage": _changed([_lineage(c.version) for c in scored if c.version]),
        "notes": [note for contestant in scored for note in _notes(registry, contestant)]
        or [_frozen(workspace)],
    }


def score(
    workspace: Workspace, contestants: Mapping[str, Contestant]
) -> tuple[TestRows, dict[str, Scored]]:
    """The workspace's test rows and each contestant's outputs on them.

    contestants  by role, such as "challenger"; the outputs have the same keys
    """
    from dataclasses import replace

    from tasks.comparison import all_labels, check_problem, read_test_rows, score_bundles

    params = workspace.params()
    file = workspace.root / "data" / "splits" / "test.parquet"
    bundles = {role: contestant.open(problem_names()) for role, contestant in contestants.items()}
    check_problem(bundles, params.problem)
    rows = read_test_rows(file, params.problem, params.labels, params.evaluate.slices)
    rows = replace(rows, labels=all_labels(params.labels, list(bundles.values())))
    return rows, score_bundles(bundles, file, rows, params.seed, listener.get()("compare"))


def describe_rows(rows: TestRows) -> dict[str, Any]:
    """The test rows as the ledger records them: count, fingerprint and sketch."""
    return {"rows": rows.count, "fingerprint": rows.fingerprint, "sketch": rows.sketch}


def log_comparison(
    registry: ModelRegistry, comparison: Mapping[str, Any], pair: list[Contestant]
) -> None:
    """Log the comparison to both runs: metrics, and JSON and HTML artifacts.

    Both runs get the same metric names, so MLflow's own comparison shows them side by side.
    """
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    from tasks.lifecycle.registry import mlflow_errors, run_id_of

    name = "-vs-".join(str(contestant.number or Path(contestant.title).name) for contestant in pair)
    with tempfile.TemporaryDirectory() as scratch, mlflow_errors(registry.uri):
        file = Path(scratch) / f"{name}.json"
        write_json(file, dict(comparison))
        page = Path(scratch) / f"{name}.html"
        write_text(page, comparison_page(comparison))
        for contestant, model in zip(pair, comparison["models"], strict=True):
            if contestant.version is None:
                continue
            numbers = {metric: interval["value"] for metric, interval in model["metrics"].items()}
            numbers |= {
                key: model[key]
                for key in ("latency_ms_p50", "latency_ms_p95", "throughput", "size_bytes")
            }
            run_id = run_id_of(contestant.version)
            now = int(time.time() * 1000)  # MLflow shows the latest value of each metric
            metrics = [Metric(f"compare_{key}", value, now, 0) for key, value in numbers.items()]
            try:
                registry.client.log_batch(run_id, metrics=metrics)
                for artifact in (file, page):
                    registry.client.log_artifact(run_id, str(artifact), "comparisons")
            except MlflowException as error:  # a deleted run, say: the comparison is still valid
                reason = " ".join(str(error).split())[:200]
                LINES.warning("%s: MLflow rejected the comparison: %s", contestant.title, reason)


def comparison_page(comparison: Mapping[str, Any]) -> str:
    """The comparison as one self-contained HTML page."""
    from tasks.reports.comparison_page import render_comparison

    return render_comparison(comparison)


def _find(registry: ModelRegistry, name: str) -> Contestant:
    if name == "champion" and registry.versions() and registry.find_champion() is None:
        raise RegistryError(
            f"{registry.name}: there is no champion to compare with yet.",
            "Run `ratchet promote`, or name two versions.",
        )
    return registry.find(name)


def _lineage(version: ModelVersion) -> dict[str, str]:
    return {
        key.removeprefix("ratchet."): value
        for key, value in version.tags.items()
        if key.startswith("ratchet.") and not key.startswith("ratchet.decision.")
    }


def _changed(values: Sequence[Mapping[str, str]]) -> dict[str, list[str | None]]:
    """The values that differ between two versions; {} if one of the two is not registered."""
    if len(values) < 2:
        return {}
    first, second = values
    keys = [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]
    return {key: [first.get(key), second.get(key)] for key in keys}


def _notes(registry: ModelRegistry, contestant: Contestant) -> list[str]:
    """Reasons why the contestant may have been trained on the test rows."""
    if contestant.version is None:
        return [FOREIGN.format(title=contestant.title)]
    run_params = registry.run_params(contestant.version)
    changes = changed_shares(run_params, registry.workspace.params().split)
    return [OTHER_SPLIT.format(title=contestant.title, changes=changes)] if changes else []


def changed_shares(then: Mapping[str, str], split: SplitParams) -> str:
    """Which split shares have changed since a run, in words; "" if none.

    then  the run's logged params; a share missing there had its default
    """
    changes = []
    for name in ("validation", "test"):
        before = then.get(f"split.{name}", str(getattr(SplitParams(), name)))
        now = str(getattr(split, name))
        if before != now:
            changes.append(f"split.{name} {before}, now {now}")
    return ", ".join(changes)


def _frozen(workspace: Workspace) -> str:
    given_splits = any(source.split for source in workspace.params().ingest.sources)
    return GIVEN_SPLIT if given_splits else FROZEN
