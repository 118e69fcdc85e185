"""Rows in a Parquet file, read some at a time, so that many take no more memory than few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.files import reading_table

ROW_GROUP = 65_536  # rows that are written together
BATCH_ROWS = (
    2 * ROW_GROUP
)  # rows in memory at a time, nearly: Great Expectations has its costs for each batch


class RowStore:
    """A table on disk; a place is a row's number in it, from 0."""

    def __init__(self, path: Path) -> None:
        with reading_table(path):
            self._file = pq.ParquetFile(path)
        groups = [
            self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)
        ]
        self._starts = np.concatenate(([0], np.cumsum(groups, dtype=np.int64)))
        self.schema: pa.Schema = self._file.schema_arrow
        self.column_names: list[str] = self.schema.names

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """(place of the first, rows) in order; the row groups that begin in one stretch of BATCH_ROWS come together."""
        batches = self._starts[:-1] // BATCH_ROWS
        cuts = np.searchsorted(batches, np.unique(batches)).tolist()
        for first, last in pairwise([*cuts, len(batches)]):
            # one thread: as fast for so few rows, and what several once allocated takes twice the memory
            yield (
                int(self._starts[first]),
                self._file.read_row_groups(list(range(first, last)), columns, use_threads=False),
            )

    def take(self, places: npt.NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows at these places, in ascending order."""
        found = [
            pa.table(
                {
                    name: pa.array([], self.schema.field(name).type)
                    for name in columns or self.column_names
                }
            )
        ]
        groups = np.searchsorted(self._starts, places, "right") - 1
        for group in np.unique(groups).tolist():
            rows = self._file.read_row_group(group, columns, use_threads=False)
            found.append(rows.take(pa.array(places[groups == group] - self._starts[group])))
        return pa.concat_tables(found)
