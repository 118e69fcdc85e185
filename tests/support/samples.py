"""One small sample of labelled rows a problem type; a type added here is tested from then on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared import made_once
from tiny import LABELS, make_base, tiny_rows
from tiny_chat import chat_rows, make_chat_base
from tiny_entities import TYPES, tagged_rows

from tasks.params.ingestion import Source

Rows = dict[str, list[Any]]


def local(path: Path) -> Source:
    return Source(url=str(path))


@dataclass(frozen=True)
class Sample:
    """Rows with all of the problem's columns, derived ones too; some texts exceed 16 tokens.

    base  makes a tiny base model's directory; samples that share it share the model
    """

    rows: Rows
    labels: tuple[str, ...]
    base: Callable[[Path], Path] = make_base

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))

    def base_dir(self) -> Path:
        """The base model, made once a test run."""
        return made_once("base" if self.base is make_base else self.base.__name__, self.base)


def _multi_label(count: int) -> Rows:
    """Rows of two sentences with the labels of both; some have no label."""
    first, second = tiny_rows(count), tiny_rows(count, seed=1)
    pairs = zip(first["label"], second["label"], strict=True)
    labels = [[] if row % 7 == 0 else list(dict.fromkeys(pair)) for row, pair in enumerate(pairs)]
    return {
        "text": [f"{a} {b}" for a, b in zip(first["text"], second["text"], strict=True)],
        "labels": labels,
    }


def _pairs(count: int) -> Rows:
    """Pairs of texts; every two rows share the first."""
    first, second = tiny_rows(count // 2, seed=2), tiny_rows(count)
    return {
        "text_a": [text for text in first["text"] for _ in range(2)],
        "text_b": second["text"],
        "label": second["label"],
    }


def _scored_pairs(count: int) -> Rows:
    """The same with a score for a label: 1 if the second text is positive."""
    rows = _pairs(count)
    scores = [float(label == "positive") for label in rows.pop("label")]
    return rows | {"score": scores, "query": rows["text_a"]}


SAMPLES = {
    "chat": Sample(chat_rows(40), (), make_chat_base),
    "text-classification": Sample(tiny_rows(40), LABELS),
    "multi-label-classification": Sample(_multi_label(40), LABELS),
    "masked-lm": Sample({"text": tiny_rows(40)["text"]}, ()),
    "text-pair": Sample(_pairs(40), LABELS),
    "text-pair-score": Sample(_scored_pairs(40), ()),
    "token-classification": Sample(tagged_rows(40), TYPES),
}
