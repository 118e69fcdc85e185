"""Finds equal texts among many by their digests, which lie on disk and are read in parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.data.duplicates.normalization import Digests, digests

_PART = 250_000  # approximate number of digests held in memory at a time

_Numbers = npt.NDArray[np.int32]
_Mask = npt.NDArray[np.bool_]


class SameTexts:
    """Groups rows by text; texts are added chunk by chunk, and null counts as empty.

    path   file for the digests; overwritten
    """

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"")
        self._path = path
        self._rows = 0

    def add(self, normalized: pa.ChunkedArray) -> None:
        """Add the texts of the next rows."""
        added = digests(normalized)
        with self._path.open("ab") as file:
            added.tofile(file)
        self._rows += len(added)

    def digests(self) -> Iterator[Digests]:
        """The digests of all rows in order, chunk by chunk."""
        with self._path.open("rb") as file:
            while len(chunk := np.fromfile(file, np.uint64, 2 * _PART)):
                yield chunk.reshape(-1, 2)

    def number(self) -> tuple[_Numbers, _Numbers]:
        """(rows,) number of each row's text, and (texts,) first row of each text.

        The numbering does not depend on the rows' order.
        """
        numbers, first, texts = np.empty(self._rows, np.int32), [np.zeros(0, np.int32)], 0
        for rows, begins in self._by_text():
            numbers[rows] = texts + np.cumsum(begins, dtype=np.int32) - 1
            first.append(rows[begins])
            texts += len(first[-1])
        return numbers, np.concatenate(first)

    def repeated(self) -> tuple[_Numbers, _Numbers]:
        """The rows with a repeated text, ascending, and the first row of each one's text."""
        copies, originals = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
        for rows, begins in self._by_text():
            text = np.cumsum(begins) - 1
            repeated = np.bincount(text)[text] > 1
            copies.append(rows[repeated])
            originals.append(rows[begins][text[repeated]])
        all_copies = np.concatenate(copies)
        order = np.argsort(all_copies)
        return all_copies[order], np.concatenate(originals)[order]

    def _by_text(self) -> Iterator[tuple[_Numbers, _Mask]]:
        """(rows, whether each is the first of its text), part by part, sorted by text, then row.

        A part holds the digests in one range of values, so a text's rows are never split up.
        """
        parts = np.uint64(max(1, -(-self._rows // _PART)))
        high = np.uint64(32)
        for part in range(int(parts)):
            rows, selected, start = [np.zeros(0, np.int32)], [np.zeros((0, 2), np.uint64)], 0
            for chunk in self.digests():
                in_part = np.flatnonzero((chunk[:, 0] >> high) * parts >> high == part)
                rows.append((in_part + start).astype(np.int32))
                selected.append(chunk[in_part])
                start += len(chunk)
            texts = np.concatenate(selected)
            order = np.lexsort((texts[:, 1], texts[:, 0]))
            ordered = texts[order]
            begins = np.ones(len(order), bool)
            begins[1:] = (ordered[1:] != ordered[:-1]).any(1)
            yield np.concatenate(rows)[order], begins
