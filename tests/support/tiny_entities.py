"""Made-up sentences with entities: words of the tiny vocabulary, and names it spells by letter."""

from __future__ import annotations

import random
from typing import Any

from tiny import FILLER

TYPES = ("LOC", "PER")
NAMES = {
    "PER": ("Anna", "Anna Berg", "Otto", "Otto Lang", "Ida", "Ida Roth", "Max", "Max Thal"),
    "LOC": ("Paris", "New York", "Oslo", "Rome", "Bad Ems", "Lima"),
}


def tagged_rows(count: int, seed: int = 0) -> dict[str, list[Any]]:
    """Columns tokens, tags, text, entities, domain.

    One row in five has no entity; some exceed 64 tokens.
    """
    draw = random.Random(seed)
    columns = ("tokens", "tags", "text", "entities", "domain")
    rows: dict[str, list[Any]] = {column: [] for column in columns}
    seen: set[str] = set()
    while len(rows["text"]) < count:
        words = draw.choices(FILLER, k=draw.randint(4, 14))
        spans = [
            (draw.choice(NAMES[entity]).split(), entity)
            for entity in draw.choices(TYPES, k=draw.randint(1, 3))
        ]
        tokens, tags = list(words), ["O"] * len(words)
        for name, entity in spans if draw.random() < 0.8 else []:
            # a word before each, so that no two entities touch
            tokens += [draw.choice(("near", "with", "for")), *name]
            tags += ["O", f"B-{entity}", *[f"I-{entity}"] * (len(name) - 1)]
        text = " ".join(tokens)
        if text not in seen:
            seen.add(text)
            row = {
                "tokens": tokens,
                "tags": tags,
                "text": text,
                "entities": sorted({tag[2:] for tag in tags if tag != "O"}),
            }
            for column, value in {**row, "domain": draw.choice(("films", "hotels"))}.items():
                rows[column].append(value)
    return rows
