"""Slices: groups of test rows that share a value, evaluated one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

QUANTILES = 4  # slices of a numeric column
MAX_DISTINCT = 20  # a numeric column with more distinct values than this is cut by quantile
MAX_VALUES = 200  # most frequent values of a column with a slice each; the rest share one slice


@dataclass(frozen=True)
class Slice:
    """Rows with one value, or a range of values, in a column."""

    column: str
    value: str
    rows: Numbers


def slice_rows(
    column: str, values: Sequence[Any], order: Sequence[str] | None = None
) -> list[Slice]:
    """Slice the rows by value, or by quartile if the column is numeric with many distinct values.

    Every row is in exactly one slice, except that a row whose value is a list is in the slice of
    each of its items.

    order  values to list first, in this order
    """
    numbers = _numbers(values)
    if numbers is not None and len(np.unique(numbers)) > MAX_DISTINCT:
        return _by_quantile(column, numbers)
    if any(isinstance(value, (list, tuple)) for value in values):
        return _by_item(column, values, order or ())
    texts = np.asarray(
        ["(none)" if _is_missing(value) else str(value) for value in values], dtype=object
    )
    distinct, counts = np.unique(texts.astype(str), return_counts=True)
    frequent = {str(value) for value in distinct[np.argsort(-counts, kind="stable")][:MAX_VALUES]}
    first = order or ()
    names = [name for name in first if name in frequent] + sorted(frequent - set(first))
    slices = [Slice(column, name, np.flatnonzero(texts == name)) for name in names]
    rest = np.flatnonzero([text not in frequent for text in texts])
    if len(rest):
        slices.append(Slice(column, f"({len(distinct) - len(frequent)} other values)", rest))
    return slices


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
    bins = np.digitize(numbers, edges, right=True)
    slices = []
    for number in np.unique(bins):
        rows = np.flatnonzero(bins == number)
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
