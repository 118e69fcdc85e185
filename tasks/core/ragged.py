"""Outputs of rows with different lengths, as one array padded with NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tasks.core.arrays import Floats


def gather(parts: Sequence[Floats], places: Sequence[npt.NDArray[np.int64]]) -> Floats:
    """Reassemble the rows of several batches, padding every axis but the first to the longest.

    parts   one array per batch
    places  row indices of each batch; together a permutation of 0 to n - 1
    """
    shape = np.max([part.shape[1:] for part in parts], axis=0).astype(int).tolist()
    padded = np.full((sum(map(len, places)), *shape), np.nan, np.float32)
    for part, rows in zip(parts, places, strict=True):
        corner: Any = (rows, *(slice(size) for size in part.shape[1:]))
        padded[corner] = part
    return padded


def stack_rows(rows: Sequence[Floats]) -> Floats:
    """Stack rows of different shapes into one array, in order."""
    return gather([row[None] for row in rows], [np.asarray([i]) for i in range(len(rows))])


def is_finite(outputs: Floats) -> bool:
    """Whether a model's outputs are finite, apart from padding.

    Padding is a position that is NaN throughout, and never a row's first; outputs with fewer than
    three axes have none.
    """
    if outputs.ndim < 3:
        return bool(np.isfinite(outputs).all())
    positions = outputs.reshape(*outputs.shape[:2], -1)
    finite, missing = np.isfinite(positions).all(-1), np.asarray(np.isnan(positions).all(-1))
    return bool((finite | missing).all() and not missing[:, 0].any())


def largest_difference(outputs: Floats, others: Floats) -> float:
    """Largest absolute difference of two models' outputs for the same rows.

    Infinite if their shapes or their NaN positions differ.
    """
    missing = np.isnan(outputs)
    if outputs.shape != others.shape or not np.array_equal(missing, np.isnan(others)):
        return float("inf")
    return float(np.abs(outputs - others)[~missing].max(initial=0.0))


def pad_to_common_shape(outputs: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Pad both arrays with NaN to a common shape, so that they can be compared."""
    shape = np.maximum(outputs.shape, others.shape)
    padded_outputs, padded_others = (
        np.pad(array, [(0, int(extra)) for extra in shape - array.shape], constant_values=np.nan)
        for array in (outputs, others)
    )
    return padded_outputs, padded_others
