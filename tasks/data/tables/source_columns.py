"""Find source columns by name: `text`, or `data.text` for a member of a structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.data.tables.loaded import JSON_TEXT, LoadedFile, literal, quoted
from tasks.data.tables.readings import SourceColumn

if TYPE_CHECKING:
    import duckdb


def roots(name: str) -> tuple[str, ...]:
    """Columns that a name may refer to: itself, or the part before the first dot."""
    return tuple(dict.fromkeys((name, name.partition(".")[0])))


def find_column(
    connection: duckdb.DuckDBPyConnection, loaded: LoadedFile, name: str
) -> SourceColumn | None:
    """The column, or the member of a structure, with this name; None if there is none."""
    import duckdb

    table = quoted(loaded.table)
    types = {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE {table}").fetchall()}
    root, *members = name.split(".")
    if name in types:
        sql = quoted(name)
    elif root not in types or not members:
        return None
    elif types[root] == "JSON":  # rows hold values of different types
        sql = f"json_extract({quoted(root)}, {literal('/' + '/'.join(members))})"
    else:
        sql = ".".join(map(quoted, (loaded.table, root, *members)))
    try:
        described = connection.execute(f"DESCRIBE SELECT {sql} AS value FROM {table}").fetchall()
    except duckdb.BinderException:
        return None
    return SourceColumn(name, sql, JSON_TEXT if name in loaded.mixed else str(described[0][1]))


def kept(column: SourceColumn) -> str:
    """SQL of an unchanged value; as text if the rows' types differ."""
    return column.text if column.is_json else column.sql
