"""Repair Windows-1252 characters decoded as Latin-1: U+0096 becomes the dash of byte 0x96.

C1 controls (U+0080 to U+009F) have no use in texts. They are repaired where their origin is
certain: the byte is defined in Windows-1252 and is not part of a UTF-8 sequence. Any other text
is unchanged, and validation sets it aside.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.quality.row_account import PLACES, Loss
from tasks.data.tables.loaded import FILE, LINE
from tasks.data.tables.quarantine import say_place

_REASON = "control characters (U+0080 to U+009F) were Windows-1252 read as Latin-1"
_C1 = r"[\x{80}-\x{9f}]"  # pyarrow's syntax
_LEAD = 0xC2  # first byte of every C1 control in UTF-8
_UNDEFINED = re.compile("[\x81\x8d\x8f\x90\x9d]")  # in Windows-1252
_UTF8 = re.compile("[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def mend_text(text: str) -> str:
    """Repair a text; unchanged if its origin is not certain. The length stays the same."""
    from ftfy.fixes import fix_c1_controls

    return text if _UNDEFINED.search(text) or _UTF8.search(text) else fix_c1_controls(text)


class Mender:
    """Repairs batches of rows and counts the repaired ones; leaves the columns `skip` unchanged."""

    def __init__(self, skip: Collection[str]) -> None:
        self._skip = skip
        self._places: list[str] = []
        self._mended_rows = self._total_rows = 0

    def mend(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Repair all texts of the rows, including those in lists and structures."""
        changed = np.zeros(rows.num_rows, bool)
        columns = list(rows.columns)
        for number, (field, column) in enumerate(zip(rows.schema, rows.columns, strict=True)):
            if field.name not in self._skip and _may_hold_c1(column):
                old = column.to_pylist()
                new = [_mend(value) for value in old]
                columns[number] = pa.array(new, field.type)
                differs = [a != b for a, b in zip(old, new, strict=True)]
                changed |= np.array(differs, bool)
        rows = pa.RecordBatch.from_arrays(columns, schema=rows.schema)
        self._count(rows, np.flatnonzero(changed))
        return rows

    def _count(self, rows: pa.RecordBatch, changed: npt.NDArray[np.int64]) -> None:
        origin = [name for name in (FILE, LINE) if name in rows.schema.names]
        for i in changed[: PLACES - len(self._places)].tolist():
            place = {name.removeprefix("_"): rows[name][i].as_py() for name in origin}
            self._places.append(say_place(place | {"row": self._total_rows + i}))
        self._mended_rows += len(changed)
        self._total_rows += rows.num_rows

    @property
    def mended(self) -> Loss | None:
        """The repaired rows; None if there were none."""
        if not self._mended_rows:
            return None
        return Loss("ingest", _REASON, self._mended_rows, tuple(self._places))


def _mend(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else mend_text(value)
    if isinstance(value, list):
        return [_mend(item) for item in value]
    return {key: _mend(item) for key, item in value.items()} if isinstance(value, dict) else value


def _may_hold_c1(column: pa.Array) -> bool:
    return any(
        bool((np.frombuffer(leaf.buffers()[2] or b"", np.uint8) == _LEAD).any())
        and bool(pc.any(pc.match_substring_regex(leaf, _C1)).as_py())
        for leaf in _texts(column)
    )


def _texts(column: pa.Array) -> Iterator[pa.Array]:
    """All arrays of texts in a column, at any depth."""
    types, arrow_type = pa.types, column.type
    if types.is_string(arrow_type) or types.is_large_string(arrow_type):
        yield column
    elif (
        types.is_list(arrow_type)
        or types.is_large_list(arrow_type)
        or types.is_fixed_size_list(arrow_type)
    ):
        yield from _texts(column.flatten())
    elif types.is_struct(arrow_type):
        for child in column.flatten():
            yield from _texts(child)
