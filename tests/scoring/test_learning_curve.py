"""The learning curve: what the last doubling of the training rows gained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.problems import load_problem
from tasks.reports.stage_reports import LearningCurveReport
from tasks.scoring.learning_curve import LEAST_ROWS, learning_curve
from tasks.training.label_names import NAMED
from tasks.training.logistic import solve_classes

SCORING = load_problem("text-classification").scoring
CLASSES, LABELS = 6, tuple("abcdef")


def drawn(rows: int, spread: float, seed: int) -> tuple[Any, Any]:
    centres = np.random.default_rng(0).normal(size=(CLASSES, 10))
    labels = np.arange(rows) % CLASSES
    noise = np.random.default_rng(seed).normal(size=(rows, 10))
    return (centres[labels] + spread * noise).astype(np.float32), labels


def curve_of(rows: int, spread: float, named: int = 0, seed: int = 0) -> LearningCurveReport | None:
    vectors, classes = drawn(rows, spread, 1)
    numbers = np.arange(rows)
    numbers[rows - named :] = NAMED
    return learning_curve(
        (vectors, classes, numbers), drawn(2_000, spread, 2), SCORING, LABELS, None, seed
    )


def test_rows_that_still_pay_and_rows_that_no_longer_do() -> None:
    few, many = curve_of(24, 1.0), curve_of(3_000, 0.6)
    assert few is not None
    assert many is not None
    assert few.gain["low"] > 0
    assert many.gain["low"] <= 0 <= many.gain["high"] < 0.03
    for curve in (few, many):
        assert curve.gain["low"] <= curve.gain["value"] <= curve.gain["high"]
        assert curve.gain["value"] == pytest.approx(curve.full - curve.half)
    assert curve_of(24, 1.0) == few


def test_halves_share_no_row_but_the_names_and_hold_every_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[set[bytes]] = []
    vectors, classes = drawn(42, 1.0, 1)
    numbers = np.arange(42)
    numbers[36:] = NAMED

    def solve(rows: Any, of_rows: Any, *others: Any) -> Any:
        seen.append({row.tobytes() for row in rows})
        assert set(of_rows.tolist()) == set(range(CLASSES))
        return solve_classes(rows, of_rows, *others)

    monkeypatch.setattr("tasks.scoring.learning_curve.solve_classes", solve)
    found = learning_curve((vectors, classes, numbers), drawn(60, 1.0, 2), SCORING, LABELS, None, 0)
    whole, first, second = seen
    assert found is not None
    assert found.rows == 36
    assert first | second == whole
    assert first & second == {row.tobytes() for row in vectors[36:]}


def test_too_few_rows_say_nothing() -> None:
    assert curve_of(LEAST_ROWS + 5, 1.0, named=6) is None
    # of one row a class, a half lacks every other class
    vectors, classes = drawn(20, 1.0, 1)
    labels = tuple(f"label {i}" for i in range(20))
    training = vectors, np.arange(20), np.arange(20)
    assert learning_curve(training, (vectors, classes), SCORING, labels, None, 0) is None
