"""The gates err as seldom as they say, over simulated models whose true accuracy is known."""

from __future__ import annotations

import numpy as np
import pytest
from gate_simulation import PARAMS, claims_better, drift, lets_through, lets_through_subset

PAIRS = 1000


def test_equal_models_are_called_better_no_more_often_than_the_significance() -> None:
    assert claims_better(PAIRS, seed=0) <= PARAMS.significance


def test_retrying_on_the_same_rows_does_not_raise_the_rate() -> None:
    assert claims_better(PAIRS // 4, seed=1, looks=20) <= PARAMS.significance + 2 * np.sqrt(
        0.05 * 0.95 / (PAIRS // 4)
    )


def test_a_model_that_is_truly_worse_by_the_margin_seldom_passes() -> None:
    worse = lets_through(PAIRS, seed=2, worse=PARAMS.margin)
    equal = lets_through(PAIRS // 4, seed=3, worse=0.0)
    assert worse <= PARAMS.significance
    assert equal > 5 * worse


@pytest.mark.parametrize("rows", [20, 50, 200, 800])
@pytest.mark.parametrize("look", [1, 10])
def test_few_rows_do_not_let_worse_models_through(rows: int, look: int) -> None:
    """Of a model that is never alone right, and wrong on a margin's worth of rows."""
    assert lets_through_subset(PAIRS // 2, seed=4, rows=rows, look=look) <= PARAMS.significance


def test_a_hundred_nights_of_small_losses_do_not_add_up() -> None:
    with_mark, without = (
        np.mean([drift(100, seed, high_water=mark) for seed in range(4)]) for mark in (True, False)
    )
    assert with_mark <= PARAMS.margin
    assert without > 3 * with_mark
