"""A user's file of rows, read in batches: for predictions, and for what was labelled since."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import DataError, did_you_mean
from tasks.core.loaded import FILE, LINE, Loaded, converted, is_nested, quoted
from tasks.core.tables import load

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 4096  # rows in memory at a time


def read_batches(source: Path, wanted: Collection[str], types: Mapping[str, str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a CSV, TSV, JSONL or Parquet file, in order.

    wanted   columns that must be there; their values come as text unless they are lists or structures, those of other columns as they are
    types    of wanted columns that are to be of another type: DuckDB's name of it; what cannot be is null
    Raises DataError before the first batch where a row cannot be read or a column is missing.
    """
    import duckdb

    from tasks.core.params import Source

    if not source.is_file():
        raise DataError(f"{source}: no such file.", "Check the path.")
    loaded = Loaded("rows", source.name)
    # a database on disk, for the file may be larger than memory
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect(str(Path(scratch) / "rows.duckdb")) as connection:
        connection.execute("SET enable_progress_bar=false")
        load(connection, source, loaded, Source(url=str(source)), wanted, Path(scratch))
        _check(source, loaded, wanted)
        kinds = {row[0]: str(row[1]) for row in connection.execute("DESCRIBE rows").fetchall()}
        named = {column: (types or {}).get(column, kinds[column] if is_nested(kinds[column]) else "VARCHAR") for column in wanted}
        columns = ", ".join(_value(column, kinds[column], named.get(column)) for column in loaded.columns if column not in (FILE, LINE))
        yield from connection.cursor().sql(f"SELECT {columns} FROM rows ORDER BY {LINE}").to_arrow_reader(BATCH_ROWS)


def _value(column: str, present: str, wanted: str | None) -> str:
    return quoted(column) if wanted is None else f"{converted(column, present, wanted)} AS {quoted(column)}"


def _check(source: Path, loaded: Loaded, wanted: Collection[str]) -> None:
    if loaded.quarantine:
        first = loaded.quarantine[0]
        count = len(loaded.quarantine)
        raise DataError(f"{source}: {count} rows cannot be read; line {first['line']}: {first['reason']}.", "Mend or remove them.")
    missing = [f"'{column}'.{did_you_mean(column, loaded.columns)}" for column in wanted if column not in loaded.columns]
    if missing:
        raise DataError(
            f"{source}: there is no column {' and no '.join(missing)} Found: {', '.join(loaded.columns)}.", "Rename the column."
        )
