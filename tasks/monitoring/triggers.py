"""Retraining triggers: new rows, input drift, a fall of the metric, age.

Each says why it fires, or why not.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tasks.core.errors import DataError
from tasks.core.files import read_table
from tasks.data.tables.label_lists import several
from tasks.data.tables.loaded import (
    escape_glob,
    is_resource_error,
    literal,
    one_line,
    quoted,
    scalar,
)
from tasks.data.tables.row_files import read_batches
from tasks.encoding.encoder import encode_rows
from tasks.monitoring.drift_tests import (
    DriftResult,
    classifier_test,
    draw_rows,
    label_test,
    length_test,
    vocabulary_test,
)
from tasks.monitoring.input_log import read_inputs
from tasks.params.ingestion import Source
from tasks.params.lifecycle import AgeTrigger, DriftTrigger, NewDataTrigger, PerformanceTrigger
from tasks.scoring.statistics.bootstrap import Resampling, metric_intervals
from tasks.scoring.statistics.paired import holm

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.core.arrays import Array, Features, Floats
    from tasks.data.row_format import RowFormat
    from tasks.encoding.encoder import Encoder
    from tasks.inference.predictor import Predictor
    from tasks.scoring.scorer import Scorer

LEAST_ROWS = 20  # per sample; the tests hold out half, and fewer would be too few
_NAMED = 5  # rows and labels named in a message


@dataclass(frozen=True)
class Trigger:
    """One possible reason to retrain.

    reason    one sentence, with its numbers
    numbers   the same for programs, as plain JSON values
    """

    name: str
    enabled: bool
    fired: bool
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict)


def new_data_trigger(
    fresh: Path, trained: Path | None, columns: Sequence[str], params: NewDataTrigger
) -> Trigger:
    """Fires if at least `min_rows` rows were not in the last training.

    fresh     rows.parquet of the sources now, as ingest writes it
    trained   rows.parquet of the last training; None: there was none
    columns   the problem's; a row is new if no trained row has the same values in all of them,
              with null as a value
    """
    if not params.enabled:
        return _disabled("new_data")
    rows, new = _count_new(fresh, trained, columns)
    reason = f"{new} of the sources' {_rows(rows)} are new; retraining starts at {params.min_rows}."
    numbers = {"rows": rows, "new_rows": new}
    return Trigger("new_data", True, new >= params.min_rows, reason, numbers)


def _count_new(fresh: Path, trained: Path | None, columns: Sequence[str]) -> tuple[int, int]:
    """(rows, new rows)."""
    import duckdb

    with (
        tempfile.TemporaryDirectory() as scratch,
        duckdb.connect(config={"temp_directory": scratch}) as connection,
    ):
        connection.execute("SET enable_progress_bar=false")
        try:
            rows = scalar(connection, f"SELECT count(*) FROM {_parquet(fresh)}")
            if trained is None:
                return rows, rows
            same = " AND ".join(
                f"fresh.{quoted(column)} IS NOT DISTINCT FROM trained.{quoted(column)}"
                for column in columns
            )
            new = (
                f"SELECT count(*) FROM {_parquet(fresh)} AS fresh "
                f"ANTI JOIN {_parquet(trained)} AS trained ON {same}"
            )
            return rows, scalar(connection, new)
        except duckdb.Error as error:
            if is_resource_error(error):
                raise
            raise DataError(
                f"{fresh}, {trained}: cannot be compared: {one_line(error)}",
                "Create them again with `ratchet train`.",
            ) from None


def _parquet(path: Path) -> str:
    return f"read_parquet({literal(escape_glob(path))}, hive_partitioning=false)"


def age_trigger(trained_at: datetime | None, now: datetime, params: AgeTrigger) -> Trigger:
    """Fires if the champion is older than `max_days`.

    trained_at, now   with their time zones; `trained_at` is None if there is no champion
    """
    if not params.enabled:
        return _disabled("age")
    if trained_at is None:
        return _idle("age", "There is no champion whose age could be measured.")
    age = now - trained_at
    days = age / timedelta(days=1)
    reason = f"The champion was trained {days:.1f} days ago; the limit is {params.max_days:g}."
    return Trigger("age", True, age > timedelta(days=params.max_days), reason, {"days": days})


def drift_trigger(
    inputs: Path,
    reference: Path,
    predictor: Predictor | None,
    params: DriftTrigger,
    seed: int,
    columns: Sequence[str],
) -> Trigger:
    """Fires if recent inputs differ from the training rows.

    inputs      a Parquet or JSONL file, or a folder of them (`tasks.monitoring.input_log`)
    reference   train.parquet of the splits
    predictor   the champion, to compare its labels on both; None: compare only the texts
    columns     the problem's input columns, all texts
    The verdict depends on the seed, but not on the order of the rows.
    """
    if not params.enabled:
        return _disabled("drift")
    if not inputs.exists():
        reason = (
            f"No inputs were logged yet: there is no {inputs}; `ratchet predict --log` logs them."
        )
        return _idle("drift", reason)
    if not reference.exists():
        return _idle("drift", f"There are no training rows yet: there is no {reference}.")
    trained, recent = _read_trained(reference, columns), read_inputs(inputs, columns)
    numbers: dict[str, Any] = {"reference_rows": len(trained), "recent_rows": len(recent)}
    needed = max(params.min_rows, LEAST_ROWS)
    if len(recent) < needed or len(trained) < LEAST_ROWS:
        reason = (
            f"Too few rows to test for drift: {len(recent)} recent inputs of {needed} needed, "
            f"{len(trained)} training rows of {LEAST_ROWS} needed."
        )
        return _idle("drift", reason, numbers)
    draw = np.random.default_rng(seed)
    before, now = (draw_rows(rows, params.max_rows, draw) for rows in (trained, recent))
    tests = _compare(before, now, predictor, draw)
    adjusted_p = holm([test.p_value for test in tests])
    adjusted = {test.name: p for test, p in zip(tests, adjusted_p, strict=True)}
    shifted = [
        test
        for test in tests
        if adjusted[test.name] <= params.significance and test.effect >= params.min_effect
    ]
    numbers["tests"] = {
        test.name: {**_plain(test), "adjusted_p": adjusted[test.name]} for test in tests
    }
    results = ", ".join(
        f"{test.name.replace('_', ' ')} (effect {test.effect:.2f}, p {adjusted[test.name]:.2g})"
        for test in shifted or tests
    )
    reason = (
        f"{len(recent)} recent inputs {'differ' if shifted else 'do not differ'} from the training "
        f"rows in {results}; the trigger takes an effect of at least {params.min_effect:g} "
        f"with p at most {params.significance:g}."
    )
    return Trigger("drift", True, bool(shifted), reason, numbers)


def _read_trained(reference: Path, columns: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = read_table(reference, columns)
    return pa.table(
        {name: pc.fill_null(rows[name].cast(pa.large_string()), "") for name in columns}
    )


def _compare(
    before: pa.Table, now: pa.Table, predictor: Predictor | None, draw: np.random.Generator
) -> list[DriftResult]:
    old, new = (
        ["\n".join(values) for values in zip(*rows.to_pydict().values(), strict=True)]
        for rows in (before, now)
    )
    tests = [
        length_test(old, new),
        vocabulary_test(old, new, draw),
        classifier_test(old, new, draw),
    ]
    if predictor is not None and predictor.info.labels:
        labels_of = predictor.problem.decoding.predicted_labels
        old, new = (
            [
                label
                for prediction in predictor.predict(rows.to_pydict())
                for label in labels_of(prediction) or ["(none)"]
            ]
            for rows in (before, now)
        )
        tests.append(label_test(old, new))
    return tests


def _plain(test: DriftResult) -> dict[str, Any]:
    return {name: value for name, value in asdict(test).items() if name != "name"}


class MeasuredProblem(Protocol):
    """The parts of a problem type that measuring the champion on labelled rows takes."""

    @property
    def rows(self) -> RowFormat: ...
    @property
    def encoding(self) -> Encoder: ...
    @property
    def scoring(self) -> Scorer: ...


def performance_trigger(
    labelled: Path | None,
    problem: MeasuredProblem,
    predictor: Predictor | None,
    registered: float | None,
    params: PerformanceTrigger,
    seed: int,
) -> Trigger:
    """Fires if the champion's metric on freshly labelled rows fell since it was registered.

    Even the upper bound of the metric's 95% interval must be more than `max_fall` below.
    labelled     CSV, TSV, JSONL or Parquet file with the problem's columns
    predictor    the champion; None, like `registered`: there is none
    registered   its metric on the test rows when it was registered
    Raises DataError naming the rows whose label the champion does not know.
    """
    if not params.enabled:
        return _disabled("performance")
    if predictor is None or registered is None:
        return _idle("performance", "There is no champion to measure.")
    if labelled is None:
        reason = "No file of freshly labelled rows is named in `retrain.performance.labelled`."
        return _idle("performance", reason)
    if not labelled.exists():
        return _idle("performance", f"No rows were labelled yet: there is no {labelled}.")
    outputs, references = _outputs_and_references(labelled, problem, predictor)
    count = len(references)
    if count < params.min_rows:
        reason = (
            f"Too few rows to measure the champion: {count} labelled of {params.min_rows} needed."
        )
        return _idle("performance", reason, {"rows": count})
    metric = problem.scoring.metric
    interval = metric_intervals(
        problem.scoring, outputs, references, predictor.info.labels, Resampling(seed=seed)
    )[metric]
    least = registered - params.max_fall
    reason = (
        f"The champion's {metric} on {count} freshly labelled rows is {interval['value']:.3f}, "
        f"at most {interval['high']:.3f} (95% interval); it was registered with {registered:.3f}, "
        f"and the limit is {least:.3f}."
    )
    numbers = {
        "rows": count,
        "metric": metric,
        "registered": registered,
        "least": least,
        **interval,
    }
    return Trigger("performance", True, interval["high"] < least, reason, numbers)


def _outputs_and_references(
    labelled: Path, problem: MeasuredProblem, predictor: Predictor
) -> tuple[Floats, Array]:
    labels = predictor.info.labels
    features: Features = {}
    unknown: list[tuple[str | None, int]] = []  # (label, row number from 1)
    count = 0
    for batch in read_batches(Source(url=str(labelled)), problem.rows.columns, problem.rows):
        columns = batch.inputs.to_pydict()
        cells = (
            columns[problem.rows.label_column]
            if problem.rows.label_column in problem.rows.columns
            else []
        )
        unknown += [
            (label, count + i)
            for i, cell in enumerate(cells, 1)
            for label in several(cell)
            if label not in labels
        ]
        count += batch.inputs.num_rows
        if not unknown:
            rows = {
                name: ["" if value is None else value for value in columns[name]]
                for name in problem.rows.columns
            }
            for name, values in encode_rows(
                problem.encoding, predictor.tokenizer, rows, labels
            ).items():
                features.setdefault(name, []).extend(values)
    if unknown:
        raise _unknown_labels(labelled, unknown, labels)
    if not features:
        return np.empty(0, np.float32), np.empty(0)
    return predictor.outputs_of_features(features), problem.encoding.references(features)


def _unknown_labels(
    labelled: Path, unknown: Sequence[tuple[str | None, int]], labels: Sequence[str]
) -> DataError:
    """The error for labels that the champion does not know.

    unknown   (label, row number from 1)
    """
    problems = []
    for label, count in Counter(label for label, _ in unknown).most_common(_NAMED):
        numbers = [str(row) for row_label, row in unknown if row_label == label][:_NAMED]
        more = ", …" if count > len(numbers) else ""
        name = "(none)" if label is None else repr(label)
        rows = "row" if count == 1 else "rows"
        problems.append(f"{name} ({rows} {', '.join(numbers)}{more})")
    return DataError(
        f"{labelled}: {_rows(len(unknown))} with a label that the champion does not know: "
        f"{', '.join(problems)}. It knows {', '.join(labels)}.",
        "Fix or remove these rows; to use a new label, add it to `labels` in params.yaml "
        "and train again.",
    )


def _disabled(name: str) -> Trigger:
    return Trigger(name, False, False, f"Disabled: `retrain.{name}.enabled` is false.")


def _idle(name: str, reason: str, numbers: dict[str, Any] | None = None) -> Trigger:
    """A trigger that lacks what it needs."""
    return Trigger(name, True, False, reason, numbers or {})


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
