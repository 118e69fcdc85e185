"""Read rows of a Parquet file in batches, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.files import reading_table

ROW_GROUP = 65_536  # rows written as one group
# approximate rows in memory at a time; not fewer, because Great Expectations has costs per batch
BATCH_ROWS = 2 * ROW_GROUP


class RowStore:
    """A table on disk; a row's place is its 0-based index."""

    def __init__(self, path: Path) -> None:
        with reading_table(path):
            self._file = pq.ParquetFile(path)
        metadata = self._file.metadata
        group_sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._starts = np.concatenate(([0], np.cumsum(group_sizes, dtype=np.int64)))
        self.schema: pa.Schema = self._file.schema_arrow
        self.column_names: list[str] = self.schema.names

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """(place of the first row, rows) of each batch, in order.

        A batch consists of the row groups that start within one stretch of BATCH_ROWS rows.
        """
        batches = self._starts[:-1] // BATCH_ROWS
        cuts = np.searchsorted(batches, np.unique(batches)).tolist()
        for first, last in pairwise([*cuts, len(batches)]):
            # one thread: as fast for so few rows; several threads take twice the memory
            groups = list(range(first, last))
            rows = self._file.read_row_groups(groups, columns, use_threads=False)
            yield int(self._starts[first]), rows

    def take(self, places: npt.NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows at these places, in ascending order."""
        types = {name: self.schema.field(name).type for name in columns or self.column_names}
        tables = [pa.table({name: pa.array([], types[name]) for name in types})]
        groups = np.searchsorted(self._starts, places, "right") - 1
        for group in np.unique(groups).tolist():
            rows = self._file.read_row_group(group, columns, use_threads=False)
            tables.append(rows.take(pa.array(places[groups == group] - self._starts[group])))
        return pa.concat_tables(tables)
