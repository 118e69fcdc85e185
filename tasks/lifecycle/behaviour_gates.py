"""Pass rates of behavioural tests, and the first failures of each.

A test that any constant model passes shows nothing, so the kinds of test to which the model gives a
single answer are marked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.ragged import stack_rows
from tasks.inference.calibration import Calibration
from tasks.inference.session import take_rows
from tasks.reports.stage_reports import BehaviourReport
from tasks.scoring.statistics.chance import is_constant

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Columns, Floats
    from tasks.inference.decoder import Decoder
    from tasks.scoring.behaviour import BehaviourTest
    from tasks.scoring.scorer import Scorer

Decode = Callable[["Floats", "Columns"], list[dict[str, Any]]]
MAX_EXAMPLES = 5  # failures kept per behavioural test


def row_sets(test: BehaviourTest) -> list[Columns]:
    """The rows of a test whose outputs `judge_behaviour` needs, in this order."""
    return [test.rows] if test.against is None else [test.rows, test.against]


def judge_behaviour(
    scorer: Scorer,
    decoder: Decoder,
    decode: Decode,
    tests: Sequence[BehaviourTest],
    outputs: Sequence[Floats],
    calibration: Calibration,
) -> list[BehaviourReport]:
    """Each test's pass rate, first failures, and whether its kind of test gets a single answer.

    decode   `decoder.decode` with all but the outputs and rows filled in
    outputs  one entry for each of `row_sets` of each test, in order
    """
    remaining = iter(outputs)
    outputs_by_test = [(test, [next(remaining) for _ in row_sets(test)]) for test in tests]
    rows_by_kind: dict[str, list[Floats]] = {}
    for test, test_outputs in outputs_by_test:
        rows_by_kind.setdefault(test.kind, []).extend(
            row for rows in test_outputs for row in calibration.decide(rows)
        )
    one_answer = {
        kind: is_constant(scorer, stack_rows(rows)) for kind, rows in rows_by_kind.items()
    }

    def brief(outputs: Floats, rows: Columns, failed: Array) -> list[dict[str, Any]]:
        predictions = decode(outputs[failed], take_rows(rows, failed)) if len(failed) else []
        return [_brief(decoder, prediction) for prediction in predictions]

    return [
        _judge(test, test_outputs, calibration, brief, one_answer[test.kind])
        for test, test_outputs in outputs_by_test
    ]


def _judge(
    test: BehaviourTest,
    outputs: Sequence[Floats],
    calibration: Calibration,
    brief: Callable[[Floats, Columns, Array], list[dict[str, Any]]],
    one_answer: bool,
) -> BehaviourReport:
    after, before = outputs[0], outputs[1] if test.against is not None else None
    passed = test.passes(
        calibration.decide(after), None if before is None else calibration.decide(before)
    )
    failed = np.flatnonzero(~passed)[:MAX_EXAMPLES]
    predictions_before: Sequence[Mapping[str, Any] | None] = [None] * len(failed)
    if before is not None and test.against is not None:
        predictions_before = brief(before, test.against, failed)
    examples = [
        {
            "before": None if test.against is None else _row(test.against, row),
            "after": _row(test.rows, row),
            "prediction_before": prediction_before,
            "prediction_after": prediction,
        }
        for row, prediction, prediction_before in zip(
            failed, brief(after, test.rows, failed), predictions_before, strict=True
        )
    ]
    return BehaviourReport(
        name=test.name,
        kind=test.kind,
        rows=len(passed),
        passed=int(passed.sum()),
        pass_rate=float(passed.mean()),
        examples=examples,
        one_answer=one_answer,
    )


def _row(rows: Columns, row: int) -> dict[str, Any]:
    return {name: values[row] for name, values in rows.items()}


def _brief(decoder: Decoder, prediction: Mapping[str, Any]) -> dict[str, Any]:
    short = {
        name: value for name, value in prediction.items() if not isinstance(value, (dict, list))
    }
    return short or {"prediction": decoder.describe(prediction)}
