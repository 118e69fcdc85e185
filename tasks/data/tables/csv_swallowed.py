"""Find CSV rows that a stray quote swallowed: two of them make one long field of all lines between.

Such a file is valid CSV, so nothing else would notice that rows are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.data.tables.csv_records import RecordReader
from tasks.data.tables.loaded import BATCH, LINE, LoadedFile, quoted

if TYPE_CHECKING:
    import duckdb

LEAST = 3  # lines within a field that look like rows
MOSTLY = 0.9  # of the lines within the field, and of their values in one column
REASON = "within a quoted field whose lines look like rows: its quotes seem to be stray"


def reject_swallowed(
    connection: duckdb.DuckDBPyConnection, loaded: LoadedFile, delimiter: str, quote: str
) -> None:
    """Set aside, line by line, rows with a field whose lines are rows of this table themselves.

    They are if they have as many fields, and in some column hold values of the other rows.
    """
    table = quoted(loaded.table)
    for name in loaded.columns:
        column = quoted(name)
        breaks = f"len({column}) - len(replace({column}, chr(10), ''))"
        long_fields = connection.cursor().execute(
            f"SELECT {LINE}, {column} FROM {table} WHERE {breaks} > {LEAST} ORDER BY {LINE}"
        )
        while batch := long_fields.fetchmany(BATCH):
            for line, field in batch:
                rows = _rows_within(field, len(loaded.columns), delimiter, quote)
                if rows and _are_of_table(connection, loaded, line, rows):
                    for offset, text in enumerate(field.split("\n")):
                        loaded.reject(line + offset, REASON, text)
                    connection.execute(f"DELETE FROM {table} WHERE {LINE} = ?", [line])
    loaded.quarantine.sort(key=lambda entry: int(entry["line"]))


def _rows_within(field: str, width: int, delimiter: str, quote: str) -> list[list[str]]:
    """The lines between the first and the last as rows; none if they do not look like rows."""
    lines = [line + "\n" for line in field.split("\n")[1:-1] if line.strip()]
    if any(line.count(delimiter) < width - 1 for line in lines[:1]):  # cheap, and mostly enough
        return []
    records = [*RecordReader(lines, delimiter, quote)]
    rows = [record.fields for record in records if len(record.fields) == width]
    return rows if len(rows) >= max(LEAST, MOSTLY * len(records)) else []


def _are_of_table(
    connection: duckdb.DuckDBPyConnection,
    loaded: LoadedFile,
    line: int,
    rows: Sequence[Sequence[str]],
) -> bool:
    for name, values in zip(loaded.columns, zip(*rows, strict=True), strict=True):
        known = (
            f"SELECT count(*) FROM (SELECT unnest($values) AS value) WHERE value IN "
            f"(SELECT {quoted(name)} FROM {quoted(loaded.table)} WHERE {LINE} <> $line)"
        )
        count = connection.execute(known, {"values": list(values), "line": line}).fetchone()
        if count is not None and count[0] >= MOSTLY * len(values):
            return True
    return False
