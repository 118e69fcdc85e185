"""`ratchet compare`: two models on the same test rows, and MLflow told of it on both runs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.engine.progress import listener
from flows.lifecycle.contestants import Contestant, Registry
from tasks.core.errors import RegistryError
from tasks.core.files import write_json, write_text
from tasks.core.progress import LINES
from tasks.params.schema import SplitParams
from tasks.params.workspace import Workspace
from tasks.scoring.statistics.bootstrap import Resampling

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from tasks.comparison import Scored, TestRows

FROZEN = (
    "These test rows were held out by a hash of their text, so neither model was trained on them."
)
FOREIGN = "{title} is in no registry: whether it was trained on these rows cannot be known."
OTHER_SPLIT = (
    "{title} was split with other shares ({found}): it may have been trained on some of these rows."
)
GIVEN_SPLIT = "The splits were given as files: that no model was trained on these rows is for their maker to know."


def compare(
    workspace: Workspace, first: str = "challenger", second: str = "champion"
) -> dict[str, Any]:
    """First against second, as plain JSON values; logged to MLflow on both runs."""
    registry = Registry(workspace)
    pair = [_find(registry, name) for name in (first, second)]
    found = compare_pair(workspace, registry, *pair)
    log_comparison(registry, found, pair)
    return found


def compare_pair(
    workspace: Workspace, registry: Registry, first: Contestant, second: Contestant
) -> dict[str, Any]:
    """The whole comparison of two contestants."""
    rows, scored = score(workspace, {"first": first, "second": second})
    return describe_pair(
        workspace, registry, rows, {first: scored["first"], second: scored["second"]}
    )


def describe_pair(
    workspace: Workspace, registry: Registry, rows: TestRows, scored: Mapping[Contestant, Scored]
) -> dict[str, Any]:
    """Two contestants that were scored on the same rows, the first against the second."""
    from tasks.comparison import check_labels, compare_scored, describe_model

    ours, theirs = scored.values()
    check_labels(ours.info, theirs.info)
    params = workspace.params()
    single, paired = (
        Resampling(seed=params.seed),
        Resampling(params.promotion.resamples, seed=params.seed),
    )
    return {
        "test": describe_rows(rows),
        "metric": rows.problem.metric,
        "models": [
            {"title": c.title, "version": c.number, **describe_model(found, rows, single)}
            for c, found in scored.items()
        ],
        **compare_scored(ours, theirs, rows, paired, params.promotion.min_slice_rows),
        "params": _changed([registry.run_params(c.version) for c in scored if c.version]),
        "lineage": _changed([_lineage(c.version) for c in scored if c.version]),
        "notes": [note for contestant in scored for note in _notes(registry, contestant)]
        or [_frozen(workspace)],
    }


def score(
    workspace: Workspace, contestants: Mapping[str, Contestant]
) -> tuple[TestRows, dict[str, Scored]]:
    """The workspace's test rows, and every contestant's outputs on them."""
    from dataclasses import replace

    from tasks.comparison import all_labels, check_problem, read_test_rows, score_bundles

    params = workspace.params()
    file = workspace.root / "data" / "splits" / "test.parquet"
    bundles = {place: contestant.open() for place, contestant in contestants.items()}
    check_problem(bundles, params.problem)
    rows = read_test_rows(file, params.problem, params.labels, params.evaluate.slices)
    rows = replace(rows, labels=all_labels(params.labels, list(bundles.values())))
    return rows, score_bundles(bundles, file, rows, params.seed, listener.get()("compare"))


def describe_rows(rows: TestRows) -> dict[str, Any]:
    """What the ledger keeps of the rows that judged."""
    return {"rows": rows.count, "fingerprint": rows.fingerprint, "sketch": rows.sketch}


def log_comparison(registry: Registry, found: Mapping[str, Any], pair: list[Contestant]) -> None:
    """The same metric names on both runs, so that MLflow's own comparison shows them side by side; the whole as an artifact."""
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    from tasks.lifecycle.registry import mlflow_errors

    name = "-vs-".join(str(contestant.number or Path(contestant.title).name) for contestant in pair)
    with tempfile.TemporaryDirectory() as scratch, mlflow_errors(registry.uri):
        file = Path(scratch) / f"{name}.json"
        write_json(file, dict(found))
        page = Path(scratch) / f"{name}.html"
        write_text(page, comparison_page(found))
        for contestant, model in zip(pair, found["models"], strict=True):
            if contestant.version is None:
                continue
            numbers = {metric: interval["value"] for metric, interval in model["metrics"].items()}
            numbers |= {
                key: model[key]
                for key in ("latency_ms_p50", "latency_ms_p95", "throughput", "size_bytes")
            }
            run_id = contestant.version.run_id
            now = int(time.time() * 1000)  # of one name MLflow shows the latest
            try:
                registry.client.log_batch(
                    run_id,
                    metrics=[
                        Metric(f"compare_{key}", value, now, 0) for key, value in numbers.items()
                    ],
                )
                for artifact in (file, page):
                    registry.client.log_artifact(run_id, str(artifact), "comparisons")
            except MlflowException as error:  # of a run that somebody has deleted, say: the comparison stands all the same
                LINES.warning(
                    "%s: MLflow did not take the comparison: %s",
                    contestant.title,
                    " ".join(str(error).split())[:200],
                )


def comparison_page(found: Mapping[str, Any]) -> str:
    """The comparison as one self-contained HTML page."""
    from tasks.reports.comparison_page import render_comparison

    return render_comparison(found)


def _find(registry: Registry, name: str) -> Contestant:
    if name == "champion" and registry.versions() and registry.find_champion() is None:
        raise RegistryError(
            f"{registry.name}: there is no champion yet to compare with.",
            "Run `ratchet promote`, or name two versions.",
        )
    return registry.find(name)


def _lineage(version: ModelVersion) -> dict[str, str]:
    mine = {
        key.removeprefix("ratchet."): value
        for key, value in version.tags.items()
        if key.startswith("ratchet.")
    }
    return {key: value for key, value in mine.items() if not key.startswith("decision.")}


def _changed(values: Sequence[Mapping[str, str]]) -> dict[str, list[str | None]]:
    """What differs between two versions; of a bundle that is in no registry nothing is known."""
    if len(values) < 2:
        return {}
    first, second = values
    keys = [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]
    return {key: [first.get(key), second.get(key)] for key in keys}


def _notes(registry: Registry, contestant: Contestant) -> list[str]:
    """Why it cannot be known that the contestant never saw the test rows."""
    if contestant.version is None:
        return [FOREIGN.format(title=contestant.title)]
    found = other_shares(registry.run_params(contestant.version), registry.workspace.params().split)
    return [OTHER_SPLIT.format(title=contestant.title, found=found)] if found else []


def other_shares(then: Mapping[str, str], split: SplitParams) -> str:
    """The shares of a run's params that are others now, in words; what params.yaml did not say had its default."""
    found = []
    for name in ("validation", "test"):
        before, now = (
            then.get(f"split.{name}", str(getattr(SplitParams(), name))),
            str(getattr(split, name)),
        )
        if before != now:
            found.append(f"split.{name} {before}, now {now}")
    return ", ".join(found)


def _frozen(workspace: Workspace) -> str:
    given = any(source.split for source in workspace.params().ingest.sources)
    return GIVEN_SPLIT if given else FROZEN
