"""Alpha spending: looks at the same test rows together stay within the significance."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.scoring.statistics.alpha_spending import (
    SKETCH,
    fingerprint_rows,
    level_of_look,
    next_look,
    overlap,
    sketch_rows,
)


def test_the_levels_of_any_number_of_looks_stay_within_the_significance() -> None:
    levels = [level_of_look(0.05, look) for look in range(1, 20_001)]
    assert levels == sorted(levels, reverse=True)
    assert 0.99 * 0.05 < sum(levels) < 0.05


def test_rows_are_the_same_in_any_order_and_repeated() -> None:
    positions = np.random.default_rng(0).random(500)
    assert sketch_rows(positions) == sketch_rows(np.concatenate([positions[::-1], positions]))
    assert fingerprint_rows(positions) == fingerprint_rows(positions[::-1])
    assert fingerprint_rows(positions) != fingerprint_rows(positions[1:])
    assert len(sketch_rows(positions)) == SKETCH


@pytest.mark.parametrize("rows", [40, 4000])
def test_overlap_is_the_share_of_present_rows_that_judged_before(rows: int) -> None:
    draw = np.random.default_rng(1)
    old, new = draw.random(rows), draw.random(rows)
    tolerance = 1e-9 if rows < SKETCH else 0.15
    for present, past, share in (
        (old, old, 1),
        (old, new, 0),
        (np.concatenate([old, new]), old, 0.5),
        (old, np.concatenate([old, new]), 1),
    ):
        estimate = overlap(sketch_rows(present), sketch_rows(past))
        assert estimate == pytest.approx(share, abs=tolerance)


def test_each_judgement_by_the_same_rows_is_one_look_more() -> None:
    draw = np.random.default_rng(2)
    same, other = sketch_rows(draw.random(900)), sketch_rows(draw.random(900))
    assert next_look(same, []) == 1
    assert next_look(same, [other, other]) == 1
    assert next_look(same, [same, other, same]) == 3
    assert overlap([], same) == overlap(same, []) == 0
