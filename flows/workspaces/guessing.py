"""Guesses a new workspace's problem type, and which data columns are the problem's columns."""

from __future__ import annotations

import json
import math
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.workspaces.split_names import SPLIT_WORDS
from tasks.core.errors import DataError, ParamsError, did_you_mean
from tasks.data.tables.column_guesses import (
    LABEL_NAMES,
    MOSTLY,
    SCORE_NAMES,
    TEXT_NAMES,
    low_cardinality,
)
from tasks.data.tables.foreign_values import UnfitError, content_of, is_content, split_tags
from tasks.data.tables.notation import as_nested, is_nested
from tasks.data.tables.source_columns import roots
from tasks.params.ingestion import Source

if TYPE_CHECKING:
    from tasks.core.addresses import LocalFile

SAMPLE_ROWS = 500
WORDS = 5  # most words that a column's name may have
KNOWN = (*TEXT_NAMES, *LABEL_NAMES, *SCORE_NAMES, "id")


_WORDS = ("word", "words", "token", "tokens", "form")


@dataclass(frozen=True)
class Guess:
    """A problem type, its columns and the `ingest` values they need.

    columns  problem column: data column, or several
    reading  values of `ingest`
    notes    what the user should know of the columns that are not used
    """

    problem: str
    columns: Mapping[str, str | tuple[str, ...]]
    reading: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        columns = (f"{name}: {format_columns(columns)}" for name, columns in self.columns.items())
        return f"{self.problem} ({', '.join(columns)})"


def format_columns(columns: str | tuple[str, ...]) -> str:
    """Format one column, or several, for people."""
    return columns if isinstance(columns, str) else " + ".join(columns)


def listed(names: Sequence[str], most: int = 10) -> str:
    """The first names, for people; … stands for the others."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def sample_rows(sources: Sequence[Source], root: Path, cache: Path) -> dict[str, list[Any]]:
    """Random rows of all files of the sources, by column; the same for the same files.

    The first rows could all have one label, or none. Struct fields become columns, texts that spell
    lists become lists.
    """
    from tasks.core.progress import silent
    from tasks.data.sources.fetching import fetch

    files = [(source, file) for source in sources for file in fetch(source, root, cache, silent)]
    most = math.ceil(SAMPLE_ROWS / len(files))
    samples = [unfolded(_sample_file(source, file, most)) for source, file in files]
    names = list(dict.fromkeys(name for sample in samples for name in sample))
    rows: list[tuple[Any, ...]] = []
    for sample in samples:
        size = len(next(iter(sample.values()), []))
        rows += zip(*(sample.get(name, [None] * size) for name in names), strict=True)
    # the same file twice would make each text look like a value that recurs
    distinct = {repr(row): row for row in rows}.values()
    return {name: [row[i] for row in distinct] for i, name in enumerate(names)}


def _sample_file(source: Source, file: LocalFile, most: int) -> dict[str, list[Any]]:
    import duckdb

    from tasks.data.tables.loaded import FILE, LINE, SPLIT, LoadedFile
    from tasks.data.tables.loading import load

    with (
        tempfile.TemporaryDirectory() as scratch,
        duckdb.connect(str(Path(scratch) / "rows.duckdb")) as connection,
    ):
        connection.execute("SET enable_progress_bar=false")
        load(connection, file.path, LoadedFile("rows", file.name), source, None, Path(scratch))
        query = (
            f"SELECT * FROM (SELECT * FROM rows ORDER BY hash({LINE}) LIMIT {most}) ORDER BY {LINE}"
        )
        columns = connection.cursor().sql(query).to_arrow_table().to_pydict()
    added = {FILE, LINE} | ({SPLIT} if source.split else set())
    return {name: values for name, values in columns.items() if name not in added}


def unfolded(rows: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Columns of plain values or lists: struct fields become columns, message parts texts."""
    columns: dict[str, list[Any]] = {}
    for name, values in rows.items():
        present = [value for value in values if value not in (None, "")]
        strings = [value for value in present if isinstance(value, str)]
        most = MOSTLY * len(present)
        if present and all(isinstance(value, dict) for value in present):
            members = {key: [(value or {}).get(key) for value in values] for key in present[0]}
            columns |= unfolded({f"{name}.{key}": inner for key, inner in members.items()})
        elif present and sum(map(is_content, present)) > most:
            columns[name] = [_text_of(value) for value in values]
        elif present and sum(split_tags(value) is not None for value in strings) > most:
            columns[name] = [split_tags(value) if value else None for value in values]
        elif present and sum(map(is_nested, strings)) > most:
            columns[name] = [as_nested(value) for value in values]
        else:
            columns[name] = values
    return columns


