"""Read a user's file of rows in batches, for predictions and for newly labelled data."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError, did_you_mean
from tasks.core.foreign import foreign_file
from tasks.data.tables.foreign_values import register
from tasks.data.tables.loaded import LINE, RAW, LoadedFile, quoted
from tasks.data.tables.loading import format_of, load
from tasks.data.tables.readings import Reading, SourceColumn, first_problem
from tasks.params.ingestion import ReadingParams

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from tasks.data.row_format import RowFormat
    from tasks.params.ingestion import Source

BATCH_ROWS = 4096  # rows in memory at a time
_INPUT = "\x1finput "  # prefix of the names of converted columns


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of a file.

    rows     all columns, as in the file
    inputs   the requested columns, converted like the problem's columns
    objects  the rows as written, for JSON files, where a column's values may differ in type
    """

    rows: pa.RecordBatch
    inputs: pa.RecordBatch
    objects: list[dict[str, Any]] | None = None

    def values(self) -> list[dict[str, Any]]:
        """All rows as Python dicts; DataError if two columns have the same name."""
        names = self.rows.schema.names
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(
                f"two columns are called '{repeated[0]}', but a JSON row can hold only one.",
                "Rename one, or write to .parquet or .csv.",
            )
        return self.rows.to_pylist() if self.objects is None else self.objects


def read_batches(source: Source, wanted: Collection[str], row_format: RowFormat) -> Iterator[Batch]:
    """The rows of a local file that ingest can read, in order; one empty batch if none.

    wanted   required columns, converted like the columns of `row_format` in a batch's `inputs`
    Raises DataError if a column is missing or a row cannot be read; unless the file is Parquet,
    before the first batch.
    """
    path = Path(source.url)
    if not path.is_file():
        raise DataError(f"{path}: no such file.", "Check the path.")
    is_zip = path.name.lower().endswith(".zip")
    is_parquet = not is_zip and format_of(source, path.name) == "parquet"
    read = _parquet_batches if is_parquet else _text_batches
    yield from read(path, source, list(wanted), row_format)


def _parquet_batches(
    source: Path, _: Source, wanted: Sequence[str], row_format: RowFormat
) -> Iterator[Batch]:
    """Read with pyarrow, which preserves all types and the index metadata of data frames."""
    import duckdb

    with _opened_parquet(source) as (schema, batches), duckdb.connect() as connection:
        _require_columns(source, schema.names, wanted)
        register(connection)
        first = 1
        for rows in batches:
            yield Batch(rows, _inputs(connection, source, rows, first, wanted, row_format))
            first += rows.num_rows


