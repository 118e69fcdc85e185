"""Pass rates of behavioural tests, and the first failures of each.

A test that any constant model passes shows nothing: the kinds of test to whose rows the model gives one answer are marked so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.ragged import stack_rows
from tasks.inference.calibration import Calibration
from tasks.scoring.statistics.chance import gives_one_answer

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Columns, Floats
    from tasks.problems.base import BehaviourTest, Problem

MAX_EXAMPLES = 5  # failures of a behavioural test that are kept


def row_sets(test: BehaviourTest) -> list[Columns]:
    """The rows whose outputs `judge_behaviour` wants of a test, in this order."""
    return [test.rows] if test.against is None else [test.rows, test.against]


def judge_behaviour(
    problem: Problem,
    labels: Sequence[str],
    tests: Sequence[BehaviourTest],
    outputs: Sequence[Floats],
    calibration: Calibration,
) -> list[dict[str, Any]]:
    """Every test's pass rate and first failures, and whether the model says one thing to all rows of tests of its kind.

    outputs  of each of `row_sets` of each test, one after the other
    """
    computed = iter(outputs)
    answered = [(test, [next(computed) for _ in row_sets(test)]) for test in tests]
    rows_by_kind: dict[str, list[Floats]] = {}
    for test, given in answered:
        rows_by_kind.setdefault(test.kind, []).extend(
            row for rows in given for row in calibration.decide(rows)
        )
    alike = {
        kind: gives_one_answer(problem, stack_rows(rows)) for kind, rows in rows_by_kind.items()
    }
    return [
        {**_judge(problem, labels, test, given, calibration), "one_answer": alike[test.kind]}
        for test, given in answered
    ]


def _judge(
    problem: Problem,
    labels: Sequence[str],
    test: BehaviourTest,
    outputs: Sequence[Floats],
    calibration: Calibration,
) -> dict[str, Any]:
    after, before = outputs[0], outputs[1] if test.against is not None else None
    passed = test.passes(
        calibration.decide(after), None if before is None else calibration.decide(before)
    )
    failed = np.flatnonzero(~passed)[:MAX_EXAMPLES]
    predictions = (
        problem.decode(after[failed], _some(test.rows, failed), labels, calibration)
        if len(failed)
        else []
    )
    predictions_before: Sequence[Mapping[str, Any] | None] = [None] * len(failed)
    if before is not None and test.against is not None and len(failed):
        predictions_before = problem.decode(
            before[failed], _some(test.against, failed), labels, calibration
        )
    examples = [
        {
            "before": None if test.against is None else _row(test.against, row),
            "after": _row(test.rows, row),
            "prediction_before": _brief(problem, prediction_before),
            "prediction_after": _brief(problem, prediction),
        }
        for row, prediction, prediction_before in zip(
            failed, predictions, predictions_before, strict=True
        )
    ]
    rates = {"rows": len(passed), "passed": int(passed.sum()), "pass_rate": float(passed.mean())}
    return {"name": test.name, "kind": test.kind, **rates, "examples": examples}


def _some(rows: Columns, places: Array) -> Columns:
    return {name: [values[place] for place in places] for name, values in rows.items()}


def _row(rows: Columns, row: int) -> dict[str, Any]:
    return {name: values[row] for name, values in rows.items()}


def _brief(problem: Problem, prediction: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if prediction is None:
        return None
    short = {
        name: value for name, value in prediction.items() if not isinstance(value, (dict, list))
    }
    return short or {"prediction": problem.say(prediction)}
