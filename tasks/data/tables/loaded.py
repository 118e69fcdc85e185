"""What becomes of a file in DuckDB: a table of its rows and a list of what was set aside; and how SQL spells names and texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

FILE, LINE, SPLIT = "_file", "_line", "split"  # the columns that every table gets
RAW = "_raw"  # of JSON, where it is asked for: each record as it is written
SPLITS = ("train", "validation", "test")
BATCH = 50_000  # rows handed over at once
JSON_TEXT = (
    "JSON as text"  # the type of a column of texts that were lists and objects of JSON in some rows
)
CONTENT = 200  # characters of a quarantined record that are kept


@dataclass
class Loaded:
    """What became of one file: the DuckDB table it is now, and what was set aside.

    columns   the table's names of the source's columns;  names  the source's own
    keep_raw  whether the table of a JSON file is to have the column RAW
    mixed     columns of texts that are JSON's in the rows that hold lists or objects
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
        """Take the source's names for its columns."""
        self.names, self.columns = (
            list(names),
            distinct(names, reserved | ({RAW} if self.keep_raw else set())),
        )

    def spelled(self) -> list[str]:
        """The columns' names as the source has them; those that it repeats or leaves out are told apart."""
        names = [
            name if name and self.names.count(name) == 1 else own
            for name, own in zip(self.names, self.columns, strict=True)
        ]
        return names if len(set(names)) == len(names) else self.columns

    def reject(self, line: int, reason: str, content: str) -> None:
        """Set a record aside."""
        printable = content.rstrip("\r\n").encode("utf-8", "backslashreplace").decode()
        self.quarantine.append(
            {"file": self.name, "line": line, "reason": reason, "content": printable[:CONTENT]}
        )


def quoted(name: str) -> str:
    """A column's or table's name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def is_nested(kind: str) -> bool:
    """Whether DuckDB's type of that name holds lists or structures."""
    return kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION"))


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def distinct(names: Sequence[str], reserved: set[str]) -> list[str]:
    """Names without repeats (DuckDB tells no cases apart): the second `x` is `x_2`, a nameless third column `column3`."""
    seen = {name.lower() for name in reserved}
    result = []
    for position, given in enumerate(names, 1):
        name, number = given or f"column{position}", 1
        while name.lower() in seen:
            number += 1
            name = f"{given or f'column{position}'}_{number}"
        seen.add(name.lower())
        result.append(name)
    return result


def insert(connection: duckdb.DuckDBPyConnection, table: str, batch: pa.Table) -> None:
    """Append an Arrow table's rows."""
    connection.register("batch", batch)
    connection.execute(f"INSERT INTO {quoted(table)} SELECT * FROM batch")
    connection.unregister("batch")


def escape_glob(path: Path) -> str:
    """The path as DuckDB takes it literally."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def scalar(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    """The one number that a query returns."""
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def one_line(error: Exception) -> str:
    """DuckDB's message without its kind, the echo of the query and the caret line."""
    text = " ".join(re.split(r"\s*\n\s*LINE ", str(error))[0].split())
    text = text.partition("Error: ")[2] or text
    return text[:500].rstrip(".") + "."


def no_fault_of_data(error: Exception) -> bool:
    """Whether DuckDB failed for want of room, not because of what it was given."""
    return "No space left" in str(error) or str(error).startswith("Out of Memory")
