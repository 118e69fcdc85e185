"""Baseline for a fine-tuned tagger: a gazetteer (list) of the entities in the training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.encoding.spans import find_spans

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats

CERTAINTY = 0.95  # probability of the tag looked up; the other tags share the rest


def gazetteer(
    train: Sequence[Sequence[str]], references: Array, held_out: Sequence[Sequence[str]], tags: int
) -> Floats:
    """Log-probabilities (n, words, tags) for the words of `held_out`; NaN past a row's words.

    references  (rows, words) tags of the training words, below 0 past a row's words
    A run of words seen as an entity gets its most frequent type; the longest match wins. Case
    matters.
    """
    known: dict[tuple[str, ...], Counter[int]] = {}
    for words, spans in zip(train, find_spans(references).by_row(len(train)), strict=True):
        for start, end, type_id in spans:
            known.setdefault(tuple(words[start:end]), Counter())[type_id] += 1
    types = {
        entity: max(counts, key=lambda type_id: (counts[type_id], -type_id))
        for entity, counts in known.items()
    }
    longest = max(map(len, types), default=0)
    outputs = np.full((len(held_out), max(1, *map(len, held_out)), tags), np.nan, np.float32)
    for row, words in enumerate(held_out):
        predicted = np.asarray(_look_up(words, types, longest), np.int64)
        outputs[row, : len(words)] = np.log((1 - CERTAINTY) / (tags - 1))
        outputs[row, np.arange(len(words)), predicted] = np.log(CERTAINTY)
    return outputs


def _look_up(words: Sequence[str], types: dict[tuple[str, ...], int], longest: int) -> list[int]:
    tags: list[int] = []
    while len(tags) < len(words):
        start = len(tags)
        for length in range(min(longest, len(words) - start), 0, -1):
            type_id = types.get(tuple(words[start : start + length]))
            if type_id is not None:
                tags += [1 + 2 * type_id, *[2 + 2 * type_id] * (length - 1)]
                break
        else:
            tags.append(0)
    return tags
