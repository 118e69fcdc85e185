"""Text pair classification: two texts that the model reads together, one of several classes.

Does one follow from the other, answer it, repeat it? Rows with the same first text stay in one
split: a question that was trained on would make its other answers easy.
"""

from __future__ import annotations

from tasks.core.arrays import Columns
from tasks.data.row_format import Guessed
from tasks.data.tables.column_guesses import classes, text_pair
from tasks.problems.parts.classes import class_problem
from tasks.problems.parts.rows import Rows, class_checks


def guess_columns(rows: Columns) -> Guessed | None:
    """Two texts, and the first other column of few values."""
    pair = text_pair(rows)
    label = next((name for name in classes(rows) if name not in pair), None)
    return {"text_a": pair[0], "text_b": pair[1], "label": label} if pair and label else None


def join(rows: Columns) -> list[str]:
    """Both texts as one, for the baseline."""
    return [f"{a}\n{b}" for a, b in zip(rows["text_a"], rows["text_b"], strict=True)]


PROBLEM = class_problem(
    Rows(
        name="text-pair",
        columns={
            "text_a": "the first text, such as a question",
            "text_b": "the second, such as an answer",
            "label": "the pair's class",
        },
        text_columns=("text_a", "text_b"),
        split_columns=("text_a",),
        label_column="label",
        guess_columns=guess_columns,
        expectations=class_checks,
    ),
    {
        "text_a": ["Where is the station?", "Is breakfast included?"],
        "text_b": ["Two streets from here.", "I like trains."],
    },
    join=join,
    finetune={"learning_rate": 1e-4, "head_learning_rate": None, "pooling": "own"},
)
