"""SQL that converts source columns of any type to a problem's columns, and says why a row is unfit.

A value has one form as a label, however it is stored: 1, 1.0 and '1.0' are `1`, true and 'True'
are `true`, NaN is missing. Nested values never become their printed form: the text parts of a
content are joined, and a row with any other list or object is set aside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.core.errors import DataError, ParamsError
from tasks.data.tables.loaded import JSON_TEXT, is_nested, literal
from tasks.params.labels import BLANKS, INVISIBLE, OFF, ON, WHOLE

_PARTS = re.compile(r'STRUCT\(.*"?text"? .*\)\[\]|JSON\[\]', re.DOTALL)
# start of several labels in JSON or Python notation
_LISTED = r"""^\s*(\[|\{|\(\s*(['"]|-?[\d.]+\s*,|\)\s*$)|set\(\)\s*$)"""


@dataclass(frozen=True)
class SourceColumn:
    """A source column: its name as the user writes it, its SQL and its DuckDB type."""

    name: str
    sql: str
    duckdb_type: str

    @property
    def is_json(self) -> bool:
        """Whether rows may hold values of different types."""
        return self.duckdb_type in ("JSON", JSON_TEXT)

    @property
    def is_list(self) -> bool:
        """Whether the column is a list of plain values."""
        item_type = self.duckdb_type.removesuffix("[]")
        return item_type != self.duckdb_type and item_type != "JSON" and not is_nested(item_type)

    @property
    def json(self) -> str:
        """SQL of the value as JSON text."""
        return self.sql if self.duckdb_type == JSON_TEXT else f"to_json({self.sql})::VARCHAR"

    @property
    def text(self) -> str:
        """SQL of the value as text; lists and objects as JSON."""
        if self.duckdb_type == "JSON":
            return f"({self.sql} ->> '$')"
        return self.json if is_nested(self.duckdb_type) else f"{self.sql}::VARCHAR"

    @property
    def holds_nested(self) -> str:
        """SQL of whether a row holds a list or an object."""
        if not self.is_json:
            return "false"
        is_text = self.duckdb_type == JSON_TEXT
        value = f"CASE WHEN json_valid({self.sql}) THEN {self.sql} END" if is_text else self.sql
        return f"coalesce(json_type({value}) IN ('ARRAY', 'OBJECT'), false)"


@dataclass(frozen=True)
class Reading:
    """SQL of a problem's column; `problem` is SQL of why the row cannot be used, or of NULL."""

    value: str
    problem: str | None = None


def read_text(column: SourceColumn) -> Reading:
    """Unchanged text; the text parts of a content are joined."""
    if is_nested(column.duckdb_type):
        if not _PARTS.fullmatch(column.duckdb_type):
            raise unfit(column, "text")
        return read_as(f"read_content({column.json})", "text", column.name)
    if column.is_json:
        content = f"read_content(CASE WHEN {column.holds_nested} THEN {column.json} END)"
        parts = read_as(content, "text", column.name)
        value = f"CASE WHEN {column.holds_nested} THEN {parts.value} ELSE {column.text} END"
        return Reading(value, parts.problem)
    if column.duckdb_type in ("FLOAT", "DOUBLE"):
        return Reading(f"CASE WHEN isfinite({column.sql}) THEN {column.text} END")
    return Reading(column.text)


def read_label(column: SourceColumn, *, merge: bool) -> Reading:
    """One label."""
    if is_nested(column.duckdb_type):
        raise unfit(column, "one label")
    if not column.is_json:
        return Reading(_label(column.sql, column.duckdb_type, merge))
    is_number = f"json_type({column.sql}) = 'DOUBLE'" if column.duckdb_type == "JSON" else "false"
    as_number = _label(f"TRY_CAST({column.text} AS DOUBLE)", "DOUBLE", merge)
    as_text = _label(column.text, "VARCHAR", merge)
    plain = f"WHEN {is_number} THEN {as_number} ELSE {as_text}"
    problem = literal(f"{column.name}: wanted one label, found a list or an object")
    return Reading(
        f"CASE WHEN {column.holds_nested} THEN NULL {plain} END",
        f"CASE WHEN {column.holds_nested} THEN {problem} END",
    )


def read_labels(column: SourceColumn, *, merge: bool, separator: str) -> Reading:
    """Several labels: a list, a text that spells a list, tuple or set, or a separated text."""
    if column.is_list:
        return _read_each(
            column.sql, column.duckdb_type.removesuffix("[]"), merge, column.name, "NULL"
        )
    if is_nested(column.duckdb_type):
        items = read_as(f"read_list({column.json})", "items", column.name)
        return _read_each(items.value, "VARCHAR", merge, column.name, items.problem)
    is_listed = f"coalesce(regexp_matches({column.text}, {literal(_LISTED)}), false)"
    listed = f"CASE WHEN {is_listed} THEN {column.text} END"
    items = read_as(f"read_list({listed})", "items", column.name)
    pieces = f"string_split({column.text}, {literal(separator)})"
    pieces = f"list_filter(list_transform({pieces}, lambda x: trim(x)), lambda x: x <> '')"
    value = f"CASE WHEN {is_listed} THEN {items.value} ELSE {pieces} END"
    return _read_each(value, "VARCHAR", merge, column.name, items.problem)


def read_flags(columns: Sequence[SourceColumn]) -> Reading:
    """Names of the columns that hold one of ON; the other columns must hold one of OFF.

    A missing value is an error, because it could mean either.
    """
    on_values = ", ".join(map(literal, ON))
    flag_values = ", ".join(map(literal, (*ON, *OFF)))
    names, problems = [], []
    for column in columns:
        if is_nested(column.duckdb_type):
            raise unfit(column, "0 or 1")
        value = f"coalesce({read_label(column, merge=False).value}, '')"
        names.append(f"CASE WHEN lower({value}) IN ({on_values}) THEN {literal(column.name)} END")
        missing = "missing, which is neither 0 nor 1; `ingest.query` can say what it means"
        wrong = f"{literal(f'{column.name}: wanted 0 or 1, found ')} || {value}"
        problems.append(
            f"WHEN {value} = '' THEN {literal(f'{column.name}: {missing}')} "
            f"WHEN lower({value}) NOT IN ({flag_values}) THEN {wrong}"
        )
    on = f"list_filter([{', '.join(names)}], lambda x: x IS NOT NULL)"
    return Reading(on, f"CASE {' '.join(problems)} END")


def read_other(column: SourceColumn, wanted: str) -> Reading:
    """A value cast to the DuckDB type `wanted`, also from text; NULL if it cannot be cast."""
    if is_nested(column.duckdb_type):
        if not is_nested(wanted):
            raise unfit(column, wanted)
        return Reading(f"TRY_CAST({column.sql} AS {wanted})")
    value = column.text
    if is_nested(wanted) and value != column.sql:
        value = f"TRY_CAST({value} AS JSON)"
    return Reading(f"TRY_CAST({value} AS {wanted})")


def read_as(call: str, member: str, name: str) -> Reading:
    """A call of a function of tasks.data.tables.foreign_values: a member of its result.

    name   the column's name, for the function's description of the problem
    """
    return Reading(f"{call}.{member}", f"{literal(f'{name}: ')} || {call}.problem")


def accepted(answer: SourceColumn) -> Reading:
    """An annotator's answer; a rejected or ignored row cannot be used."""
    text = answer.text
    problem = f"'the annotator''s answer is ' || {text}"
    return Reading(text, f"CASE WHEN {text} IN ('reject', 'ignore') THEN {problem} END")


def first_problem(readings: Mapping[str, Reading]) -> str | None:
    """SQL of the first reason why a row cannot be used, or of NULL; None if all rows can."""
    problems = [reading.problem for reading in readings.values() if reading.problem]
    return f"coalesce({', '.join(problems)}, NULL)" if problems else None


def one_column(name: str, columns: Sequence[SourceColumn]) -> SourceColumn:
    """The only column; ParamsError if params.yaml names several."""
    if len(columns) != 1:
        raise ParamsError(
            f"ingest.columns.{name}: wanted one column, found {len(columns)}.", "Name one."
        )
    return columns[0]


def unfit(column: SourceColumn, wanted: str) -> DataError:
    """The error for a column whose type makes all its rows unusable."""
    return DataError(
        f"column '{column.name}': wanted {wanted}, found {column.duckdb_type}.",
        "Name another column, or compute one in `ingest.query`.",
    )


def _read_each(
    labels: str, duckdb_type: str, merge: bool, name: str, problem: str | None
) -> Reading:
    value = f"list_transform({labels}, lambda x: {_label('x', duckdb_type, merge)})"
    missing = literal(f"{name}: a label of the list is missing")
    missing = f"CASE WHEN list_count({value}) < len({value}) THEN {missing} END"
    return Reading(value, f"coalesce({problem}, {missing})")


def _label(sql: str, duckdb_type: str, merge: bool) -> str:
    text = f"{sql}::VARCHAR"
    if duckdb_type.startswith(("FLOAT", "DOUBLE", "DECIMAL")):
        is_whole = f"{sql} = trunc({sql}) AND abs({sql}) < 1e38"
        # DECIMAL prints all its places
        fraction = f"rtrim({text}, '0')" if duckdb_type.startswith("DECIMAL") else text
        return (
            f"CASE WHEN NOT isfinite({sql}::DOUBLE) THEN NULL "
            f"WHEN {is_whole} THEN {sql}::HUGEINT::VARCHAR ELSE {fraction} END"
        )
    if duckdb_type != "VARCHAR" and not duckdb_type.startswith("ENUM"):
        return text
    # for speed: the tests of suffix and length spare most labels the slower ones
    is_whole = f"suffix({text}, '0') AND regexp_full_match({text}, {literal(WHOLE)})"
    whole = f"CASE WHEN prefix({text}, '-0.') THEN '0' ELSE split_part({text}, '.', 1) END"
    is_truth = f"strlen({text}) IN (4, 5) AND lower({text}) IN ('true', 'false')"
    value = f"CASE WHEN {is_whole} THEN {whole} WHEN {is_truth} THEN lower({text}) ELSE {text} END"
    if not merge:
        return value
    visible = f"regexp_replace(nfc_normalize(lower({value})), {literal(INVISIBLE)}, '', 'g')"
    return f"trim(regexp_replace({visible}, {literal(BLANKS + '+')}, ' ', 'g'), ' ')"
