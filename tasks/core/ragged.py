"""Outputs of rows that differ in length, as one array: a place that a row does not have is NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tasks.core.arrays import Floats


def gather(parts: Sequence[Floats], places: Sequence[npt.NDArray[np.int64]]) -> Floats:
    """The rows of several batches, each at its place; every axis but the first as long as the longest part's.

    places  for each part the numbers of its rows; together 0 to n - 1
    """
    shape = np.max([part.shape[1:] for part in parts], axis=0).astype(int).tolist()
    found = np.full((sum(map(len, places)), *shape), np.nan, np.float32)
    for part, rows in zip(parts, places, strict=True):
        corner: Any = (rows, *(slice(size) for size in part.shape[1:]))
        found[corner] = part
    return found


def stack_rows(rows: Sequence[Floats]) -> Floats:
    """Rows of different shapes as one array, in order."""
    return gather([row[None] for row in rows], [np.asarray([place]) for place in range(len(rows))])


def is_finite(outputs: Floats) -> bool:
    """Whether a model computed numbers: NaN alone is allowed, and only as a whole place other than a row's first."""
    if outputs.ndim < 3:
        return bool(np.isfinite(outputs).all())
    places = outputs.reshape(*outputs.shape[:2], -1)
    finite, missing = np.isfinite(places).all(-1), np.asarray(np.isnan(places).all(-1))
    return bool((finite | missing).all() and not missing[:, 0].any())


def largest_difference(outputs: Floats, others: Floats) -> float:
    """Of two models' outputs of the same rows; infinite where only one of them is a number."""
    missing = np.isnan(outputs)
    if outputs.shape != others.shape or not np.array_equal(missing, np.isnan(others)):
        return float("inf")
    return float(np.abs(outputs - others)[~missing].max(initial=0.0))


def as_wide(outputs: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Both of the same shape, so that they can be held against each other: NaN where only the other has places."""
    shape = np.maximum(outputs.shape, others.shape)
    ours, theirs = (
        np.pad(some, [(0, int(more)) for more in shape - some.shape], constant_values=np.nan)
        for some in (outputs, others)
    )
    return ours, theirs
