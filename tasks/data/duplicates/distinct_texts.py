"""The distinct normalized texts of many rows, numbered and kept on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.duplicates.shingles import MAX_CHARACTERS, MAX_TEXTS
from tasks.data.duplicates.text_digests import SameTexts


class DistinctTexts:
    """Distinct texts, numbered independently of the rows' order; read in batches for shingling.

    of_rows  (rows,) number of each row's text
    first    (texts,) first row of each text
    rows     the rows' text digests
    """

    def __init__(self, directory: Path, normalized: Iterable[pa.ChunkedArray]) -> None:
        """Read the rows' texts, chunk by chunk, into files in `directory`; null counts as empty."""
        self.rows = SameTexts(directory / "digests")
        self._starts: list[int] = []
        self._write(directory / "texts", normalized)
        self.of_rows, self.first = self.rows.number()
        self._reader = pa.ipc.open_file(pa.OSFile(str(directory / "texts")))
        self._lock = Lock()
        self._is_first = np.zeros(len(self.of_rows), bool)
        self._is_first[self.first] = True

    def _write(self, path: Path, normalized: Iterable[pa.ChunkedArray]) -> None:
        """Write the texts to `path` in batches and set `_starts`, the first row of each."""
        start = 0
        schema = pa.schema([("text", pa.large_string())])
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for column in normalized:
                texts = pc.fill_null(column, "").combine_chunks()
                self.rows.add(pa.chunked_array([texts]))
                for part in _cut(texts):
                    writer.write_batch(pa.record_batch([part], schema=schema))
                    self._starts.append(start)
                    start += len(part)

    def __len__(self) -> int:
        return len(self.first)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.int32], pa.Array]]:
        """(numbers, texts), batch by batch, each text once."""
        for i in range(len(self._starts)):
            yield self._read(i)

    def batch(self, i: int) -> pa.Array:
        """The texts of batch `i`."""
        return self._read(i)[1]

    def _read(self, i: int) -> tuple[npt.NDArray[np.int32], pa.Array]:
        with self._lock:
            texts = self._reader.get_batch(i).column(0)
        rows = slice(self._starts[i], self._starts[i] + len(texts))
        kept = self._is_first[rows]
        return self.of_rows[rows][kept], texts.filter(pa.array(kept))


def _cut(texts: pa.Array) -> Iterator[pa.Array]:
    """Slices of at most MAX_TEXTS texts, with at most MAX_CHARACTERS bytes after the first text."""
    weights = pc.fill_null(pc.binary_length(texts), 0).to_numpy() + MAX_CHARACTERS // MAX_TEXTS
    parts = np.cumsum(weights) // MAX_CHARACTERS
    cuts = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(texts)]
    for start, stop in pairwise(cuts):
        if stop > start:
            yield texts.slice(start, stop - start)
