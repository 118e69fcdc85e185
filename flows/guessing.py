"""What a new workspace's data looks like: which problem type it is of, and which of its columns are the problem's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import ParamsError
from tasks.core.params import Source

SAMPLE_ROWS = 500


@dataclass(frozen=True)
class Guess:
    """A problem type and, for each of its columns, the data's."""

    problem: str
    columns: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.problem} ({', '.join(f'{name}: {column}' for name, column in self.columns.items())})"


def sample_rows(source: Source, root: Path, cache: Path) -> dict[str, list[Any]]:
    """The first rows of the source's first file, by column, values as they are."""
    import duckdb

    from tasks.core.loaded import FILE, LINE, Loaded
    from tasks.core.progress import silent
    from tasks.core.sources import fetch
    from tasks.core.tables import load

    file = fetch(source, root, cache, silent)[0]
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect(str(Path(scratch) / "rows.duckdb")) as connection:
        connection.execute("SET enable_progress_bar=false")
        load(connection, file.path, Loaded("rows", file.name), source, None, Path(scratch))
        found = connection.cursor().sql(f"SELECT * FROM rows ORDER BY {LINE} LIMIT {SAMPLE_ROWS}").to_arrow_table().to_pydict()
    return {name: values for name, values in found.items() if name not in (FILE, LINE, "split")}


def guess(rows: Mapping[str, Sequence[Any]], problem: str | None, named: Mapping[str, str]) -> Guess:
    """The problem type that explains most of the rows' columns, or the columns of the one that is given.

    named  the problem's columns that the user has named
    Raises ParamsError where nothing fits, naming what there is.
    """
    from tasks.problems import load_problem, problem_names

    found = []
    for name in [problem] if problem else problem_names():
        kind = load_problem(name)
        known = [*kind.columns, *kind.replaceable]
        unknown = [column for column in named if column not in known]
        guessed = kind.guess_columns(rows) if not unknown else None
        same = {column: column for column in kind.columns if column in rows} if named else {}
        columns = {**same, **(guessed or {}), **named}
        if not unknown and set(columns) >= set(kind.columns):
            found.append((len(columns), len(kind.types), Guess(name, {column: columns[column] for column in known if column in columns})))
        elif problem:
            wanted = ", ".join(f"{column} ({what})" for column, what in kind.columns.items())
            wrong = f"{problem} has no column {', '.join(unknown)}" if unknown else "cannot tell which columns are meant"
            raise ParamsError(f"init: {wrong}: it wants {wanted}; the data has {', '.join(rows)}.", "Name them: --column NAME=COLUMN.")
    if not found:
        raise ParamsError(
            f"init: the data's columns ({', '.join(rows)}) fit no problem type.",
            f"Name it with --problem ({', '.join(problem_names())}) and its columns with --column NAME=COLUMN.",
        )
    return max(found, key=lambda one: one[:2])[2]
