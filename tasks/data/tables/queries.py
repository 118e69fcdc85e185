"""The SQL that maps sources to columns, run where it can reach nothing but the sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError, ParamsError
from tasks.data.tables.loaded import FILE, LINE, no_fault_of_data, one_line, quoted

if TYPE_CHECKING:
    import duckdb

RESULT = "result"  # the table that holds what the query returned, in its order
_MAX_CULPRITS = 1000


def confine(connection: duckdb.DuckDBPyConnection) -> None:
    """Take files, network and settings away from whatever runs next."""
    connection.execute(
        "SET python_enable_replacements=false"
    )  # or a query could read variables of ours
    connection.execute("SET enable_external_access=false")
    connection.execute("SET threads=1")  # joins and groups come in one order only then
    connection.execute("SET lock_configuration=true")


def stack(connection: duckdb.DuckDBPyConnection, name: str, tables: Sequence[str]) -> None:
    """Make `name` stand for all rows of the tables, in order, columns matched by name."""
    rows = " UNION ALL BY NAME ".join(f"SELECT * FROM {quoted(table)}" for table in tables)
    connection.execute(f"CREATE OR REPLACE VIEW {quoted(name)} AS {rows}")


def run(
    connection: duckdb.DuckDBPyConnection, query: str, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Make the table `result` from the user's query over the views `names`; returns the rows whose values could not be converted.

    Raises ParamsError, with DuckDB's words and the columns there are, for a wrong query.
    """
    import duckdb

    text = _checked(connection, query)
    try:
        _create(connection, text)
        return []
    except duckdb.ConversionException as error:
        if len(names) > 1:
            raise _wrong(
                connection,
                names,
                error,
                "Use TRY_CAST instead of CAST: it makes NULL of what is no number.",
            ) from None
    except duckdb.Error as error:
        if no_fault_of_data(error):
            raise
        raise _wrong(connection, names, error, "Mend `ingest.query` in params.yaml.") from None
    culprits = _find_culprits(connection, text, names[0])
    _create(connection, text)
    return culprits


def _checked(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    import duckdb

    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise ParamsError(
            f"ingest.query: {one_line(error)}",
            "Mend the SQL in params.yaml; DuckDB's dialect is meant.",
        ) from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ParamsError(
            f"ingest.query: wanted one SELECT, found {len(statements)} statements or one of another kind.",
            "Write one SELECT.",
        )
    return query.strip().rstrip(";")


def _create(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    # the line break ends a comment that the query may end with
    connection.execute(f"CREATE OR REPLACE TABLE {RESULT} AS (\n{query}\n)")


def _find_culprits(
    connection: duckdb.DuckDBPyConnection, query: str, name: str
) -> list[dict[str, Any]]:
    """The rows that the query fails on, found by halving; afterwards the view `name` is without them."""
    import duckdb

    connection.execute(
        f"CREATE TABLE all_rows AS SELECT *, row_number() OVER () AS _number FROM {quoted(name)}"
    )
    count = int(connection.execute("SELECT count(*) FROM all_rows").fetchall()[0][0])
    culprits: list[dict[str, Any]] = []
    pending = [(1, count)]
    while pending:
        first, last = pending.pop()
        view = f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT * EXCLUDE (_number) FROM all_rows"
        connection.execute(f"{view} WHERE _number BETWEEN {first} AND {last}")
        try:
            _create(connection, query)
        except duckdb.ConversionException as error:
            if first < last:
                middle = (first + last) // 2
                pending += [(middle + 1, last), (first, middle)]
                continue
            culprits.append({"number": first, "reason": f"ingest.query: {one_line(error)}"})
            if len(culprits) > _MAX_CULPRITS:
                first_reason = str(culprits[0]["reason"]).removeprefix("ingest.query: ")
                raise DataError(
                    f"ingest.query: more than {_MAX_CULPRITS} of {count} rows cannot be converted; "
                    f"row {culprits[0]['number']}: {first_reason}",
                    "Mend the query: TRY_CAST makes NULL of what is no number.",
                ) from None
    numbers = ", ".join(str(culprit["number"]) for culprit in culprits)
    rows = connection.execute(
        f"SELECT * FROM all_rows WHERE _number IN ({numbers}) ORDER BY _number"
    )
    names = [column[0] for column in rows.description or []]
    for culprit, values in zip(culprits, rows.fetchall(), strict=True):
        culprit["row"] = dict(zip(names, values, strict=True))
    connection.execute(
        f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT * EXCLUDE (_number) FROM all_rows WHERE _number NOT IN ({numbers})"
    )
    return culprits


def _wrong(
    connection: duckdb.DuckDBPyConnection, names: Sequence[str], error: Exception, remedy: str
) -> ParamsError:
    tables = []
    for name in dict.fromkeys(names):
        columns = [row[0] for row in connection.execute(f"DESCRIBE {quoted(name)}").fetchall()]
        tables.append(f"{name} ({', '.join(_ours_last(columns))})")
    return ParamsError(
        f"ingest.query: {one_line(error)} There is: {'; '.join(tables)}.",
        f"{remedy} CSV and TSV values are text: CAST them to compare numbers.",
    )


def _ours_last(columns: list[str]) -> list[str]:
    return [c for c in columns if c not in (FILE, LINE)] + [FILE, LINE]
