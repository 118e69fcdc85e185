"""Find CSV rows that stray quotes swallowed: two of them make one field of all lines between.

Such a file is valid CSV, so nothing else would notice that rows are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.data.tables.loaded import BATCH, LINE, LoadedFile, quoted

if TYPE_CHECKING:
    import duckdb

REASON = "a line of a quoted field whose lines all are rows: its quotes seem to be stray"


def reject_swallowed(
    connection: duckdb.DuckDBPyConnection, loaded: LoadedFile, delimiter: str
) -> None:
    """Set aside, line by line, each record all of whose lines are rows if its quotes are ignored.

    They are if each has as many fields as the table, and in some column all their values are known
    from the other rows. The lines of a text that holds line breaks are not: its first line has
    no label, and its last one begins with no text.
    """
    table, names = quoted(loaded.table), ", ".join(map(quoted, loaded.columns))
    breaks = " OR ".join(f"contains({quoted(name)}, chr(10))" for name in loaded.columns)
    records = connection.cursor().execute(
        f"SELECT {LINE}, {names} FROM {table} WHERE {breaks} ORDER BY {LINE}"
    )
    suspects: dict[int, list[str]] = {}
    while batch := records.fetchmany(BATCH):
        for line, *fields in batch:
            lines = delimiter.join(field or "" for field in fields).split("\n")
            if all(text.count(delimiter) == len(fields) - 1 for text in lines):
                suspects[line] = lines
    if not suspects:
        return
    for line in _all_known(connection, loaded, delimiter, suspects):
        for offset, text in enumerate(suspects[line]):
            loaded.reject(line + offset, REASON, text)
        connection.execute(f"DELETE FROM {table} WHERE {LINE} = ?", [line])
    loaded.quarantine.sort(key=lambda entry: int(entry["line"]))


def _all_known(
    connection: duckdb.DuckDBPyConnection,
    loaded: LoadedFile,
    delimiter: str,
    suspects: Mapping[int, Sequence[str]],
) -> list[int]:
    """Records whose lines have, in some column, only values of other records."""
    rows = {
        line: [text.removesuffix("\r").split(delimiter) for text in lines]
        for line, lines in suspects.items()
    }
    known: set[int] = set()
    for position, name in enumerate(loaded.columns):
        values = {line: {row[position] for row in rows[line]} for line in rows}
        wanted = sorted(set().union(*values.values()))
        found = connection.execute(
            f"SELECT {quoted(name)}, min({LINE}), max({LINE}) FROM {quoted(loaded.table)} "
            f"WHERE list_contains($wanted, {quoted(name)}) GROUP BY 1",
            {"wanted": wanted},
        ).fetchall()
        lines_of = {value: {first, last} for value, first, last in found}
        known |= {
            line
            for line, held in values.items()
            if "" not in held and all(lines_of.get(value, {line}) != {line} for value in held)
        }
    return sorted(known)
