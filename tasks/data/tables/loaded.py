"""A loaded file (a DuckDB table and its quarantined records), and helpers that build SQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

FILE, LINE, SPLIT = "_file", "_line", "split"  # columns added to every table
RAW = "_raw"  # optional column of JSON tables: the record as it is written
SPLITS = ("train", "validation", "test")
BATCH = 50_000  # rows inserted at a time
JSON_TEXT = "JSON as text"  # type of a text column in which some rows hold JSON lists or objects
CONTENT = 200  # characters kept of a quarantined record


@dataclass
class LoadedFile:
    """One file as a DuckDB table, with the records that were set aside.

    table     the table's name;  name  the file's name in messages
    columns   names of the file's columns in the table;  names  in the file
    keep_raw  whether the table of a JSON file gets the column RAW
    mixed     text columns in which some rows hold JSON lists or objects
    """

    table: str
    name: str
    columns: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    keep_raw: bool = False
    rows: int = 0
    mixed: list[str] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)

    def name_columns(self, names: Sequence[str], reserved: set[str]) -> None:
        """Set the column names from those in the file, made distinct."""
        self.names = list(names)
        self.columns = distinct(names, reserved | ({RAW} if self.keep_raw else set()))

    def spelled(self) -> list[str]:
        """Column names as in the file; repeated and missing ones as in the table."""
        names = [
            name if name and self.names.count(name) == 1 else column
            for name, column in zip(self.names, self.columns, strict=True)
        ]
        return names if len(set(names)) == len(names) else self.columns

    def reject(self, line: int, reason: str, content: str) -> None:
        """Set a record aside."""
        printable = content.rstrip("\r\n").encode("utf-8", "backslashreplace").decode()
        self.quarantine.append(
            {"file": self.name, "line": line, "reason": reason, "content": printable[:CONTENT]}
        )


def quoted(name: str) -> str:
    """Quote the name of a column or table for SQL."""
    return '"' + name.replace('"', '""') + '"'


def is_nested(duckdb_type: str) -> bool:
    """Whether the DuckDB type is a list or structure."""
    return duckdb_type.endswith("]") or duckdb_type.startswith(("STRUCT", "MAP", "UNION"))


def literal(text: str) -> str:
    """Quote a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def distinct(names: Sequence[str], reserved: set[str]) -> list[str]:
    """Make names unique ignoring case, as DuckDB does.

    The second `x` becomes `x_2`; a third column without a name becomes `column3`.
    """
    taken = {name.lower() for name in reserved}
    result = []
    for position, original in enumerate(names, 1):
        base = original or f"column{position}"
        name, number = base, 1
        while name.lower() in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name.lower())
        result.append(name)
    return result


def insert(connection: duckdb.DuckDBPyConnection, table: str, batch: pa.Table) -> None:
    """Append an Arrow table's rows."""
    connection.register("batch", batch)
    connection.execute(f"INSERT INTO {quoted(table)} SELECT * FROM batch")
    connection.unregister("batch")


def escape_glob(path: Path) -> str:
    """Escape a path so that DuckDB does not read it as a glob."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def scalar(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    """The single number that a query returns."""
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def one_line(error: Exception) -> str:
    """DuckDB's message without its error type, the echoed query and the caret line."""
    text = " ".join(re.split(r"\s*\n\s*LINE ", str(error))[0].split())
    text = text.partition("Error: ")[2] or text
    return text[:500].rstrip(".") + "."


def is_resource_error(error: Exception) -> bool:
    """Whether DuckDB ran out of disk or memory, rather than failed on its input."""
    return "No space left" in str(error) or str(error).startswith("Out of Memory")
