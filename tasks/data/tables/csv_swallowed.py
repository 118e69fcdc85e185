"""Find CSV rows that stray quotes swallowed: two of them make one field of all lines between.

Such a file is valid CSV, so nothing else would notice that rows are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
    swallowed: dict[int, list[str]] = {}
    while batch := records.fetchmany(BATCH):
        for line, *fields in batch:
            lines = delimiter.join(field or "" for field in fields).split("\n")
            if any(text.count(delimiter) != len(fields) - 1 for text in lines):
                continue
            rows = [text.removesuffix("\r").split(delimiter) for text in lines]
            if _are_known(connection, loaded, line, rows):
                swallowed[line] = lines
    for line, lines in swallowed.items():
        for offset, text in enumerate(lines):
            loaded.reject(line + offset, REASON, text)
        connection.execute(f"DELETE FROM {table} WHERE {LINE} = ?", [line])
    loaded.quarantine.sort(key=lambda entry: int(entry["line"]))


def _are_known(
    connection: duckdb.DuckDBPyConnection,
    loaded: LoadedFile,
    line: int,
    rows: Sequence[Sequence[str]],
) -> bool:
    """Whether in some column all the rows' values are those of other records."""
    for name, values in zip(loaded.columns, zip(*rows, strict=True), strict=True):
        wanted = set(values)
        if "" in wanted:
            continue
        query = (
            f"SELECT count(DISTINCT {quoted(name)}) FROM {quoted(loaded.table)} "
            f"WHERE {LINE} <> $line AND list_contains($values, {quoted(name)})"
        )
        given: dict[str, Any] = {"line": line, "values": sorted(wanted)}
        known = connection.execute(query, given).fetchone()
        if known is not None and known[0] == len(wanted):
            return True
    return False
