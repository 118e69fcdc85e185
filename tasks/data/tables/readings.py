"""How sources' columns, whatever their types, become a problem's: SQL of the value, and of why a row cannot be used.

A label has one form for one value, however it is stored: 1, 1.0 and '1.0' are `1`, true and 'True' are `true`, NaN is missing.
Nested values never become their printed form: text parts of a content are joined, any other list or object sets its row aside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.core.errors import DataError, ParamsError
from tasks.data.tables.loaded import JSON_TEXT, is_nested, literal
from tasks.params.labels import BLANKS, OFF, ON, WHOLE

_PARTS = re.compile(r'STRUCT\(.*"?text"? .*\)\[\]|JSON\[\]', re.DOTALL)
_LISTED = r"""^\s*(\[|\{|\(\s*(['"]|-?[\d.]+\s*,|\)\s*$)|set\(\)\s*$)"""  # how several labels begin in JSON's and Python's notation


@dataclass(frozen=True)
class Given:
    """A value of the sources: its name as the user knows it, its SQL, and DuckDB's name of its type."""

    name: str
    sql: str
    kind: str

    @property
    def is_json(self) -> bool:
        """Whether rows may hold values of different types."""
        return self.kind in ("JSON", JSON_TEXT)

    @property
    def is_list(self) -> bool:
        """Whether all rows hold lists of plain values."""
        return (
            self.kind.endswith("[]")
            and not is_nested(self.kind.removesuffix("[]"))
            and self.kind != "JSON[]"
        )

    @property
    def json(self) -> str:
        """SQL of the value as JSON's text."""
        return self.sql if self.kind == JSON_TEXT else f"to_json({self.sql})::VARCHAR"

    @property
    def text(self) -> str:
        """SQL of the value as text; lists and objects as JSON."""
        if self.kind == "JSON":
            return f"({self.sql} ->> '$')"
        return self.json if is_nested(self.kind) else f"{self.sql}::VARCHAR"

    @property
    def holds_nested(self) -> str:
        """SQL: whether a row holds a list or an object."""
        value = (
            f"CASE WHEN json_valid({self.sql}) THEN {self.sql} END"
            if self.kind == JSON_TEXT
            else self.sql
        )
        return (
            f"coalesce(json_type({value}) IN ('ARRAY', 'OBJECT'), false)"
            if self.is_json
            else "false"
        )


@dataclass(frozen=True)
class Reading:
    """SQL of one of a problem's columns; `problem` is SQL of what is wrong with the row, NULL where nothing is."""

    value: str
    problem: str | None = None


def read_text(given: Given) -> Reading:
    """Text as it is written."""
    if is_nested(given.kind):
        if not _PARTS.fullmatch(given.kind):
            raise unfit(given, "text")
        return read_as(f"read_content({given.json})", "text", given.name)
    if given.is_json:
        content = f"read_content(CASE WHEN {given.holds_nested} THEN {given.json} END)"
        parts = read_as(content, "text", given.name)
        return Reading(
            f"CASE WHEN {given.holds_nested} THEN {parts.value} ELSE {given.text} END",
            parts.problem,
        )
    if given.kind in ("FLOAT", "DOUBLE"):
        return Reading(f"CASE WHEN isfinite({given.sql}) THEN {given.text} END")
    return Reading(given.text)


def read_label(given: Given, *, merge: bool) -> Reading:
    """One label."""
    if is_nested(given.kind):
        raise unfit(given, "one label")
    if not given.is_json:
        return Reading(_label(given.sql, given.kind, merge))
    number = f"json_type({given.sql}) = 'DOUBLE'" if given.kind == "JSON" else "false"
    as_number, as_text = (
        _label(f"TRY_CAST({given.text} AS DOUBLE)", "DOUBLE", merge),
        _label(given.text, "VARCHAR", merge),
    )
    return Reading(
        f"CASE WHEN {given.holds_nested} THEN NULL WHEN {number} THEN {as_number} ELSE {as_text} END",
        f"CASE WHEN {given.holds_nested} THEN {literal(f'{given.name}: wanted one label, found a list or an object')} END",
    )


def read_labels(given: Given, *, merge: bool, separator: str) -> Reading:
    """Several labels: a list, also a list, tuple or set that JSON or Python wrote, or a text with a separator between each two."""
    if given.is_list:
        return _read_each(given.sql, given.kind.removesuffix("[]"), merge, given.name, "NULL")
    if is_nested(given.kind):
        found = read_as(f"read_list({given.json})", "items", given.name)
        return _read_each(found.value, "VARCHAR", merge, given.name, found.problem)
    written = f"coalesce(regexp_matches({given.text}, {literal(_LISTED)}), false)"
    found = read_as(f"read_list(CASE WHEN {written} THEN {given.text} END)", "items", given.name)
    pieces = f"list_filter(list_transform(string_split({given.text}, {literal(separator)}), lambda x: trim(x)), lambda x: x <> '')"
    return _read_each(
        f"CASE WHEN {written} THEN {found.value} ELSE {pieces} END",
        "VARCHAR",
        merge,
        given.name,
        found.problem,
    )


def read_flags(given: Sequence[Given]) -> Reading:
    """The names of the columns that hold one of ON; the others have to hold one of OFF: what is missing is not known to be either."""
    on, wrong = [], []
    for column in given:
        if is_nested(column.kind):
            raise unfit(column, "0 or 1")
        value = f"coalesce({read_label(column, merge=False).value}, '')"
        on.append(
            f"CASE WHEN lower({value}) IN ({', '.join(map(literal, ON))}) THEN {literal(column.name)} END"
        )
        missing = literal(
            f"{column.name}: missing, which is neither 0 nor 1; `ingest.query` can say what it means"
        )
        other = f"{literal(f'{column.name}: wanted 0 or 1, found ')} || {value}"
        wrong.append(
            f"WHEN {value} = '' THEN {missing} WHEN lower({value}) NOT IN ({', '.join(map(literal, (*ON, *OFF)))}) THEN {other}"
        )
    return Reading(
        f"list_filter([{', '.join(on)}], lambda x: x IS NOT NULL)", f"CASE {' '.join(wrong)} END"
    )


def read_other(given: Given, wanted: str) -> Reading:
    """A value of another type, which texts may spell; NULL where it is none."""
    if is_nested(wanted) != is_nested(given.kind) and is_nested(given.kind):
        raise unfit(given, wanted)
    value = given.sql if is_nested(given.kind) else given.text
    return Reading(
        f"TRY_CAST({f'TRY_CAST({value} AS JSON)' if is_nested(wanted) and value != given.sql else value} AS {wanted})"
    )


def read_as(call: str, member: str, name: str) -> Reading:
    """What a function of tasks.data.tables.foreign_values finds: a member of its structure, and what is wrong with the column `name`."""
    return Reading(f"{call}.{member}", f"{literal(f'{name}: ')} || {call}.problem")


def accepted(answer: Given) -> Reading:
    """An annotator's answer; a row that was rejected or ignored cannot be used."""
    return Reading(
        answer.text,
        f"CASE WHEN {answer.text} IN ('reject', 'ignore') THEN 'the annotator''s answer is ' || {answer.text} END",
    )


def first_problem(readings: Mapping[str, Reading]) -> str | None:
    """SQL of the first thing that is wrong with a row, NULL where nothing is; None where nothing can be."""
    said = [reading.problem for reading in readings.values() if reading.problem]
    return f"coalesce({', '.join(said)}, NULL)" if said else None


def one_column(name: str, columns: Sequence[Given]) -> Given:
    """The only one; ParamsError where params.yaml names several."""
    if len(columns) != 1:
        raise ParamsError(
            f"ingest.columns.{name}: wanted one column, found {len(columns)}.", "Name one."
        )
    return columns[0]


def unfit(given: Given, wanted: str) -> DataError:
    """The error for a column of which no row can be used."""
    return DataError(
        f"column '{given.name}': wanted {wanted}, found {given.kind}.",
        "Name another column, or make one in `ingest.query`.",
    )


def _read_each(labels: str, kind: str, merge: bool, name: str, problem: str | None) -> Reading:
    value = f"list_transform({labels}, lambda x: {_label('x', kind, merge)})"
    missing = f"CASE WHEN list_count({value}) < len({value}) THEN {literal(f'{name}: a label of the list is missing')} END"
    return Reading(value, f"coalesce({problem}, {missing})")


def _label(sql: str, kind: str, merge: bool) -> str:
    text = f"{sql}::VARCHAR"
    if kind.startswith(("FLOAT", "DOUBLE", "DECIMAL")):
        whole = f"{sql} = trunc({sql}) AND abs({sql}) < 1e38"
        return f"CASE WHEN NOT isfinite({sql}::DOUBLE) THEN NULL WHEN {whole} THEN {sql}::HUGEINT::VARCHAR ELSE {text} END"
    if kind != "VARCHAR" and not kind.startswith("ENUM"):
        return text
    # a look at the end or at the length spares nearly every label what takes longer
    whole = f"suffix({text}, '0') AND regexp_full_match({text}, {literal(WHOLE)})"
    truth = f"strlen({text}) IN (4, 5) AND lower({text}) IN ('true', 'false')"
    value = (
        f"CASE WHEN {whole} THEN CASE WHEN prefix({text}, '-0.') THEN '0' ELSE split_part({text}, '.', 1) END "
        f"WHEN {truth} THEN lower({text}) ELSE {text} END"
    )
    return f"trim(lower({value}), {literal(BLANKS)})" if merge else value
