"""Text classification: one text, one of several classes."""

from __future__ import annotations

from tasks.core.arrays import Columns
from tasks.data.row_format import Guessed
from tasks.data.tables.column_guesses import classes, texts
from tasks.problems.parts.classes import class_problem
from tasks.problems.parts.rows import Rows, class_checks


def guess_columns(rows: Columns) -> Guessed | None:
    """The first text, and the first other column of few values."""
    text = next(iter(texts(rows)), None)
    label = next((name for name in classes(rows) if name != text), None)
    return {"text": text, "label": label} if text and label else None


PROBLEM = class_problem(
    Rows(
        name="text-classification",
        columns={"text": "the text", "label": "its class"},
        text_columns=("text",),
        label_column="label",
        guess_columns=guess_columns,
        expectations=class_checks,
    ),
    {"text": ["The room was clean and the staff were kind.", "It broke after two days."]},
    join=lambda rows: rows["text"],
)
