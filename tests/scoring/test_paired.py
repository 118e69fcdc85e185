"""Paired statistics: symmetry, known values, agreement with each other, and coverage."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from tasks.problems import load_problem
from tasks.scoring.statistics import bootstrap
from tasks.scoring.statistics.bootstrap import Resampling
from tasks.scoring.statistics.draws import Draws
from tasks.scoring.statistics.paired import (
    Difference,
    accuracy_difference,
    discordant,
    format_p_value,
    holm,
    mcnemar,
    mcnemar_less,
    metric_differences,
)

SCORING = load_problem("text-classification").scoring
LABELS = ("negative", "neutral", "positive")


def two_models(rows: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(outputs, outputs of a somewhat worse model, references)."""
    draw = np.random.default_rng(seed)
    references = draw.integers(0, 3, rows)
    first = draw.normal(size=(rows, 3)).astype(np.float32)
    first[np.arange(rows), references] += 2
    return first, first + draw.normal(size=(rows, 3)).astype(np.float32), references


def test_a_model_against_itself_differs_by_nothing() -> None:
    outputs, _, references = two_models()
    pair = (outputs, outputs)
    differences = metric_differences(SCORING, pair, references, LABELS, Resampling(1000))
    for name, same in differences.items():
        assert (same.value, same.low, same.high, same.standard_error) == (0, 0, 0, 0), name
        assert same.p_value == 1
        assert same.lower_bound(0.01) == 0


def test_a_p_value_is_below_a_level_exactly_where_its_bound_is_above() -> None:
    draw = np.random.default_rng(0)
    verdicts = set()
    for _ in range(500):
        value, least = draw.normal(0, 0.02, 2)
        error, least_error = draw.choice([0, 0.005, 0.01], 2)
        level = draw.uniform(0.001, 0.2)
        difference = Difference(0.5 + value, 0.5, value, -1, 1, 0.5, error)
        is_shown = difference.lower_bound(level, least_error) > least
        assert (difference.p_above(least, least_error) < level) == is_shown
        verdicts.add((is_shown, error > least_error))
    assert len(verdicts) == 4


def test_swapping_the_models_swaps_the_signs() -> None:
    first, second, references = two_models()
    differences, swapped = (
        metric_differences(SCORING, pair, references, LABELS, Resampling(2000, seed=3))
        for pair in ((first, second), (second, first))
    )
    for name, difference in differences.items():
        other = swapped[name]
        negated = (-difference.value, -difference.high, -difference.low)
        assert (other.value, other.low, other.high) == pytest.approx(negated), name
        assert other.p_value == pytest.approx(difference.p_value)


def test_counts_give_the_interval_that_rows_give() -> None:
    first, second, references = two_models()
    right = [SCORING.correct(outputs, references) for outputs in (first, second)]
    resampling = Resampling(20_000)
    differences = metric_differences(SCORING, (first, second), references, LABELS, resampling)
    by_rows = differences["accuracy"]
    by_counts = accuracy_difference(right[0], right[1], resampling)
    assert astuple(by_counts)[:3] == pytest.approx(astuple(by_rows)[:3])
    assert (by_counts.low, by_counts.high) == pytest.approx((by_rows.low, by_rows.high), abs=0.004)
    assert by_counts.standard_error == pytest.approx(by_rows.standard_error, rel=0.03)


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    draw, covered, repeats = np.random.default_rng(5), 0, 600
    for repeat in range(repeats):
        difficulty = draw.beta(1.6, 0.4, 400)
        first, second = draw.random(400) < difficulty * 0.95, draw.random(400) < difficulty
        difference = accuracy_difference(first, second, Resampling(1000, seed=repeat))
        covered += difference.low <= -0.05 * 0.8 <= difference.high
    assert 0.92 <= covered / repeats <= 0.98


def test_mcnemar_is_the_exact_test() -> None:
    assert mcnemar(10, 2) == pytest.approx(0.03857421875)  # 2 * (1 + 12 + 66) / 2^12
    assert mcnemar(2, 10) == mcnemar(10, 2)
    assert mcnemar(0, 0) == mcnemar_less(0, 0) == 1
    assert mcnemar_less(2, 10) == pytest.approx(0.019287109375)
    assert mcnemar_less(10, 2) > 0.99
    first, second = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert discordant(first, second) == (1, 1)


def test_holm_is_the_published_procedure() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7]) == [0.7]


@pytest.mark.parametrize("clustered", [False, True])
def test_random_groups_of_many_rows_give_the_interval_that_rows_give(
    clustered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, references = two_models(rows=8000)
    clusters = np.arange(8000) // 4 if clustered else None
    monkeypatch.setattr(type(SCORING), "clusters", lambda self, references: clusters)
    differences = {}
    for units in (1000, 8000):
        monkeypatch.setattr(bootstrap, "MAX_UNITS", units)
        pair, resampling = (first, second), Resampling(4000)
        differences[units] = metric_differences(SCORING, pair, references, LABELS, resampling)
    for name, by_rows in differences[8000].items():
        by_groups = differences[1000][name]
        assert by_groups.value == by_rows.value
        # relative error of the width: 2.2% from 1,000 groups and twice 1.1% from 4,000 resamples,
        # together 2.7%; the tolerance is four times that
        assert by_groups.standard_error == pytest.approx(by_rows.standard_error, rel=0.11), name
        bounds, tolerance = (by_rows.low, by_rows.high), 0.25 * by_rows.standard_error
        assert (by_groups.low, by_groups.high) == pytest.approx(bounds, abs=tolerance), name


def test_sums_of_units_are_sums_of_their_rows() -> None:
    draw = np.random.default_rng(2)
    units, values = draw.integers(0, 7, 40), draw.normal(size=(40, 3))
    draws = Draws(draw.integers(0, 4, (5, 7)).astype(np.float64), units)
    alone = Draws(draws.of_rows())
    np.testing.assert_allclose(draws.sums(values), alone.sums(values))
    np.testing.assert_allclose(draws.sums(values[:, 0]), alone.sums(values)[:, 0])
    np.testing.assert_allclose(draws.sizes(), alone.sizes())


def test_a_small_p_value_is_not_said_to_be_none() -> None:
    expected = {1.0: "1.0000", 0.0123: "0.0123", 0.00005: "0.0001"}
    expected |= {0.00004: "<0.0001", 0.0: "<0.0001"}
    assert {p_value: format_p_value(p_value) for p_value in expected} == expected