@contextmanager
def _opened_parquet(source: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """(schema, batches in order, one empty batch if there are no rows) of a Parquet file.

    Raises SourceError for a damaged file, also one whose texts are not UTF-8.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def damaged() -> AbstractContextManager[None]:
        return foreign_file(f"{source}: not a readable Parquet file", "Write it again.")

    def batches() -> Iterator[pa.RecordBatch]:
        if not file.metadata.num_rows:
            yield pa.RecordBatch.from_pylist([], schema)
        remaining = file.iter_batches(BATCH_ROWS)
        while True:
            with damaged():
                rows = next(remaining, None)
                if rows is not None:
                    rows.validate(full=True)
            if rows is None:
                return
            yield rows

    with damaged():
        file = pq.ParquetFile(source)
        schema = file.schema_arrow
    with file:
        yield schema, batches()


def _inputs(
    connection: duckdb.DuckDBPyConnection,
    source: Path,
    rows: pa.RecordBatch,
    first: int,
    wanted: Sequence[str],
    row_format: RowFormat,
) -> pa.RecordBatch:
    """The wanted columns, converted; `first` is the number of the first row."""
    import pyarrow as pa

    connection.register("rows", pa.Table.from_batches([rows.select(wanted)]))
    types = {row[0]: str(row[1]) for row in connection.execute("DESCRIBE rows").fetchall()}
    readings = _readings(types, wanted, row_format)
    _require_fit(connection, source, readings, f"row_number() OVER () + {first - 1}")
    columns = ", ".join(
        f"{reading.value} AS {quoted(column)}" for column, reading in readings.items()
    )
    table: pa.Table = connection.sql(f"SELECT {columns} FROM rows").to_arrow_table()
    if not len(table):
        return pa.RecordBatch.from_pylist([], table.schema)
    return table.combine_chunks().to_batches()[0]


def _text_batches(
    source: Path, described: Source, wanted: Sequence[str], row_format: RowFormat
) -> Iterator[Batch]:
    import duckdb
    import pyarrow as pa

    loaded = LoadedFile("rows", source.name, keep_raw=True)
    # a database on disk: the file may be larger than memory
    with (
        tempfile.TemporaryDirectory() as scratch,
        duckdb.connect(str(Path(scratch) / "rows.duckdb")) as connection,
    ):
        connection.execute("SET enable_progress_bar=false")
        register(connection)
        load(connection, source, loaded, described, wanted, Path(scratch))
        _require_all(source, loaded)
        _require_columns(source, loaded.columns, wanted)
        types = {row[0]: str(row[1]) for row in connection.execute("DESCRIBE rows").fetchall()}
        readings = _readings(types, wanted, row_format)
        _require_fit(connection, source, readings, LINE)
        # mixed types: values as plain text, not as JSON with quotes
        columns = [
            f"{quoted(name)} ->> '$' AS {quoted(name)}" if types[name] == "JSON" else quoted(name)
            for name in loaded.columns
        ]
        columns += [
            f"{reading.value} AS {quoted(_INPUT + column)}" for column, reading in readings.items()
        ]
        columns += [RAW] if RAW in types else []
        query = f"SELECT {', '.join(columns)} FROM rows ORDER BY {LINE}"
        reader = connection.cursor().sql(query).to_arrow_reader(BATCH_ROWS)
        batches = reader if loaded.rows else [pa.RecordBatch.from_pylist([], reader.schema)]
        yield from (_split(batch, loaded, wanted) for batch in batches)


def _split(batch: pa.RecordBatch, loaded: LoadedFile, wanted: Sequence[str]) -> Batch:
    is_json = RAW in batch.schema.names
    objects = None
    if is_json:
        objects = [json.loads(text, parse_float=_finite) for text in batch[RAW].to_pylist()]
    rows = batch.select(loaded.columns).rename_columns(loaded.spelled())
    inputs = batch.select([_INPUT + column for column in wanted]).rename_columns(list(wanted))
    return Batch(rows, inputs, objects)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise DataError(f"the number {number} is too large.", "Write it as a text.")
    return value


def _readings(
    types: Mapping[str, str], wanted: Sequence[str], row_format: RowFormat
) -> dict[str, Reading]:
    columns = {name: [SourceColumn(name, quoted(name), types[name])] for name in wanted}
    return row_format.readings(columns, ReadingParams())


def _require_fit(
    connection: duckdb.DuckDBPyConnection, source: Path, readings: Mapping[str, Reading], line: str
) -> None:
    """Raise DataError if any row's values cannot be converted; `line` is SQL of a row's number."""
    problem = first_problem(readings)
    if problem is None:
        return
    query = f"SELECT {line} AS line, {problem} AS problem FROM rows"
    query = f"SELECT * FROM ({query}) WHERE problem IS NOT NULL ORDER BY line"
    bad = connection.execute(query).fetchall()
    if bad:
        raise DataError(
            f"{source}: {len(bad)} rows cannot be read; line {bad[0][0]}: {bad[0][1]}.",
            "Fix or remove them.",
        )


def _require_all(source: Path, loaded: LoadedFile) -> None:
    if loaded.quarantine:
        first = loaded.quarantine[0]
        count = len(loaded.quarantine)
        raise DataError(
            f"{source}: {count} rows cannot be read; line {first['line']}: {first['reason']}.",
            "Fix or remove them.",
        )


def _require_columns(source: Path, columns: Sequence[str], wanted: Collection[str]) -> None:
    missing = [
        f"'{column}'.{did_you_mean(column, columns)}" for column in wanted if column not in columns
    ]
    if missing:
        raise DataError(
            f"{source}: there is no column {' and no '.join(missing)} Found: {', '.join(columns)}.",
            "Rename the column.",
        )
