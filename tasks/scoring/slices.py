"""Parts of the test rows to look at one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

QUANTILES = 4  # parts that numbers are cut into
MAX_DISTINCT = 20  # numbers with more values than this are cut
MAX_VALUES = 200  # of a column, the most frequent; the rest is one slice


@dataclass(frozen=True)
class Slice:
    """Rows that have one value, or a range of values, in a column."""

    column: str
    value: str
    rows: Numbers


def slice_rows(
    column: str, values: Sequence[Any], order: Sequence[str] | None = None
) -> list[Slice]:
    """Every row in exactly one slice; by value, or by quartile where the values are many numbers.

    A row whose value is a list is in the slice of each of its items.

    order  values to put first, in this order
    """
    numbers = _numbers(values)
    if numbers is not None and len(np.unique(numbers)) > MAX_DISTINCT:
        return _by_quantile(column, numbers)
    if any(isinstance(value, (list, tuple)) for value in values):
        return _by_item(column, values, order or ())
    texts = np.asarray(
        ["(none)" if _is_missing(value) else str(value) for value in values], dtype=object
    )
    found, counts = np.unique(texts.astype(str), return_counts=True)
    frequent = {str(value) for value in found[np.argsort(-counts, kind="stable")][:MAX_VALUES]}
    names = [name for name in (order or ()) if name in frequent] + sorted(
        frequent - set(order or ())
    )
    slices = [Slice(column, name, np.flatnonzero(texts == name)) for name in names]
    rest = np.flatnonzero([text not in frequent for text in texts])
    return (
        [*slices, Slice(column, f"({len(found) - len(frequent)} other values)", rest)]
        if len(rest)
        else slices
    )


def _by_item(column: str, values: Sequence[Any], order: Sequence[str]) -> list[Slice]:
    rows: dict[str, list[int]] = {}
    for row, items in enumerate(values):
        for item in dict.fromkeys(items or ["(none)"]):
            rows.setdefault(str(item), []).append(row)
    frequent = sorted(rows, key=lambda name: (-len(rows[name]), name))[:MAX_VALUES]
    names = [name for name in order if name in frequent] + sorted(set(frequent) - set(order))
    return [Slice(column, name, np.asarray(rows[name], np.int64)) for name in names]


def _by_quantile(column: str, numbers: npt.NDArray[np.float64]) -> list[Slice]:
    edges = np.unique(
        np.quantile(numbers, np.arange(1, QUANTILES) / QUANTILES, method="inverted_cdf")
    )
    part = np.digitize(numbers, edges, right=True)
    slices = []
    for number in np.unique(part):
        rows = np.flatnonzero(part == number)
        low, high = numbers[rows].min(), numbers[rows].max()
        slices.append(Slice(column, f"{low:g}" if low == high else f"{low:g} to {high:g}", rows))
    return slices


def _numbers(values: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    if any(
        not isinstance(value, Real) or isinstance(value, bool) or _is_missing(value)
        for value in values
    ):
        return None
    return np.asarray(values, np.float64)


def _is_missing(value: object) -> bool:
    return value is None or value != value
