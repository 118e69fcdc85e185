"""The gates err no more often than they claim, on simulated models of known true accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from gate_simulation import PARAMS, claims_better, drift, lets_through, lets_through_subset

PAIRS = 1000


def test_equal_models_are_called_better_no_more_often_than_the_significance() -> None:
    assert claims_better(PAIRS, seed=0) <= PARAMS.significance


def test_retrying_on_the_same_rows_does_not_raise_the_rate() -> None:
    pairs = PAIRS // 4
    standard_error = np.sqrt(0.05 * 0.95 / pairs)
    assert claims_better(pairs, seed=1, looks=20) <= PARAMS.significance + 2 * standard_error


def test_a_model_that_is_truly_worse_by_the_margin_seldom_passes() -> None:
    worse = lets_through(PAIRS, seed=2, worse=PARAMS.margin)
    equal = lets_through(PAIRS // 4, seed=3, worse=0.0)
    assert worse <= PARAMS.significance
    assert equal > 5 * worse


@pytest.mark.parametrize("rows", [20, 50, 200, 800])
@pytest.mark.parametrize("look", [1, 10])
def test_few_rows_do_not_let_worse_models_through(rows: int, look: int) -> None:
    """The challenger is wrong on a margin's worth of rows and never right alone."""
    assert lets_through_subset(PAIRS // 2, seed=4, rows=rows, look=look) <= PARAMS.significance


def test_a_hundred_nights_of_small_losses_do_not_add_up() -> None:
    with_mark, without = (
        np.mean([drift(100, seed, high_water=mark) for seed in range(4)]) for mark in (True, False)
    )
    assert with_mark <= PARAMS.margin
    assert without > 3 * with_mark
