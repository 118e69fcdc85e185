"""Quarantine entries: rows that are set aside, with the reason; no row is dropped silently."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tasks.data.tables.loaded import FILE, LINE

_ORIGIN = ("row", FILE, LINE)


def set_aside(
    rows: pa.Table, indices: Sequence[int], reasons: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One JSON-serializable entry per index: the row's origin, the reason's fields, its values.

    reasons   one per index; each has at least `check` and `reason`
    """
    records = rows.take(pa.array(indices, pa.int64())).to_pylist()
    return [
        place_of(row) | dict(reason) | {"values": _values(row)}
        for row, reason in zip(records, reasons, strict=True)
    ]


def place_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's origin: its number, file and line."""
    return {"row": row.get("row"), "file": row.get(FILE), "line": row.get(LINE)}


def say_place(place: Mapping[str, Any]) -> str:
    """'reviews.csv line 12', or 'row 11' if the file is unknown."""
    if place.get("file") is None or place.get("line") is None:
        return f"row {place.get('row')}"
    return f"{place['file']} line {place['line']}"


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    # JSON has no NaN
    values = {name: value for name, value in row.items() if name not in _ORIGIN}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