def _text_of(content: Any) -> str | None:
    try:
        return content_of(content)
    except UnfitError:
        return None


def guess(
    rows: Mapping[str, Sequence[Any]],
    problem: str | None,
    named: Mapping[str, str],
    source: str = "",
) -> Guess:
    """Guess the problem type that explains most of the data's columns, and its columns.

    problem  the user's problem type: guess only its columns
    named    problem column: data column, as named by the user
    source   the data as the user named it, for messages
    Raises ParamsError if nothing fits; it lists the data's columns.
    """
    from tasks.problems import load_problem, problem_names

    if not any(map(len, rows.values())):
        raise DataError(
            f"init: the data has no rows, only the columns {', '.join(rows)}.",
            "Give files with rows below the header.",
        )
    for name, column in named.items():
        if not any(root in rows for root in roots(column)):
            raise ParamsError(
                f"init: the column '{column}' named for '{name}' is not in the data."
                f"{did_you_mean(column, rows)}",
                f"Its columns are {', '.join(rows)}.",
            )
    if problem is None and not named:
        _require_sentences(rows, source)
        _require_spans(rows)
    guesses = []
    for name in [problem] if problem else problem_names():
        candidate = load_problem(name).rows
        known = [*candidate.columns, *candidate.replaceable]
        unknown = [column for column in named if column not in known]
        may_guess = not unknown and (problem or named or candidate.is_meant(rows))
        guessed = candidate.guess_columns(rows) if may_guess else None
        same = {column: column for column in candidate.columns if column in rows} if named else {}
        columns = {**same, **(guessed or {}), **named}
        if not unknown and set(columns) >= set(candidate.columns):
            columns = {column: columns[column] for column in known if column in columns}
            reading = candidate.guess_reading(rows, columns) if guessed else {}
            width = sum(
                1 if isinstance(column, str) else len(column) for column in columns.values()
            )
            guesses.append((width, len(candidate.types), Guess(name, columns, reading)))
        elif problem:
            wanted = ", ".join(f"{column} ({text})" for column, text in candidate.columns.items())
            reason = (
                f"{problem} has no column {', '.join(unknown)}"
                if unknown
                else "cannot tell which columns are meant"
            )
            raise ParamsError(
                f"init: {reason}: it wants {wanted}; the data has {', '.join(rows)}.",
                "Name them: --column NAME=COLUMN.",
            )
    if not guesses:
        raise _fits_nothing(rows, problem_names())
    return max(guesses, key=lambda ranked: ranked[:2])[2]


def unused_columns(rows: Mapping[str, Sequence[Any]], guessed: Guess) -> tuple[str, ...]:
    """Notes about the data's columns that the workspace does not use."""
    used = {
        root
        for columns in guessed.columns.values()
        for column in ([columns] if isinstance(columns, str) else columns)
        for root in roots(column)
    }
    unused = list(dict.fromkeys(name for name in rows if used.isdisjoint(roots(name))))
    notes = []
    for name in unused:
        values = {str(value).lower() for value in rows[name] if value not in (None, "")}
        if len({SPLIT_WORDS[value] for value in values if value in SPLIT_WORDS}) > 1:
            notes.append(
                f"column '{name}' names splits, but rows are split by a hash of their texts. To "
                "keep its splits, write a file of each and give --train, --validation and --test."
            )
    if unused:
        notes.append(
            f"columns that are not used: {listed(unused)}. `ingest.keep` keeps them, for slices."
        )
    return tuple(notes)


