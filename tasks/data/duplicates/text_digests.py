"""Which of many texts are the same, by their digests: they lie on disk, and a part of them is looked at at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.data.duplicates.normalization import Digests, digests

_PART = 250_000  # digests in memory together, nearly

_Numbers = npt.NDArray[np.int32]
_Mask = npt.NDArray[np.bool_]


class SameTexts:
    """Rows by their texts, which come some at a time; null counts as no characters."""

    def __init__(self, path: Path) -> None:
        """`path` is a file for the digests."""
        path.write_bytes(b"")
        self._path = path
        self._rows = 0

    def add(self, normalized: pa.ChunkedArray) -> None:
        """The texts of the next rows."""
        found = digests(normalized)
        with self._path.open("ab") as file:
            found.tofile(file)
        self._rows += len(found)

    def digests(self) -> Iterator[Digests]:
        """Of all rows in order, some at a time."""
        with self._path.open("rb") as file:
            while len(found := np.fromfile(file, np.uint64, 2 * _PART)):
                yield found.reshape(-1, 2)

    def number(self) -> tuple[_Numbers, _Numbers]:
        """(rows,) the number of each row's text, in an order that does not depend on the rows'; and (texts,) the first row of each."""
        numbers, first, texts = np.empty(self._rows, np.int32), [np.zeros(0, np.int32)], 0
        for rows, begins in self._by_text():
            numbers[rows] = texts + np.cumsum(begins, dtype=np.int32) - 1
            first.append(rows[begins])
            texts += len(first[-1])
        return numbers, np.concatenate(first)

    def repeated(self) -> tuple[_Numbers, _Numbers]:
        """The rows whose text others have too, ascending; and for each the first row that has it."""
        copies, originals = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
        for rows, begins in self._by_text():
            text = np.cumsum(begins) - 1
            several = np.bincount(text)[text] > 1
            copies.append(rows[several])
            originals.append(rows[begins][text[several]])
        found = np.concatenate(copies)
        order = np.argsort(found)
        return found[order], np.concatenate(originals)[order]

    def _by_text(self) -> Iterator[tuple[_Numbers, _Mask]]:
        """(rows, whether a text begins with each), part after part: the rows of a text come one after the other, in order."""
        parts = np.uint64(max(1, -(-self._rows // _PART)))
        high = np.uint64(32)
        for part in range(int(parts)):
            rows, found, done = [np.zeros(0, np.int32)], [np.zeros((0, 2), np.uint64)], 0
            for some in self.digests():
                here = np.flatnonzero((some[:, 0] >> high) * parts >> high == part)
                rows.append((here + done).astype(np.int32))
                found.append(some[here])
                done += len(some)
            texts = np.concatenate(found)
            order = np.lexsort((texts[:, 1], texts[:, 0]))
            ordered = texts[order]
            begins = np.ones(len(order), bool)
            begins[1:] = (ordered[1:] != ordered[:-1]).any(1)
            yield np.concatenate(rows)[order], begins
