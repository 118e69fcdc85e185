"""Rows set aside, with why: nothing leaves the data silently."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tasks.data.tables.loaded import FILE, LINE

_OURS = ("row", FILE, LINE)


def set_aside(
    rows: pa.Table, indices: Sequence[int], reasons: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One entry for each of `indices`: where the row came from, its reason's fields, then its values; fit for JSON.

    reasons   as many as indices; at least `check` and `reason`
    """
    taken = rows.take(pa.array(indices, pa.int64())).to_pylist()
    return [
        place_of(row) | dict(reason) | {"values": _values(row)}
        for row, reason in zip(taken, reasons, strict=True)
    ]


def place_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Where a row came from."""
    return {"row": row.get("row"), "file": row.get(FILE), "line": row.get(LINE)}


def say_place(place: Mapping[str, Any]) -> str:
    """'reviews.csv line 12', or 'row 11' where the file is not known."""
    if place.get("file") is None or place.get("line") is None:
        return f"row {place.get('row')}"
    return f"{place['file']} line {place['line']}"


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    # JSON has no NaN
    values = {name: value for name, value in row.items() if name not in _OURS}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
