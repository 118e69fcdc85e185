"""Map loaded files, or the result of a query over them, to a problem's columns and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.core.errors import DataError, ParamsError, did_you_mean
from tasks.data.tables import queries
from tasks.data.tables.loaded import (
    CONTENT,
    FILE,
    JSON_TEXT,
    LINE,
    SPLIT,
    SPLITS,
    LoadedFile,
    quoted,
)
from tasks.data.tables.readings import SourceColumn, accepted, first_problem
from tasks.data.tables.source_columns import find_column, kept

if TYPE_CHECKING:
    import duckdb

    from tasks.data.row_format import RowFormat
    from tasks.params.ingestion import IngestParams

PROBLEM = "_problem"  # column with the reason why a row is set aside
ORIGINAL = "_original"  # column with the first characters of the values of such a row
ANSWER, PRODIGYS = "answer", {"_input_hash", "_task_hash", "spans"}  # columns of Prodigy's exports


def column_mapping(row_format: RowFormat, ingest: IngestParams) -> dict[str, tuple[str, ...]]:
    """Result column -> source columns that it is read from."""
    known = [*row_format.columns, *row_format.replaceable]
    unknown = [
        f"'{name}'.{did_you_mean(name, known)}" for name in ingest.columns if name not in known
    ]
    if unknown:
        raise ParamsError(
            f"ingest.columns: {row_format.name} has no column {' and no '.join(unknown)}",
            f"Its columns are {', '.join(known)}; list other columns to keep in `ingest.keep`.",
        )
    named = {
        name: (columns,) if isinstance(columns, str) else columns
        for name, columns in ingest.columns.items()
    }
    mapping = {name: named.get(name, (name,)) for name in row_format.columns}
    mapping |= {name: columns for name, columns in named.items() if name in row_format.replaceable}
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
    row_format: RowFormat,
    ingest: IngestParams,
    mapping: Mapping[str, tuple[str, ...]],
    loaded: Sequence[Sequence[LoadedFile]],
) -> str:
    """SQL of all files' rows with the problem's columns, each file read by its own types."""
    selects, errors = [], []
    for file in (file for files in loaded for file in files):
        columns = {
            name: [(source, find_column(connection, file, source)) for source in sources]
            for name, sources in mapping.items()
        }
        missing = [source for pairs in columns.values() for source, column in pairs if not column]
        if missing:
            wrong = (
                f"'{name}'.{did_you_mean(name, file.columns)}" for name in dict.fromkeys(missing)
            )
            shown = ", ".join(f"'{name}'" for name in file.columns[:30])
            errors.append(
                f"{file.name}: there is no column {' and no '.join(wrong)} "
                f"Its {len(file.columns)} columns are {shown}."
            )
        elif not errors:
            present = {
                name: [column for _, column in pairs if column] for name, pairs in columns.items()
            }
            origin = [FILE, LINE, *([SPLIT] if ingest.sources[0].split else [])]
            answer = find_column(connection, file, ANSWER) if _is_prodigys(file, mapping) else None
            selects.append(_read(row_format, ingest, present, file.table, origin, answer))
    if errors:
        raise DataError(
            "\n".join(errors),
            "Name the columns, for example: "
            + (
                "`ingest.columns: {text: sentence}` in params.yaml"
                if ingest.sources[0].in_params
                else "--column text=sentence"
            ),
        )
    return " UNION ALL BY NAME ".join(selects)


def rows_of_result(
    connection: duckdb.DuckDBPyConnection,
    row_format: RowFormat,
    ingest: IngestParams,
    loaded: Sequence[Sequence[LoadedFile]],
) -> str:
    """SQL of the query's result with the problem's columns and types; checks its columns first."""
    types = {
        row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE {queries.RESULT}").fetchall()
    }
    missing = [name for name in row_format.columns if name not in types]
    if missing:
        raise ParamsError(
            f"ingest.query: it returns {', '.join(types)}; "
            f"{row_format.name} also needs {', '.join(missing)}.",
            "Add it to the query: SELECT … AS …",
        )
    if "row" in types:
        raise ParamsError(
            "ingest.query: the name 'row' is reserved for the row's number.",
            "Rename that column: SELECT … AS …",
        )
    if ingest.sources[0].split and SPLIT not in types:
        raise ParamsError(
            "ingest.query: the sources have splits, but the query does not return `split`.",
            "Add the column `split` to the SELECT.",
        )
    if SPLIT in types:
        distinct = f"SELECT DISTINCT {SPLIT} FROM {queries.RESULT} ORDER BY 1"
        splits = [row[0] for row in connection.execute(distinct).fetchall()]
        if unknown := [value for value in splits if value not in SPLITS]:
            raise DataError(
                f"column `split`: wanted {', '.join(SPLITS)}, found {unknown[:5]}.",
                "Rename the values or the column in `ingest.query`.",
            )
    derived = [name for name in row_format.derived if name not in row_format.replaceable]
    if reserved := [name for name in derived if name in types]:
        raise ParamsError(
            f"ingest: {row_format.name} computes the column '{reserved[0]}' itself.",
            "Leave it out, or rename it: SELECT … AS …",
        )
    mixed = {name for files in loaded for file in files for name in file.mixed}
    types |= {name: JSON_TEXT for name in mixed if types.get(name) == "VARCHAR"}
    columns = {
        name: [SourceColumn(name, quoted(name), duckdb_type)]
        for name, duckdb_type in types.items()
        if name not in (FILE, LINE, SPLIT)
    }
    origin = [name for name in (FILE, LINE, SPLIT) if name in types]
    return _read(row_format, ingest, columns, queries.RESULT, origin)


def _is_prodigys(loaded: LoadedFile, mapping: Mapping[str, Sequence[str]]) -> bool:
    """Whether a file is a Prodigy export, where annotators accept, reject or ignore each row."""
    read = {column for columns in mapping.values() for column in columns}
    return (
        ANSWER in loaded.columns and ANSWER not in read and not PRODIGYS.isdisjoint(loaded.columns)
    )


def _read(
    row_format: RowFormat,
    ingest: IngestParams,
    sources: Mapping[str, Sequence[SourceColumn]],
    table: str,
    origin: Sequence[str],
    answer: SourceColumn | None = None,
) -> str:
    """SQL of a table's rows with the problem's columns, those derived from them, and PROBLEM.

    PROBLEM says why a row cannot be used, or is NULL.

    sources   result column -> source columns; columns that are not the problem's stay unchanged
    origin    columns that say where a row comes from
    answer    column that says whether the annotator accepted the row, if there is one
    """
    problem_columns = (*row_format.columns, *row_format.replaceable)
    own = {name: columns for name, columns in sources.items() if name in problem_columns}
    readings = row_format.readings(own, ingest)
    values = {
        name: readings[name].value if name in readings else kept(columns[0])
        for name, columns in sources.items()
    }
    values |= {name: f"{name}::BIGINT" if name == LINE else name for name in origin}
    reason = first_problem({**({ANSWER: accepted(answer)} if answer else {}), **readings})
    if reason:
        content = " || ' | ' || ".join(
            f"coalesce({column.text}, '')" for columns in own.values() for column in columns
        )
        excerpt = f"CASE WHEN {PROBLEM} IS NOT NULL THEN left({content}, {CONTENT}) END"
        values |= {PROBLEM: reason, ORIGINAL: excerpt}
    else:
        values |= {PROBLEM: "NULL::VARCHAR", ORIGINAL: "NULL::VARCHAR"}
    selected = ", ".join(f"{value} AS {quoted(name)}" for name, value in values.items())
    derived = "".join(
        f", ({expression})::{row_format.types.get(name, 'VARCHAR')} AS {quoted(name)}"
        for name, expression in row_format.derived.items()
        if name not in values
    )
    return f"SELECT *{derived} FROM (SELECT {selected} FROM {quoted(table)})"
