"""The plain method that a fine-tuned tagger has to beat: a list of the entities of the training rows, looked up word by word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.encoding.spans import find_spans

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats

CERTAINTY = 0.95  # probability of the tag that is looked up; the others share the rest


def gazetteer(
    train: Sequence[Sequence[str]], references: Array, held_out: Sequence[Sequence[str]], tags: int
) -> Floats:
    """Log-probabilities (n, words, tags) for the words of `held_out`; NaN past a row's words.

    references  (rows, words) tags of the training words, below 0 past a row's
    Each run of words that was an entity gets its most frequent type, of several at one place the longest; case counts.
    """
    known: dict[tuple[str, ...], Counter[int]] = {}
    for words, spans in zip(train, find_spans(references).by_row(len(train)), strict=True):
        for start, end, kind in spans:
            known.setdefault(tuple(words[start:end]), Counter())[kind] += 1
    types = {
        entity: max(counts, key=lambda kind: (counts[kind], -kind))
        for entity, counts in known.items()
    }
    longest = max(map(len, types), default=0)
    found = np.full((len(held_out), max(1, *map(len, held_out)), tags), np.nan, np.float32)
    for row, words in enumerate(held_out):
        chosen = np.asarray(_look_up(words, types, longest), np.int64)
        found[row, : len(words)] = np.log((1 - CERTAINTY) / (tags - 1))
        found[row, np.arange(len(words)), chosen] = np.log(CERTAINTY)
    return found


def _look_up(words: Sequence[str], types: dict[tuple[str, ...], int], longest: int) -> list[int]:
    tags: list[int] = []
    while len(tags) < len(words):
        start = len(tags)
        for length in range(min(longest, len(words) - start), 0, -1):
            kind = types.get(tuple(words[start : start + length]))
            if kind is not None:
                tags += [1 + 2 * kind, *[2 + 2 * kind] * (length - 1)]
                break
        else:
            tags.append(0)
    return tags
