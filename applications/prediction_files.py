"""Files of predictions: the columns of the file that was read, as they are, then the predictions'."""

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

Write = Callable[[Batch, list[dict[str, Any]]], None]  # is handed rows and a prediction each


@contextmanager
def prediction_writer(path: Path, example: Mapping[str, Any]) -> Iterator[Write]:
    """A function that appends rows to a file in the format of its ending.

    example  a prediction that has every part that one may have: all have its types
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
        found = pa.Table.from_pylist([flat(prediction) for prediction in predictions], schema)
        for field, column in zip(found.schema, found.columns, strict=True):
            table = table.append_column(field, column)
        table = table if parquet else _cells(table)
        if writer is None:
            writer = (
                pq.ParquetWriter(path, table.schema)
                if parquet
                else pc.CSVWriter(path, table.schema, write_options=options)
            )
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _require_exact(rows: list[dict[str, Any]], path: Path) -> None:
    """DataError for a whole number that no type of Parquet's holds."""
    large = next(
        (
            (name, value)
            for row in rows
            for name, value in row.items()
            if isinstance(value, int) and not -(2**63) <= value < 2**63
        ),
        None,
    )
    if large:
        raise DataError(
            f"{path.name}: column '{large[0]}' holds {large[1]}, which is more than Parquet's 64 bits; nothing was written.",
            "Write to .jsonl or .csv, which keep every digit.",
        )


def _as_written(names: Sequence[str], rows: list[dict[str, Any]]) -> pa.Table:
    """JSON's own values as cells: a number keeps its digits."""
    import pyarrow as pa

    return pa.table([_texts(row.get(name) for row in rows) for name in names], [*names])


def _cells(table: pa.Table) -> pa.Table:
    """The values as CSV and TSV hold them: lists as 'a|b', as ingest reads them, what else is nested as JSON."""
    import pyarrow.types as kinds

    for place, (field, column) in enumerate(zip(table.schema, table.columns, strict=True)):
        if kinds.is_dictionary(field.type):
            table = table.set_column(place, field.name, column.cast(field.type.value_type))
        elif not _plain(field.type):
            table = table.set_column(place, field.name, _texts(column.to_pylist()))
    return table


def _texts(values: Iterable[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array([None if value is None else _cell(value) for value in values], pa.string())


def _plain(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    tests = (
        kinds.is_integer,
        kinds.is_floating,
        kinds.is_boolean,
        kinds.is_null,
        kinds.is_timestamp,
        kinds.is_date,
    )
    return any(test(kind) for test in (*tests, kinds.is_string, kinds.is_large_string))


def _cell(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) and "|" not in item for item in value):
        return "|".join(value)
    return (
        json.dumps(value, ensure_ascii=False, default=_plain_value)
        if isinstance(value, list | dict | bool)
        else _plain_value(value)
    )


def _plain_value(value: Any) -> str:
    """Of what JSON has no type for: bytes as base64, all else as text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
