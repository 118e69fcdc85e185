"""What calls for training again: new rows, drift of the inputs, a fall of the metric, age. Each says why it fires, or why not."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.errors import DataError
from tasks.core.files import read_table
from tasks.data.tables.label_lists import several
from tasks.data.tables.loaded import (
    escape_glob,
    literal,
    no_fault_of_data,
    one_line,
    quoted,
    scalar,
)
from tasks.data.tables.row_files import read_batches
from tasks.monitoring.drift_tests import (
    DriftTest,
    classifier_test,
    draw_rows,
    label_test,
    length_test,
    vocabulary_test,
)
from tasks.monitoring.input_log import read_inputs
from tasks.params.lifecycle import AgeTrigger, DriftTrigger, NewDataTrigger, PerformanceTrigger
from tasks.scoring.statistics.bootstrap import Resampling, metric_intervals
from tasks.scoring.statistics.paired import holm

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.core.arrays import Array, Features, Floats
    from tasks.inference.predictor import Predictor

LEAST_ROWS = 20  # a side, below which half of them are too few to test on
_NAMED = 5  # rows and labels that a message names


@dataclass(frozen=True)
class Trigger:
    """One reason to train again.

    reason    one sentence, with its numbers
    numbers   the same for programs, plain JSON values
    """

    name: str
    enabled: bool
    fired: bool
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict)


def new_data_trigger(
    fresh: Path, trained: Path | None, columns: Sequence[str], params: NewDataTrigger
) -> Trigger:
    """Rows that the last training did not have.

    fresh, trained   rows.parquet as ingest makes them, of the sources now and of the last training (None: there was none)
    columns          the problem's; a row is new if no trained row has the same values in all of them, null being a value
    """
    if not params.enabled:
        return _disabled("new_data")
    rows, new = _count_new(fresh, trained, columns)
    reason = f"{new} of the sources' {_rows(rows)} are new; {params.min_rows} call for training."
    return Trigger(
        "new_data", True, new >= params.min_rows, reason, {"rows": rows, "new_rows": new}
    )


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
            new = f"SELECT count(*) FROM {_parquet(fresh)} AS fresh ANTI JOIN {_parquet(trained)} AS trained ON {same}"
            return rows, scalar(connection, new)
        except duckdb.Error as error:
            if no_fault_of_data(error):
                raise
            raise DataError(
                f"{fresh}, {trained}: cannot be compared: {one_line(error)}",
                "Make them again with `ratchet train`.",
            ) from None


def _parquet(path: Path) -> str:
    return f"read_parquet({literal(escape_glob(path))}, hive_partitioning=false)"


def age_trigger(trained_at: datetime | None, now: datetime, params: AgeTrigger) -> Trigger:
    """Whether the champion is older than `max_days`; both times with their zone, None: there is no champion."""
    if not params.enabled:
        return _disabled("age")
    if trained_at is None:
        return _idle("age", "There is no champion whose age could be told.")
    age = now - trained_at
    days = age / timedelta(days=1)
    reason = f"The champion was trained {days:.1f} days ago; {params.max_days:g} are allowed."
    return Trigger("age", True, age > timedelta(days=params.max_days), reason, {"days": days})


def drift_trigger(
    inputs: Path,
    reference: Path,
    predictor: Predictor | None,
    params: DriftTrigger,
    seed: int,
    columns: Sequence[str],
) -> Trigger:
    """Recent inputs against the rows trained on.

    inputs      a Parquet or JSONL file, or a folder of them (`tasks.monitoring.input_log`)
    reference   train.parquet of the splits
    predictor   the champion, whose labels on both are compared; None: texts alone are
    columns     the problem's input columns, all of them texts
    The verdict depends on the seed, not on the order of rows.
    """
    if not params.enabled:
        return _disabled("drift")
    if not inputs.exists():
        return _idle(
            "drift",
            f"No inputs were logged yet: there is no {inputs}; `ratchet predict --log` writes them.",
        )
    if not reference.exists():
        return _idle("drift", f"Nothing was trained on yet: there is no {reference}.")
    trained, recent = _read_trained(reference, columns), read_inputs(inputs, columns)
    numbers: dict[str, Any] = {"reference_rows": len(trained), "recent_rows": len(recent)}
    wanted = max(params.min_rows, LEAST_ROWS)
    if len(recent) < wanted or len(trained) < LEAST_ROWS:
        found = f"{len(recent)} recent inputs of {wanted} that it takes, {len(trained)} training rows of {LEAST_ROWS}"
        return _idle("drift", f"Too few rows to tell drift: {found}.", numbers)
    draw = np.random.default_rng(seed)
    before, now = (draw_rows(rows, params.max_rows, draw) for rows in (trained, recent))
    tests = _compare(before, now, predictor, draw)
    adjusted = dict(
        zip((test.name for test in tests), holm([test.p_value for test in tests]), strict=True)
    )
    shifted = [
        test
        for test in tests
        if adjusted[test.name] <= params.significance and test.effect >= params.min_effect
    ]
    numbers["tests"] = {
        test.name: {**_plain(test), "adjusted_p": adjusted[test.name]} for test in tests
    }
    said = ", ".join(
        f"{test.name.replace('_', ' ')} (effect {test.effect:.2f}, p {adjusted[test.name]:.2g})"
        for test in shifted or tests
    )
    reason = (
        f"{len(recent)} recent inputs {'differ' if shifted else 'do not differ'} from the training rows in {said}; "
        f"an effect of {params.min_effect:g} with p {params.significance:g} counts."
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
) -> list[DriftTest]:
    old, new = (
        ["\n".join(values) for values in zip(*rows.to_pydict().values(), strict=True)]
        for rows in (before, now)
    )
    tests = [
        length_test(old, new),
        vocabulary_test(old, new, draw),
        classifier_test(old, new, draw),
    ]
    if predictor is not None and predictor.problem.label_column is not None:
        name = predictor.problem.predicted_labels
        old, new = (
            [
                label
                for one in predictor.predict(rows.to_pydict())
                for label in name(one) or ["(none)"]
            ]
            for rows in (before, now)
        )
        tests.append(label_test(old, new))
    return tests


def _plain(test: DriftTest) -> dict[str, Any]:
    return {name: value for name, value in asdict(test).items() if name != "name"}


def performance_trigger(
    labelled: Path | None,
    predictor: Predictor | None,
    registered: float | None,
    params: PerformanceTrigger,
    seed: int,
) -> Trigger:
    """The champion's metric on rows that were labelled since, against what it was registered with.

    labelled     CSV, TSV, JSONL or Parquet with the problem's columns
    registered   the champion's metric on the test rows; None, as the predictor: there is no champion
    Fires where even the upper bound of the metric's 95% interval is more than `max_fall` below.
    Raises DataError naming the rows whose label the champion does not know.
    """
    if not params.enabled:
        return _disabled("performance")
    if predictor is None or registered is None:
        return _idle("performance", "There is no champion to measure.")
    if labelled is None:
        return _idle(
            "performance",
            "No file of freshly labelled rows is named in `retrain.performance.labelled`.",
        )
    if not labelled.exists():
        return _idle("performance", f"No rows were labelled yet: there is no {labelled}.")
    outputs, references = _outputs_and_references(labelled, predictor)
    if len(references) < params.min_rows:
        reason = f"Too few rows to measure the champion: {len(references)} labelled of {params.min_rows} that it takes."
        return _idle("performance", reason, {"rows": len(references)})
    metric = predictor.problem.metric
    interval = metric_intervals(
        predictor.problem, outputs, references, predictor.info.labels, Resampling(seed=seed)
    )[metric]
    least = registered - params.max_fall
    reason = (
        f"The champion's {metric} on {len(references)} freshly labelled rows is {interval['value']:.3f}, at most {interval['high']:.3f} "
        f"(95% interval); it was registered with {registered:.3f}, and {least:.3f} is allowed."
    )
    numbers = {
        "rows": len(references),
        "metric": metric,
        "registered": registered,
        "least": least,
        **interval,
    }
    return Trigger("performance", True, interval["high"] < least, reason, numbers)


def _outputs_and_references(labelled: Path, predictor: Predictor) -> tuple[Floats, Array]:
    problem, labels = predictor.problem, predictor.info.labels
    features: Features = {}
    unknown: list[tuple[str | None, int]] = []  # label, number of its row
    count = 0
    for batch in read_batches(labelled, problem.columns, problem):
        columns = batch.inputs.to_pydict()
        given = columns[problem.label_column] if problem.label_column in problem.columns else []
        unknown += [
            (label, count + i)
            for i, found in enumerate(given, 1)
            for label in several(found)
            if label not in labels
        ]
        count += batch.inputs.num_rows
        if not unknown:
            rows = {
                name: ["" if value is None else value for value in columns[name]]
                for name in problem.columns
            }
            for name, values in problem.encode(predictor.tokenizer, rows, labels).items():
                features.setdefault(name, []).extend(values)
    if unknown:
        raise _unknown_labels(labelled, unknown, labels)
    return (
        (predictor.outputs_of_features(features), problem.references(features))
        if features
        else (np.empty(0, np.float32), np.empty(0))
    )


def _unknown_labels(
    labelled: Path, unknown: Sequence[tuple[str | None, int]], labels: Sequence[str]
) -> DataError:
    """unknown   (label, number of its row from 1)."""
    places = []
    for label, count in Counter(label for label, _ in unknown).most_common(_NAMED):
        rows = [str(row) for other, row in unknown if other == label][:_NAMED]
        more = ", …" if count > len(rows) else ""
        places.append(
            f"{'(none)' if label is None else repr(label)} ({'row' if count == 1 else 'rows'} {', '.join(rows)}{more})"
        )
    return DataError(
        f"{labelled}: {_rows(len(unknown))} with a label that the champion does not know: {', '.join(places)}. "
        f"It knows {', '.join(labels)}.",
        "Mend or remove these rows; a new label needs a training with it in `labels` of params.yaml.",
    )


def _disabled(name: str) -> Trigger:
    return Trigger(name, False, False, f"Not asked for: `retrain.{name}.enabled` is false.")


def _idle(name: str, reason: str, numbers: dict[str, Any] | None = None) -> Trigger:
    """A trigger that lacks what it needs."""
    return Trigger(name, True, False, reason, numbers or {})


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
