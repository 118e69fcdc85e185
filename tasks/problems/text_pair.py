"""Text pair classification: two texts that the model reads together, one of several classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.core.arrays import Columns, Floats
from tasks.data.tables.column_guesses import classes, text_pair
from tasks.problems.base import Guessed
from tasks.problems.text_classification import TextClassification


class TextPair(TextClassification):
    """Two texts, one of several classes: does one follow from the other, answer it, repeat it?

    Rows of one first text stay in one split: a question that was trained on would make its other answers easy.
    """

    name = "text-pair"
    columns = {
        "text_a": "the first text, such as a question",
        "text_b": "the second, such as an answer",
        "label": "the pair's class",
    }
    text_columns = ("text_a", "text_b")
    split_columns = ("text_a",)
    finetune_defaults = {"learning_rate": 1e-4, "head_learning_rate": None}

    def guess_columns(self, rows: Columns) -> Guessed | None:
        pair = text_pair(rows)
        label = next((name for name in classes(rows) if name not in pair), None)
        return {"text_a": pair[0], "text_b": pair[1], "label": label} if pair and label else None

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        from tasks.scoring.tfidf_baseline import tfidf_logistic_regression

        references = [labels.index(label) for label in train["label"]]
        joined = (
            [f"{a}\n{b}" for a, b in zip(rows["text_a"], rows["text_b"], strict=True)]
            for rows in (train, test)
        )
        return tfidf_logistic_regression(next(joined), references, next(joined), len(labels), seed)

    def example(self) -> dict[str, list[Any]]:
        return {
            "text_a": ["Where is the station?", "Is breakfast included?"],
            "text_b": ["Two streets from here.", "I like trains."],
        }
