"""Writes prediction files: the input file's columns, unchanged, then the predictions."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError
from tasks.data.tables.row_files import Batch
from tasks.inference.prediction_names import flat

if TYPE_CHECKING:
    import pyarrow as pa

WRITERS = (".csv", ".tsv", ".jsonl", ".parquet")

Write = Callable[[Batch, list[dict[str, Any]]], None]  # (rows, one prediction per row)


@contextmanager
def prediction_writer(path: Path, example: Mapping[str, Any]) -> Iterator[Write]:
    """Yield a function that appends rows to a file in the format of its extension.

    example  a prediction with every key that one may have; sets the columns' types
    """
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            yield lambda batch, predictions: file.writelines(
                json.dumps(row | prediction, ensure_ascii=False, default=_plain_value) + "\n"
                for row, prediction in zip(batch.values(), predictions, strict=True)
            )
        return
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    schema = pa.Table.from_pylist([flat(example)]).schema
    parquet = path.suffix == ".parquet"
    options = pc.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
    writer: Any = None

    def write(batch: Batch, predictions: list[dict[str, Any]]) -> None:
        nonlocal writer
        table = pa.Table.from_batches([batch.rows])
        if batch.objects is not None and parquet:
            _require_exact(batch.objects, path)
        elif batch.objects is not None:
            table = _as_written(table.column_names, batch.objects)
        columns = pa.Table.from_pylist([flat(prediction) for prediction in predictions], schema)
        for field, column in zip(columns.schema, columns.columns, strict=True):
            table = table.append_column(field, column)
        table = table if parquet else _cells(table)
        if writer is None and parquet:
            writer = pq.ParquetWriter(path, table.schema)
        elif writer is None:
            writer = pc.CSVWriter(path, table.schema, write_options=options)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _require_exact(rows: list[dict[str, Any]], path: Path) -> None:
    """Raise DataError for an integer that does not fit Parquet's 64 bits."""
    for name, value in (item for row in rows for item in row.items()):
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise DataError(
                f"{path.name}: column '{name}' holds {value}, which does not fit Parquet's "
                "64 bits; nothing was written.",
                "Write to .jsonl or .csv, which keep every digit.",
            )


def _as_written(names: Sequence[str], rows: list[dict[str, Any]]) -> pa.Table:
    """The parsed JSON values as text columns, so that numbers keep every digit."""
    import pyarrow as pa

    return pa.table([_texts(row.get(name) for row in rows) for name in names], [*names])


def _cells(table: pa.Table) -> pa.Table:
    """The values as CSV and TSV cells: lists as 'a|b', as ingest reads them; other nested as JSON.

    Scalars stay as they are.
    """
    import pyarrow.types as types

    for index, (field, column) in enumerate(zip(table.schema, table.columns, strict=True)):
        if types.is_dictionary(field.type):
            table = table.set_column(index, field.name, column.cast(field.type.value_type))
        elif not _is_plain(field.type):
            table = table.set_column(index, field.name, _texts(column.to_pylist()))
    return table


def _texts(values: Iterable[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array([None if value is None else _cell(value) for value in values], pa.string())


def _is_plain(data_type: pa.DataType) -> bool:
    import pyarrow.types as types

    tests = (
        types.is_integer,
        types.is_floating,
        types.is_boolean,
        types.is_null,
        types.is_timestamp,
        types.is_date,
        types.is_string,
        types.is_large_string,
    )
    return any(test(data_type) for test in tests)


def _cell(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) and "|" not in item for item in value):
        return "|".join(value)
    if isinstance(value, list | dict | bool):
        return json.dumps(value, ensure_ascii=False, default=_plain_value)
    return _plain_value(value)


def _plain_value(value: Any) -> str:
    """A value that JSON has no type for: bytes as base64, anything else as text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
