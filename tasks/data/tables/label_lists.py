"""Columns of classes: one class or a list of classes per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def several(value: Any) -> Sequence[Any]:
    """The classes of one row as a sequence."""
    return value if isinstance(value, (list, tuple)) else [value]


def is_list(column: pa.ChunkedArray) -> bool:
    """Whether the column holds lists of classes."""
    return bool(pa.types.is_list(column.type) or pa.types.is_large_list(column.type))


def flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The classes of all rows, concatenated."""
    return pc.list_flatten(column) if is_list(column) else column
