"""Small changes of tagged words that leave their tags as they are (CheckList, Ribeiro et al. 2020).

Each change rests on the words, the tags and the seed alone, so that neither the rows' order nor their number matters.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.ragged import as_wide
from tasks.encoding.spans import find_spans
from tasks.encoding.words import find_words, join_words
from tasks.scoring.behaviour import spread, swap_letters
from tasks.scoring.spans import predicted_tags, word_tags

if TYPE_CHECKING:
    from tasks.core.arrays import Floats

SWAP = "another entity of the type"

Words = Sequence[str]
# (words, their entities as (start, end, type), draw) to as many words; gives them back where it does not apply
Change = Callable[[Words, Sequence[tuple[int, int, int]], random.Random], list[str]]


@dataclass(frozen=True)
class AlteredWords:
    """Words of some rows and what became of them, as many and in the same order; `entities` are those that the change knew of."""

    name: str
    before: list[Words]
    after: list[Words]
    entities: list[Sequence[tuple[int, int, int]]]

    @property
    def replaced(self) -> list[tuple[int, int, int] | None]:
        """The entity whose words are others now, of each row; None where none is."""
        rows = zip(self.before, self.after, self.entities, strict=True)
        return [
            next((span for span in spans if old[span[0] : span[1]] != new[span[0] : span[1]]), None)
            for old, new, spans in rows
        ]


def altered_words(
    words: Sequence[Words], entities: Sequence[Sequence[tuple[int, int, int]]], rows: int, seed: int
) -> list[AlteredWords]:
    """Each kind of change on at most `rows` of the rows that it applies to; kinds that apply to none are left out."""
    pool = _pool(words, entities)
    changes: dict[str, Change] = {
        SWAP: lambda given, spans, draw: _swap(given, spans, draw, pool),
        "lower case": lambda given, spans, draw: [word.lower() for word in given],
        "a typo outside of entities": _misspell,
    }
    found = [_alter(name, change, words, entities, rows, seed) for name, change in changes.items()]
    return [altered for altered in found if altered.before]


def _alter(
    name: str,
    change: Change,
    words: Sequence[Words],
    entities: Sequence[Sequence[tuple[int, int, int]]],
    rows: int,
    seed: int,
) -> AlteredWords:
    altered = AlteredWords(name, [], [], [])
    places = {" ".join(given): place for place, given in enumerate(words)}
    for text in spread(places, seed):
        if len(altered.before) == rows:
            break
        given = words[places[text]]
        changed = change(given, entities[places[text]], random.Random(f"{seed} {name} {text}"))
        if changed != list(given):
            altered.before.append(given)
            altered.after.append(changed)
            altered.entities.append(entities[places[text]])
    return altered


def _pool(
    words: Sequence[Words], entities: Sequence[Sequence[tuple[int, int, int]]]
) -> dict[tuple[int, int], list[tuple[str, ...]]]:
    """(type, number of words) -> the entities of that kind, distinct and sorted."""
    pool: dict[tuple[int, int], set[tuple[str, ...]]] = {}
    for given, spans in zip(words, entities, strict=True):
        for start, end, kind in spans:
            pool.setdefault((kind, end - start), set()).add(tuple(given[start:end]))
    return {key: sorted(found) for key, found in pool.items()}


def _swap(
    words: Words,
    spans: Sequence[tuple[int, int, int]],
    draw: random.Random,
    pool: dict[tuple[int, int], list[tuple[str, ...]]],
) -> list[str]:
    """One entity replaced by another of its type and number of words."""
    if not spans:
        return list(words)
    start, end, kind = draw.choice(spans)
    others = [other for other in pool[kind, end - start] if other != tuple(words[start:end])]
    return [*words[:start], *draw.choice(others), *words[end:]] if others else list(words)


def _misspell(
    words: Words, spans: Sequence[tuple[int, int, int]], draw: random.Random
) -> list[str]:
    """Two letters swapped in one word that is in no entity."""
    inside = {place for start, end, _ in spans for place in range(start, end)}
    changed = {
        place: swap_letters(word, draw) for place, word in enumerate(words) if place not in inside
    }
    places = [place for place, word in changed.items() if word != words[place]]
    if not places:
        return list(words)
    chosen = draw.choice(places)
    return [*words[:chosen], changed[chosen], *words[chosen + 1 :]]


def still_found(
    outputs: Floats, others: Floats | None, *, replaced: Sequence[tuple[int, int, int] | None]
) -> npt.NDArray[np.bool_]:
    """True where the entity that was replaced is found if the one before was, and of the others at least half are in both."""
    found, before = _spans(outputs, others)
    rows = zip(replaced, found, before, strict=True)
    return np.asarray(
        [
            (span not in old or span in new) and _mostly_same(new - {span}, old - {span})
            for span, new, old in rows
        ],
        bool,
    )


def mostly_found(outputs: Floats, others: Floats | None) -> npt.NDArray[np.bool_]:
    """True where at least half of the entities of either are in both: one of several that goes is no other answer."""
    return np.asarray(
        [_mostly_same(new, old) for new, old in zip(*_spans(outputs, others), strict=True)], bool
    )


def _spans(outputs: Floats, others: Floats | None) -> list[list[set[tuple[int, int, int] | None]]]:
    """(those of each row now, those before)."""
    assert others is not None
    return [
        [set(row) for row in find_spans(predicted_tags(some)).by_row(len(some))]
        for some in as_wide(outputs, others)
    ]


def _mostly_same(new: Set[Any], old: Set[Any]) -> bool:
    return 2 * len(new & old) >= len(new | old)


def same_spans(
    outputs: Floats, others: Floats | None, *, texts: Sequence[str], tokens: Sequence[Sequence[str]]
) -> npt.NDArray[np.bool_]:
    """True where both have the same entities by their characters, though their words may be others."""
    assert others is not None
    found = []
    for some, words in (
        (outputs, list(map(find_words, texts))),
        (others, [join_words(given)[1] for given in tokens]),
    ):
        spans = find_spans(word_tags(some, words)).by_row(len(texts))
        found.append(
            [
                {(words[row][i][0], words[row][j - 1][1], kind) for i, j, kind in one}
                for row, one in enumerate(spans)
            ]
        )
    return np.asarray([ours == theirs for ours, theirs in zip(*found, strict=True)], bool)


def have(outputs: Floats, others: Floats | None, *, label: int) -> npt.NDArray[np.bool_]:
    """True where some word is of the type."""
    tags = predicted_tags(outputs)
    have: npt.NDArray[np.bool_] = ((tags > 0) & ((tags - 1) // 2 == label)).any(-1)
    return have


def moves(
    outputs: Floats, others: Floats | None, *, label: int, sign: int, tolerance: float
) -> npt.NDArray[np.bool_]:
    """True where the largest probability of a word being of the type moved the way of `sign`, or at most `tolerance` the other way."""
    from scipy.special import softmax

    assert others is not None
    now, before = (
        np.nanmax(softmax(some, -1)[..., 1 + 2 * label : 3 + 2 * label].sum(-1), -1)
        for some in (outputs, others)
    )
    moved: npt.NDArray[np.bool_] = sign * (now - before) >= -tolerance
    return moved
