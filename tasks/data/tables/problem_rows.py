"""Loaded files, or what a query made of them, as a problem's rows: which column is read from which, and as what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.core.errors import DataError, ParamsError, did_you_mean
from tasks.data.tables import queries
from tasks.data.tables.loaded import CONTENT, FILE, JSON_TEXT, LINE, SPLIT, SPLITS, Loaded, quoted
from tasks.data.tables.readings import Given, accepted, first_problem
from tasks.data.tables.source_columns import find_column, kept

if TYPE_CHECKING:
    import duckdb

    from tasks.params.schema import IngestParams
    from tasks.problems.base import Problem

PROBLEM, ORIGINAL = (
    "_problem",
    "_original",
)  # columns of the rows that are set aside: why, and how their values began
ANSWER, PRODIGYS = "answer", {"_input_hash", "_task_hash", "spans"}  # columns of Prodigy's exports


def column_mapping(problem: Problem, ingest: IngestParams) -> dict[str, tuple[str, ...]]:
    """Column of the result -> the sources' column, or columns."""
    known = [*problem.columns, *problem.replaceable]
    unknown = [
        f"'{name}'.{did_you_mean(name, known)}" for name in ingest.columns if name not in known
    ]
    if unknown:
        raise ParamsError(
            f"ingest.columns: {problem.name} has no column {' and no '.join(unknown)}",
            f"Its columns are {', '.join(known)}; further ones to keep go into `ingest.keep`.",
        )
    named = {
        name: (columns,) if isinstance(columns, str) else columns
        for name, columns in ingest.columns.items()
    }
    mapping = {name: named.get(name, (name,)) for name in problem.columns}
    mapping |= {name: columns for name, columns in named.items() if name in problem.replaceable}
    for name in ingest.keep:
        if name == "row" or mapping.get(name, (name,)) != (name,):
            raise ParamsError(
                f"ingest.keep: the name '{name}' is taken by another column.",
                "Rename it with `ingest.query`: SELECT … AS …",
            )
        mapping[name] = (name,)
    return {name: columns for name, columns in mapping.items() if name not in (FILE, LINE)}


def rows_of_columns(
    connection: duckdb.DuckDBPyConnection,
    problem: Problem,
    ingest: IngestParams,
    mapping: Mapping[str, tuple[str, ...]],
    loaded: Sequence[Sequence[Loaded]],
) -> str:
    """SQL of all files' rows with the problem's columns: each file's values are read by their own types."""
    parts, missing = [], []
    for one in (one for some in loaded for one in some):
        given = {
            name: [find_column(connection, one, column) for column in columns]
            for name, columns in mapping.items()
        }
        absent = [
            column
            for name, columns in mapping.items()
            for column, found in zip(columns, given[name], strict=True)
            if found is None
        ]
        if absent:
            wrong = (
                f"'{column}'.{did_you_mean(column, one.columns)}"
                for column in dict.fromkeys(absent)
            )
            columns = ", ".join(f"'{column}'" for column in one.columns[:30])
            missing.append(
                f"{one.name}: there is no column {' and no '.join(wrong)} Its {len(one.columns)} columns are {columns}."
            )
        elif not missing:
            found = {
                name: [column for column in columns if column] for name, columns in given.items()
            }
            places = [FILE, LINE, *([SPLIT] if ingest.sources[0].split else [])]
            answer = find_column(connection, one, ANSWER) if _is_prodigys(one, mapping) else None
            parts.append(_read(problem, ingest, found, one.table, places, answer))
    if missing:
        raise DataError(
            "\n".join(missing),
            "Name the columns in params.yaml, for example `ingest.columns: {text: sentence}`; or check `format`.",
        )
    return " UNION ALL BY NAME ".join(parts)


