"""Run the user's SQL (`ingest.query`) in a sandbox that contains only the sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError, ParamsError
from tasks.data.tables.loaded import FILE, LINE, is_resource_error, one_line, quoted

if TYPE_CHECKING:
    import duckdb

RESULT = "result"  # table with the query's result, in its order
_MAX_CULPRITS = 1000


def confine(connection: duckdb.DuckDBPyConnection) -> None:
    """Deny later statements access to files, network and settings."""
    # without this, a query could read Python variables
    connection.execute("SET python_enable_replacements=false")
    connection.execute("SET enable_external_access=false")
    connection.execute("SET threads=1")  # makes the order of joins and groups deterministic
    connection.execute("SET lock_configuration=true")


def stack(connection: duckdb.DuckDBPyConnection, name: str, tables: Sequence[str]) -> None:
    """Create the view `name` of all rows of the tables, in order, columns matched by name."""
    rows = " UNION ALL BY NAME ".join(f"SELECT * FROM {quoted(table)}" for table in tables)
    connection.execute(f"CREATE OR REPLACE VIEW {quoted(name)} AS {rows}")


def run(
    connection: duckdb.DuckDBPyConnection, query: str, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Create the table `result` from the user's query over the views `names`.

    Returns the rows whose values cannot be converted; with several views that is an error.
    Raises ParamsError, with DuckDB's message and the available columns, for an invalid query.
    """
    import duckdb

    select = _require_select(connection, query)
    culprits: list[Any] = []
    try:
        try:
            _create_result(connection, select)
        except duckdb.ConversionException:
            if len(names) > 1:
                raise
            culprits = _find_culprits(connection, select, names[0])
            _create_result(connection, select)
        return culprits
    except duckdb.ConversionException as error:  # of several sources, or of no single row
        remedy = "Use TRY_CAST instead of CAST: it returns NULL for a value that is no number."
        raise _query_error(connection, names, error, remedy) from None
    except duckdb.Error as error:
        if is_resource_error(error):
            raise
        remedy = "Correct `ingest.query` in params.yaml."
        raise _query_error(connection, names, error, remedy) from None


def _require_select(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    import duckdb

    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise ParamsError(
            f"ingest.query: {one_line(error)}",
            "Correct the SQL in params.yaml; it must be in DuckDB's dialect.",
        ) from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ParamsError(
            f"ingest.query: wanted one SELECT, found {len(statements)} statements "
            "or one that is not a SELECT.",
            "Write one SELECT.",
        )
    return query.strip().rstrip(";")


def _create_result(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    # the line break terminates a trailing comment of the query
    connection.execute(f"CREATE OR REPLACE TABLE {RESULT} AS (\n{query}\n)")


def _find_culprits(
    connection: duckdb.DuckDBPyConnection, query: str, name: str
) -> list[dict[str, Any]]:
    """Find the rows that the query fails on by bisection, and remove them from the view `name`."""
    import duckdb

    numbered = f"SELECT *, row_number() OVER () AS _number FROM {quoted(name)}"
    connection.execute(f"CREATE TABLE all_rows AS {numbered}")
    view = f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT * EXCLUDE (_number) FROM all_rows"
    count = int(connection.execute("SELECT count(*) FROM all_rows").fetchall()[0][0])
    culprits: list[dict[str, Any]] = []
    pending = [(1, count)]
    while pending:
        first, last = pending.pop()
        connection.execute(f"{view} WHERE _number BETWEEN {first} AND {last}")
        try:
            _create_result(connection, query)
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
                    "Correct the query: TRY_CAST returns NULL for a value that is no number.",
                ) from None
    numbers = ", ".join(str(culprit["number"]) for culprit in culprits)
    rows = connection.execute(
        f"SELECT * FROM all_rows WHERE _number IN ({numbers}) ORDER BY _number"
    )
    names = [column[0] for column in rows.description or []]
    for culprit, values in zip(culprits, rows.fetchall(), strict=True):
        culprit["row"] = dict(zip(names, values, strict=True))
    connection.execute(f"{view} WHERE _number NOT IN ({numbers})")
    return culprits


def _query_error(
    connection: duckdb.DuckDBPyConnection, names: Sequence[str], error: Exception, remedy: str
) -> ParamsError:
    tables = []
    for name in dict.fromkeys(names):
        columns = [row[0] for row in connection.execute(f"DESCRIBE {quoted(name)}").fetchall()]
        tables.append(f"{name} ({', '.join(_origin_last(columns))})")
    return ParamsError(
        f"ingest.query: {one_line(error)} Available: {'; '.join(tables)}.",
        f"{remedy} CSV and TSV values are text: CAST them to compare numbers.",
    )


def _origin_last(columns: list[str]) -> list[str]:
    return [c for c in columns if c not in (FILE, LINE)] + [FILE, LINE]