def _require_sentences(rows: Mapping[str, Sequence[Any]], source: str) -> None:
    from tasks.data.tables.tag_schemes import word_tags

    if tags := word_tags(rows):
        raise ParamsError(
            f"init: each row is a single word, tagged in '{tags}'; wanted: one sentence per row, "
            "with a list of words and a list of tags.",
            _grouping(list(rows), tags, source),
        )


def _grouping(columns: Sequence[str], tags: str, source: str) -> str:
    """How to make rows of sentences of rows of words; a command where the columns are known."""
    word = next((name for name in columns if name.lower() in _WORDS), None)
    sentence = next((name for name in columns if "sent" in name.lower()), None)
    if not (word and sentence and source.endswith(".csv")):
        return "Group the words into sentences, then give that file."
    file, number, words, tag = map(json.dumps, (source, sentence, word, tags))
    code = (
        f"import pandas; d = pandas.read_csv({file}, dtype=str, keep_default_na=False); "
        # often the number stands in a sentence's first row alone
        f's = d[{number}]; s = s.mask(s == "").ffill(); '
        f"d.groupby(s, sort=False).agg(tokens=({words}, list), tags=({tag}, list))"
        '.to_json("sentences.jsonl", orient="records", lines=True)'
    )
    return f"Group them: python -c {shlex.quote(code)}\nThen give --data sentences.jsonl."


def _require_spans(rows: Mapping[str, Sequence[Any]]) -> None:
    from tasks.data.tables.tag_schemes import choices_of

    if choices := choices_of(rows):
        raise ParamsError(
            f"init: '{choices}' holds Label Studio choices: classes of whole texts, not spans.",
            "Export as CSV or JSON-MIN, where the class is a column; "
            "or extract it with `ingest.query` in params.yaml: SELECT data.text AS text, "
            f"{choices}[1].result[1].value.choices[1] AS label FROM data.",
        )


def _fits_nothing(rows: Mapping[str, Sequence[Any]], problems: Sequence[str]) -> ParamsError:
    few_valued = low_cardinality(rows)
    nested = [name for name in few_valued if any(map(is_nested, rows[name]))]
    labels = [name for name in few_valued if name not in nested]
    hint = "".join(_without_use(rows))
    if labels:
        hint += f" Columns with few distinct values: {', '.join(labels)}. "
        hint += f"Use --label {labels[0]} if that is the label."
    if nested:
        hint += " Several labels per row must be lists of texts or whole numbers; "
        hint += f"if {', '.join(nested)} holds the labels, write it like that."
    return ParamsError(
        f"init: the data's columns ({', '.join(rows)}) fit no problem type.",
        f"Name the problem type with --problem ({', '.join(problems)}) "
        f"and its columns with --column NAME=COLUMN.{hint}",
    )


def _without_use(rows: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """What is missing in columns that hold no value, or one only."""
    for name, values in rows.items():
        distinct = {str(value) for value in values if value not in (None, "")}
        if not distinct:
            yield f" Column '{name}' is empty."
        elif len(distinct) == 1 and len(values) > 1:
            yield f" Column '{name}' has one value only: a classifier needs two or more."


def require_header(rows: Mapping[str, Sequence[Any]], source: Source) -> None:
    """Raise DataError if the header seems to be a row, or not to be split by the delimiter.

    A row: a column's name is also one of its values, and some name is unlikely or none is usual.
    """
    only = next(iter(rows), "") if len(rows) == 1 else ""
    if source.delimiter is not None and (found := [mark for mark in ",;\t|" if mark in only]):
        raise DataError(
            f"{source.url}: with the delimiter {source.delimiter!r} there is one column only, "
            f"{only[:80]!r}.",
            f"Give --delimiter '{found[0]}', or leave it out: it is found by itself.",
        )
    name = source.url
    repeated = next((column for column, values in rows.items() if column in values), None)
    if repeated is not None and (
        any(map(_is_no_name, rows)) or not any(column.lower() in KNOWN for column in rows)
    ):
        raise DataError(
            f"{name}: the first line seems to be a row, not a header: "
            f"'{repeated[:40]}' is also a value in other rows.",
            "Add a header line with the column names, such as text,label; or rename that column.",
        )


def _is_no_name(column: str) -> bool:
    return len(column.split()) > WORDS or column.replace(".", "").isdigit()
