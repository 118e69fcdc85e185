"""Rows in numbers, for the report: labels, lengths, sources and further columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.core.label_lists import flat
from tasks.core.loaded import FILE, LINE
from tasks.core.personal_data import mask

_BINS = 20
_TOP = 20  # values of a column


def profile(rows: pa.Table, texts: Sequence[str], label: str | None, columns: Sequence[str]) -> dict[str, Any]:
    """Plain JSON.

    texts     names of the text columns
    columns   names of all columns that the problem wants; the others are counted by value
    """
    extras = [name for name in rows.column_names if name not in {*columns, "row", FILE, LINE}]
    return {
        "rows": len(rows),
        "labels": None if label is None else _counts(flat(rows[label]), len(rows)),
        "lengths": {name: _lengths(rows[name]) for name in texts},
        "files": _counts(rows[FILE], len(rows)) if FILE in rows.column_names else {},
        "columns": {name: _extra(rows[name]) for name in extras},
    }


def _counts(column: pa.ChunkedArray, top: int, show: Callable[[str], str] = str) -> dict[str, int]:
    """value -> rows, most frequent first."""
    pairs = [(show(str(entry["values"])), int(entry["counts"])) for entry in pc.value_counts(column).to_pylist()]
    counts: dict[str, int] = {}
    for value, count in sorted(pairs, key=lambda pair: (-pair[1], pair[0])):
        if value in counts or len(counts) < top:
            counts[value] = counts.get(value, 0) + count
    return counts


def _extra(column: pa.ChunkedArray) -> dict[str, Any]:
    if pa.types.is_nested(column.type):
        return {"distinct": None, "nulls": column.null_count, "top": {}}
    return {"distinct": pc.count_distinct(column).as_py(), "nulls": column.null_count, "top": _counts(column, _TOP, mask)}


def _lengths(column: pa.ChunkedArray) -> dict[str, Any]:
    """Characters a text: `counts[i]` texts are in [`edges[i]`, `edges[i + 1]`); the last bin takes all that are longer."""
    lengths = pc.utf8_length(column.drop_null()).to_numpy()
    if not len(lengths):
        return {"mean": None, "percentiles": {}, "edges": [], "counts": []}
    percentiles = {f"p{p}": int(np.percentile(lengths, p, method="lower")) for p in (0, 5, 25, 50, 75, 95, 99, 100)}
    # a few very long texts must not squeeze the others into one bin
    width = max(1, -(-(percentiles["p99"] + 1) // _BINS))
    counts = np.bincount(np.minimum(lengths // width, _BINS - 1), minlength=_BINS)
    return {
        "mean": round(float(lengths.mean()), 2),
        "percentiles": percentiles,
        "edges": [i * width for i in range(_BINS)] + [max(_BINS * width, percentiles["p100"] + 1)],
        "counts": counts.tolist(),
    }