def rows_of_result(
    connection: duckdb.DuckDBPyConnection,
    problem: Problem,
    ingest: IngestParams,
    loaded: Sequence[Sequence[Loaded]],
) -> str:
    """SQL of what the query returned, with the problem's types and columns, once it was checked."""
    types = {
        row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE {queries.RESULT}").fetchall()
    }
    missing = [name for name in problem.columns if name not in types]
    if missing:
        raise ParamsError(
            f"ingest.query: it returns {', '.join(types)}; {problem.name} also wants {', '.join(missing)}.",
            "Name it in the query: SELECT … AS …",
        )
    if "row" in types:
        raise ParamsError(
            "ingest.query: the name 'row' is taken by the row's number.",
            "Rename that column: SELECT … AS …",
        )
    if ingest.sources[0].split and SPLIT not in types:
        raise ParamsError(
            "ingest.query: the sources name splits, but it does not return `split`.",
            "Add the column `split` to the SELECT.",
        )
    if SPLIT in types:
        found = [
            row[0]
            for row in connection.execute(
                f"SELECT DISTINCT {SPLIT} FROM {queries.RESULT} ORDER BY 1"
            ).fetchall()
        ]
        if unknown := [value for value in found if value not in SPLITS]:
            raise DataError(
                f"column `split`: wanted {', '.join(SPLITS)}, found {unknown[:5]}.",
                "Rename the values or the column in `ingest.query`.",
            )
    if taken := [
        name for name in problem.derived if name in types and name not in problem.replaceable
    ]:
        raise ParamsError(
            f"ingest: {problem.name} makes the column '{taken[0]}' itself.",
            "Leave it out, or rename it: SELECT … AS …",
        )
    mixed = {name for some in loaded for one in some for name in one.mixed}
    given = {
        name: [
            Given(name, quoted(name), JSON_TEXT if kind == "VARCHAR" and name in mixed else kind)
        ]
        for name, kind in types.items()
        if name not in (FILE, LINE, SPLIT)
    }
    return _read(
        problem,
        ingest,
        given,
        queries.RESULT,
        [name for name in (FILE, LINE, SPLIT) if name in types],
    )


def _is_prodigys(loaded: Loaded, mapping: Mapping[str, Sequence[str]]) -> bool:
    """Whether a file is an export of Prodigy, whose annotators accept, reject or ignore each row."""
    read = {column for columns in mapping.values() for column in columns}
    return (
        ANSWER in loaded.columns and ANSWER not in read and not PRODIGYS.isdisjoint(loaded.columns)
    )


def _read(
    problem: Problem,
    ingest: IngestParams,
    given: Mapping[str, Sequence[Given]],
    table: str,
    places: Sequence[str],
    answer: Given | None = None,
) -> str:
    """SQL of a table's rows with the problem's columns, what it derives from them, and in PROBLEM what is wrong with a row, if anything.

    given    what each column is read from; those that are not the problem's stay as they are
    places   columns that say where a row is from
    answer   whether the annotator accepted the row, where a column says so
    """
    own = {
        name: columns
        for name, columns in given.items()
        if name in (*problem.columns, *problem.replaceable)
    }
    readings = problem.readings(own, ingest)
    values = {
        name: readings[name].value if name in readings else kept(columns[0])
        for name, columns in given.items()
    }
    values |= {name: f"{name}::BIGINT" if name == LINE else name for name in places}
    said = first_problem({**({ANSWER: accepted(answer)} if answer else {}), **readings})
    if said:
        content = " || ' | ' || ".join(
            f"coalesce({column.text}, '')" for columns in own.values() for column in columns
        )
        values |= {
            PROBLEM: said,
            ORIGINAL: f"CASE WHEN {PROBLEM} IS NOT NULL THEN left({content}, {CONTENT}) END",
        }
    else:
        values |= {PROBLEM: "NULL::VARCHAR", ORIGINAL: "NULL::VARCHAR"}
    columns = ", ".join(f"{value} AS {quoted(name)}" for name, value in values.items())
    derived = "".join(
        f", ({expression})::{problem.types.get(name, 'VARCHAR')} AS {quoted(name)}"
        for name, expression in problem.derived.items()
        if name not in values
    )
    return f"SELECT *{derived} FROM (SELECT {columns} FROM {quoted(table)})"
