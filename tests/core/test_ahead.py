from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tasks.core.prefetch import map_ahead


def test_results_come_in_order_and_no_more_items_are_taken_than_are_under_way() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    def slow_first(number: int) -> int:
        time.sleep(0.01 if number % 2 == 0 else 0)  # of each two, the second finishes first
        return number

    results = []
    for result in map_ahead(slow_first, items(), 3):
        results.append(result)
        assert len(taken) <= len(results) + 3
    assert results == list(range(20))


def test_what_fails_is_raised_where_its_result_would_be() -> None:
    results = map_ahead(lambda number: 1 // (2 - number), range(5), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
