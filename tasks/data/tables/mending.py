"""Windows-1252 characters that were read as Latin-1, put right: U+0096 becomes the dash that byte 0x96 stood for.

The C1 controls (U+0080 to U+009F) have no use in texts. They are mended where it is certain what they were: bytes that Windows-1252
gives a meaning, and that are no part of what would be a character in UTF-8. Any other text stays as it is, and validation sets it aside.
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

_SAYS = "control characters (U+0080 to U+009F) were Windows-1252 read as Latin-1"
_C1 = r"[\x{80}-\x{9f}]"  # as pyarrow spells it
_LEAD = 0xC2  # the byte that every C1 control begins with in UTF-8
_UNDEFINED = re.compile("[\x81\x8d\x8f\x90\x9d]")  # in Windows-1252
_UTF8 = re.compile("[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def mend_text(text: str) -> str:
    """The text with what was Windows-1252; as it is where that is not certain. Its length stays the same."""
    from ftfy.fixes import fix_c1_controls

    return text if _UNDEFINED.search(text) or _UTF8.search(text) else fix_c1_controls(text)


class Mender:
    """Mends batches of rows and keeps count; the texts of the columns `skip` stay as they are."""

    def __init__(self, skip: Collection[str]) -> None:
        self._skip = skip
        self._places: list[str] = []
        self._rows = self._seen = 0

    def mend(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with all their texts mended, those in lists and structures too."""
        changed = np.zeros(rows.num_rows, bool)
        columns = list(rows.columns)
        for number, (field, column) in enumerate(zip(rows.schema, rows.columns, strict=True)):
            if field.name not in self._skip and _may_hold_c1(column):
                old = column.to_pylist()
                new = [_mend(value) for value in old]
                columns[number] = pa.array(new, field.type)
                changed |= np.fromiter(
                    (a != b for a, b in zip(old, new, strict=True)), bool, len(old)
                )
        rows = pa.RecordBatch.from_arrays(columns, schema=rows.schema)
        self._count(rows, np.flatnonzero(changed))
        return rows

    def _count(self, rows: pa.RecordBatch, changed: npt.NDArray[np.int64]) -> None:
        where = [name for name in (FILE, LINE) if name in rows.schema.names]
        for i in changed[: PLACES - len(self._places)].tolist():
            place = {name.removeprefix("_"): rows[name][i].as_py() for name in where}
            self._places.append(say_place(place | {"row": self._seen + i}))
        self._rows += len(changed)
        self._seen += rows.num_rows

    @property
    def mended(self) -> Loss | None:
        """The rows that were mended; None if there were none."""
        return Loss("ingest", _SAYS, self._rows, tuple(self._places)) if self._rows else None


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
    """The arrays of text in a column, at every depth."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield column
    elif (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        yield from _texts(column.flatten())
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _texts(child)
