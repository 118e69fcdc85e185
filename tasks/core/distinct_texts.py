"""The normalized texts of many rows, on disk, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.core.normalization import digests, number_texts
from tasks.core.shingles import MAX_CHARACTERS, MAX_TEXTS


def write_texts(path: Path, normalized: Iterable[pa.ChunkedArray], rows: int) -> tuple[npt.NDArray[np.uint64], list[int]]:
    """Write the texts of so many rows, which come some at a time, null as no characters.

    Returns their digests, (2, rows), and the first row of each batch that was written.
    """
    found, starts, done = np.empty((2, rows), np.uint64), [], 0
    schema = pa.schema([("text", pa.large_string())])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for column in normalized:
            texts = pc.fill_null(column, "").combine_chunks()
            found[:, done : done + len(texts)] = digests(pa.chunked_array([texts]))
            for part in _cut(texts):
                writer.write_batch(pa.record_batch([part], schema=schema))
                starts.append(done)
                done += len(part)
    return found, starts


class DistinctTexts:
    """Texts by number, in an order that does not depend on the rows'; read in batches that shingles can be made of.

    of_rows  (rows,) the number of each row's text;  first  (texts,) the first row of each
    """

    def __init__(self, path: Path, found: npt.NDArray[np.uint64], starts: Sequence[int]) -> None:
        """Of the texts that `write_texts` wrote to `path`, with what it returned."""
        self.of_rows, self.first = number_texts(found)
        self._reader = pa.ipc.open_file(pa.OSFile(str(path)))
        self._lock = Lock()
        self._starts = starts
        self._is_first = np.zeros(len(self.of_rows), bool)
        self._is_first[self.first] = True

    def __len__(self) -> int:
        return len(self.first)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.int32], pa.Array]]:
        """(numbers, texts), batch after batch, each text once."""
        for i in range(len(self._starts)):
            yield self._read(i)

    def batch(self, i: int) -> pa.Array:
        """The texts of one of the batches."""
        return self._read(i)[1]

    def _read(self, i: int) -> tuple[npt.NDArray[np.int32], pa.Array]:
        with self._lock:
            texts = self._reader.get_batch(i).column(0)
        here = slice(self._starts[i], self._starts[i] + len(texts))
        kept = self._is_first[here]
        return self.of_rows[here][kept], texts.filter(pa.array(kept))


def _cut(texts: pa.Array) -> Iterator[pa.Array]:
    """Parts of at most MAX_TEXTS texts, and no more than MAX_CHARACTERS bytes after the first of them."""
    weights = pc.fill_null(pc.binary_length(texts), 0).to_numpy() + MAX_CHARACTERS // MAX_TEXTS
    parts = np.cumsum(weights) // MAX_CHARACTERS
    cuts = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(texts)]
    for start, stop in pairwise(cuts):
        if stop > start:
            yield texts.slice(start, stop - start)
