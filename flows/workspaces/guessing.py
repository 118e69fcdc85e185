"""What a new workspace's data looks like: which problem type it is of, and which of its columns are the problem's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.errors import DataError, ParamsError
from tasks.data.tables.column_guesses import (
    LABEL_NAMES,
    MOSTLY,
    SCORE_NAMES,
    TEXT_NAMES,
    small_valued,
)
from tasks.data.tables.foreign_values import UnfitError, content_of, is_content, split_tags
from tasks.data.tables.notation import as_nested, is_nested
from tasks.params.schema import Source

SAMPLE_ROWS = 500
WORDS = 5  # of a column's name, at most
KNOWN = (*TEXT_NAMES, *LABEL_NAMES, *SCORE_NAMES, "id")


@dataclass(frozen=True)
class Guess:
    """A problem type; for each of its columns the data's; and values of `ingest` that these call for."""

    problem: str
    columns: Mapping[str, str | tuple[str, ...]]
    reading: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.problem} ({', '.join(f'{name}: {say_columns(columns)}' for name, columns in self.columns.items())})"


def say_columns(columns: str | tuple[str, ...]) -> str:
    """A column, or several, for people."""
    return columns if isinstance(columns, str) else " + ".join(columns)


def sample_rows(source: Source, root: Path, cache: Path) -> dict[str, list[Any]]:
    """The first rows of the source's first file, by column: members of structures as columns, texts that spell lists as lists."""
    import duckdb

    from tasks.core.progress import silent
    from tasks.data.sources.fetching import fetch
    from tasks.data.tables.loaded import FILE, LINE, Loaded
    from tasks.data.tables.loading import load

    file = fetch(source, root, cache, silent)[0]
    with (
        tempfile.TemporaryDirectory() as scratch,
        duckdb.connect(str(Path(scratch) / "rows.duckdb")) as connection,
    ):
        connection.execute("SET enable_progress_bar=false")
        load(connection, file.path, Loaded("rows", file.name), source, None, Path(scratch))
        found = (
            connection.cursor()
            .sql(f"SELECT * FROM rows ORDER BY {LINE} LIMIT {SAMPLE_ROWS}")
            .to_arrow_table()
            .to_pydict()
        )
    return unfolded(
        {name: values for name, values in found.items() if name not in (FILE, LINE, "split")}
    )


def unfolded(rows: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Columns whose values are plain or lists; contents of text parts are texts."""
    found: dict[str, list[Any]] = {}
    for name, values in rows.items():
        present = [value for value in values if value not in (None, "")]
        if present and all(isinstance(value, dict) for value in present):
            members = {key: [(value or {}).get(key) for value in values] for key in present[0]}
            found |= unfolded({f"{name}.{key}": inner for key, inner in members.items()})
        elif present and sum(map(is_content, present)) > MOSTLY * len(present):
            found[name] = [_text_of(value) for value in values]
        elif present and sum(
            isinstance(value, str) and split_tags(value) is not None for value in present
        ) > MOSTLY * len(present):
            found[name] = [split_tags(value) if value else None for value in values]
        elif present and sum(
            isinstance(value, str) and is_nested(value) for value in present
        ) > MOSTLY * len(present):
            found[name] = [as_nested(value) for value in values]
        else:
            found[name] = values
    return found


def _text_of(content: Any) -> str | None:
    try:
        return content_of(content)
    except UnfitError:
        return None


def guess(
    rows: Mapping[str, Sequence[Any]], problem: str | None, named: Mapping[str, str]
) -> Guess:
    """The problem type that explains most of the rows' columns, or the columns of the one that is given.

    named  the problem's columns that the user has named
    Raises ParamsError where nothing fits, naming what there is.
    """
    from tasks.problems import load_problem, problem_names

    if problem is None and not named:
        _require_sentences(rows)
        _require_spans(rows)
    found = []
    for name in [problem] if problem else problem_names():
        kind = load_problem(name)
        known = [*kind.columns, *kind.replaceable]
        unknown = [column for column in named if column not in known]
        guessed = (
            kind.guess_columns(rows)
            if not unknown and (problem or named or kind.is_meant(rows))
            else None
        )
        same = {column: column for column in kind.columns if column in rows} if named else {}
        columns = {**same, **(guessed or {}), **named}
        if not unknown and set(columns) >= set(kind.columns):
            columns = {column: columns[column] for column in known if column in columns}
            reading = kind.guess_reading(rows, columns) if guessed else {}
            width = sum(
                1 if isinstance(column, str) else len(column) for column in columns.values()
            )
            found.append((width, len(kind.types), Guess(name, columns, reading)))
        elif problem:
            wanted = ", ".join(f"{column} ({what})" for column, what in kind.columns.items())
            wrong = (
                f"{problem} has no column {', '.join(unknown)}"
                if unknown
                else "cannot tell which columns are meant"
            )
            raise ParamsError(
                f"init: {wrong}: it wants {wanted}; the data has {', '.join(rows)}.",
                "Name them: --column NAME=COLUMN.",
            )
    if not found:
        raise _fits_nothing(rows, problem_names())
    return max(found, key=lambda one: one[:2])[2]


def _require_sentences(rows: Mapping[str, Sequence[Any]]) -> None:
    from tasks.data.tables.tag_schemes import word_tags

    if tags := word_tags(rows):
        raise ParamsError(
            f"init: a row is a word, tagged in '{tags}'; wanted is a sentence a row, a list of words and a list of tags.",
            "Group the words of a sentence first: SELECT list(WORD ORDER BY _line) AS tokens, list(TAG ORDER BY _line) AS tags FROM data "
            "GROUP BY SENTENCE, as `ingest.query` of params.yaml or before.",
        )


def _require_spans(rows: Mapping[str, Sequence[Any]]) -> None:
    from tasks.data.tables.tag_schemes import choices_of

    if choices := choices_of(rows):
        raise ParamsError(
            f"init: '{choices}' holds what Label Studio exports of choices: classes of the texts, no spans of them.",
            "Export it as CSV or JSON-MIN, in which the class is a column; or take it out in `ingest.query` of params.yaml: "
            f"SELECT data.text AS text, {choices}[1].result[1].value.choices[1] AS label FROM data.",
        )


def _fits_nothing(rows: Mapping[str, Sequence[Any]], problems: Sequence[str]) -> ParamsError:
    few = small_valued(rows)
    nested = [name for name in few if any(map(is_nested, rows[name]))]
    labels = [name for name in few if name not in nested]
    hint = (
        f" Few values come again and again in {', '.join(labels)}: --label {labels[0]}, if that is the label."
        if labels
        else ""
    )
    if nested:
        hint += f" Several labels a row are lists of texts or whole numbers; write {', '.join(nested)} so, if those are the labels."
    return ParamsError(
        f"init: the data's columns ({', '.join(rows)}) fit no problem type.",
        f"Name it with --problem ({', '.join(problems)}) and its columns with --column NAME=COLUMN.{hint}",
    )


def require_header(rows: Mapping[str, Sequence[Any]], name: str) -> None:
    """DataError where the columns' names seem to be a first row: a value of its column again, beside one that is no name."""
    again = next((column for column, values in rows.items() if column in values), None)
    if again is not None and (
        any(map(_is_no_name, rows)) or not any(column.lower() in KNOWN for column in rows)
    ):
        raise DataError(
            f"{name}: its first line seems to be a row, not the columns' names: '{again[:40]}' is a value of other rows too.",
            "Put a line with the columns' names first, such as text,label; or rename that column.",
        )


def _is_no_name(column: str) -> bool:
    return len(column.split()) > WORDS or column.replace(".", "").isdigit()
