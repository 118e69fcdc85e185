"""Checks on the rows: what a check is, those that hold for any text, and the facts that checks may judge.

Beside the rows' own columns an expectation may name these: of a text column `text` the facts `text.characters` and so on (see
data/quality/text_facts.py); of a row among the others `copies.first` and `copies.labels`, and of its label `label.rows` and `label.share`
(see data/quality/row_facts.py). Where a row has a list of labels, `label.rows` and `label.share` are those of its rarest and of its most
frequent label, and there is `label.unknown`, its first that is not known. What is said of `label.present`, the labels that rows have,
or of `label.share` as a whole is judged on a table of the labels, one a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.params.schema import Action, Expectation, ValidateParams

CHARACTERS, VISIBLE, CONTROLS = "characters", "visible", "control_characters"
SCRIPT, DAMAGE, PERSONAL = "script_share", "encoding_damage", "personal_data"
FIRST_COPY, COPIES_LABELS = "copies.first", "copies.labels"
LABEL_ROWS, LABEL_SHARE = "label.rows", "label.share"
LABEL_UNKNOWN, LABEL_PRESENT = "label.unknown", "label.present"
MIN_SCRIPT_SHARE = 0.5  # of a text's letters


def fact(column: str, name: str) -> str:
    """The column that holds a fact of a text column."""
    return f"{column}.{name}"


@dataclass(frozen=True)
class Check:
    """One expectation on the data, in Great Expectations' terms.

    name    as `validate.actions` of params.yaml spells it
    type    the expectation, e.g. expect_column_values_to_not_be_null
    kwargs  its arguments
    action  what happens to rows (or to the run) that miss it, unless params.yaml says otherwise
    says    for people: what is wrong with the rows that miss it
    """

    name: str
    type: str
    kwargs: Mapping[str, Any]
    action: Action
    says: str


def general_checks(text_columns: Sequence[str], validate: ValidateParams) -> list[Check]:
    """What holds for any text; with several text columns a check's name ends in the column's."""
    checks = [
        Check("rows", "expect_table_row_count_to_be_between", {"min_value": validate.min_rows}, "error",
              f"there are fewer than {validate.min_rows} rows (validate.min_rows)"),
        Check("duplicates", "expect_column_values_to_be_null", {"column": FIRST_COPY, "mostly": 1 - validate.max_duplicate_share}, "warn",
              "the text is that of an earlier row, case, accents and punctuation aside"),
    ]  # fmt: skip
    for column in text_columns:
        own = _text_checks(column, validate)
        checks += (
            own
            if len(text_columns) == 1
            else [replace(check, name=f"{check.name}.{column}") for check in own]
        )
    return checks


def _text_checks(column: str, validate: ValidateParams) -> list[Check]:
    between, null = "expect_column_values_to_be_between", "expect_column_values_to_be_null"
    shortest, longest = validate.min_length, validate.max_length
    checks = [
        Check("null_text", "expect_column_values_to_not_be_null", {"column": column}, "quarantine", f"the {column} is missing"),
        Check("blank_text", between, {"column": fact(column, VISIBLE), "min_value": 1}, "quarantine", f"the {column} is empty or blank"),
        Check("length", between, {"column": fact(column, CHARACTERS), "min_value": shortest, "max_value": longest}, "quarantine",
              f"the {column} has fewer than {shortest} or more than {longest} characters (validate.min_length, max_length)"),
        Check("control_characters", between, {"column": fact(column, CONTROLS), "max_value": 0}, "quarantine",
              f"the {column} has control characters"),
        Check("encoding_damage", between, {"column": fact(column, DAMAGE), "max_value": 0}, "warn",
              f"the {column} looks as if it had been decoded with a wrong encoding"),
        Check("personal_data", null, {"column": fact(column, PERSONAL)}, "warn",
              f"the {column} may hold personal data (e-mail, phone or card numbers)"),
    ]  # fmt: skip
    if validate.script:
        says = f"most letters of the {column} are not {validate.script} (validate.script)"
        checks.append(
            Check(
                "script",
                between,
                {"column": fact(column, SCRIPT), "min_value": MIN_SCRIPT_SHARE},
                "warn",
                says,
            )
        )
    return checks


def own_check(number: int, own: Expectation) -> Check:
    """An expectation of the user's, named by its place in the list."""
    says = f"{own.type} {json.dumps(own.kwargs, ensure_ascii=False, default=str)}"
    return Check(f"expectations.{number}", own.type, own.kwargs, own.action, says)
