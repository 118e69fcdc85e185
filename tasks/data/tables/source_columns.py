"""Columns of sources by the names that users give them: `text`, or `data.text` for a member of a structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.data.tables.loaded import JSON_TEXT, Loaded, literal, quoted
from tasks.data.tables.readings import Given

if TYPE_CHECKING:
    import duckdb


def roots(name: str) -> tuple[str, ...]:
    """The columns that may hold what is called so."""
    return tuple(dict.fromkeys((name, name.partition(".")[0])))


def find_column(connection: duckdb.DuckDBPyConnection, loaded: Loaded, name: str) -> Given | None:
    """The column, or the member, of that name; None where there is none."""
    import duckdb

    types = {
        row[0]: str(row[1])
        for row in connection.execute(f"DESCRIBE {quoted(loaded.table)}").fetchall()
    }
    root, *members = name.split(".")
    if name in types:
        sql = quoted(name)
    elif root not in types or not members:
        return None
    elif types[root] == "JSON":  # rows differ in what they hold there
        sql = f"json_extract({quoted(root)}, {literal('/' + '/'.join(members))})"
    else:
        sql = ".".join(map(quoted, (loaded.table, root, *members)))
    try:
        kind = str(
            connection.execute(
                f"DESCRIBE SELECT {sql} AS value FROM {quoted(loaded.table)}"
            ).fetchall()[0][1]
        )
    except duckdb.BinderException:
        return None
    return Given(name, sql, JSON_TEXT if name in loaded.mixed else kind)


def kept(given: Given) -> str:
    """SQL of a value that is kept as it is; as text where rows differ in type."""
    return given.text if given.is_json else given.sql
