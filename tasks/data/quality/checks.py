"""The `Check` class, the checks that apply to any text, and the names of the facts they judge.

Besides the rows' own columns, an expectation may name these facts:

text.characters, …   of the text column `text`; see data/quality/text_facts.py
copies.first, copies.labels, label.rows, label.share
                     of a row compared with the others; see data/quality/row_facts.py
label.unknown        where a row has a list of labels: the first that is not a known label

Where a row has a list of labels, `label.rows` is that of its rarest label and `label.share` that of
its most frequent one. An aggregate expectation on `label.present` (the labels that occur) or on
`label.share` is judged on a table with one row per label.
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
    """Name of the column that holds a fact about a text column."""
    return f"{column}.{name}"


@dataclass(frozen=True)
class Check:
    """A Great Expectations expectation, with a name, an action and a description.

    name    as spelled in `validate.actions` of params.yaml
    type    the expectation, e.g. expect_column_values_to_not_be_null
    kwargs  its arguments
    action  for the rows (or the run) that fail it, unless params.yaml overrides it
    says    description for people: what is wrong with the rows that fail it
    """

    name: str
    type: str
    kwargs: Mapping[str, Any]
    action: Action
    says: str


def general_checks(text_columns: Sequence[str], validate: ValidateParams) -> list[Check]:
    """Checks for any text; with several text columns, a check's name ends in the column's name."""
    checks = [
        Check("rows", "expect_table_row_count_to_be_between", {"min_value": validate.min_rows},
              "error", f"there are fewer than {validate.min_rows} rows (validate.min_rows)"),
        Check("duplicates", "expect_column_values_to_be_null",
              {"column": FIRST_COPY, "mostly": 1 - validate.max_duplicate_share}, "warn",
              "the text repeats that of an earlier row, ignoring case, accents and punctuation"),
    ]  # fmt: skip
    for column in text_columns:
        column_checks = _text_checks(column, validate)
        if len(text_columns) > 1:
            column_checks = [
                replace(check, name=f"{check.name}.{column}") for check in column_checks
            ]
        checks += column_checks
    return checks


def _text_checks(column: str, validate: ValidateParams) -> list[Check]:
    between, null = "expect_column_values_to_be_between", "expect_column_values_to_be_null"
    shortest, longest = validate.min_length, validate.max_length
    checks = [
        Check("null_text", "expect_column_values_to_not_be_null", {"column": column},
              "quarantine", f"the {column} is missing"),
        Check("blank_text", between, {"column": fact(column, VISIBLE), "min_value": 1},
              "quarantine", f"the {column} is empty or blank"),
        Check("length", between,
              {"column": fact(column, CHARACTERS), "min_value": shortest, "max_value": longest},
              "quarantine", f"the {column} has fewer than {shortest} or more than {longest} "
              "characters (validate.min_length, max_length)"),
        Check("control_characters", between, {"column": fact(column, CONTROLS), "max_value": 0},
              "quarantine", f"the {column} has control characters"),
        Check("encoding_damage", between, {"column": fact(column, DAMAGE), "max_value": 0},
              "warn", f"the {column} looks as if it was decoded with the wrong encoding"),
        Check("personal_data", null, {"column": fact(column, PERSONAL)},
              "warn", f"the {column} may hold personal data (e-mail, phone or card numbers)"),
    ]  # fmt: skip
    if validate.script:
        mostly_script = {"column": fact(column, SCRIPT), "min_value": MIN_SCRIPT_SHARE}
        says = f"most letters of the {column} are not {validate.script} (validate.script)"
        checks.append(Check("script", between, mostly_script, "warn", says))
    return checks


def own_check(number: int, own: Expectation) -> Check:
    """The check for a user's expectation, named by its index in `validate.expectations`."""
    says = f"{own.type} {json.dumps(own.kwargs, ensure_ascii=False, default=str)}"
    return Check(f"expectations.{number}", own.type, own.kwargs, own.action, says)
