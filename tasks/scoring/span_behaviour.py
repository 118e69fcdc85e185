"""Small edits of tagged words that keep their tags (CheckList, Ribeiro et al. 2020).

An edit depends on the words, the tags and the seed alone, not on the order or number of the rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.ragged import pad_to_common_shape
from tasks.encoding.spans import find_spans
from tasks.encoding.words import find_words, join_words
from tasks.scoring.behaviour import spread, swap_letters
from tasks.scoring.spans import predicted_tags, word_tags

if TYPE_CHECKING:
    from tasks.core.arrays import Floats

SWAP = "another entity of the type"

Words = Sequence[str]
# (words, their entities as (start, end, type), draw) -> as many words; unchanged if not applicable
Change = Callable[[Words, Sequence[tuple[int, int, int]], random.Random], list[str]]


@dataclass(frozen=True)
class AlteredWords:
    """Rows of words before and after one kind of change, in the same order and number.

    entities  of each row, as the change was given them
    """

    name: str
    before: list[Words]
    after: list[Words]
    entities: list[Sequence[tuple[int, int, int]]]

    @property
    def replaced(self) -> list[tuple[int, int, int] | None]:
        """The entity whose words changed, of each row; None where none did."""
        rows = zip(self.before, self.after, self.entities, strict=True)
        return [
            next((span for span in spans if old[span[0] : span[1]] != new[span[0] : span[1]]), None)
            for old, new, spans in rows
        ]


def altered_words(
    words: Sequence[Words], entities: Sequence[Sequence[tuple[int, int, int]]], rows: int, seed: int
) -> list[AlteredWords]:
    """Apply each kind of change to up to `rows` rows; kinds that apply to no row are left out."""
    pool = _pool(words, entities)
    changes: dict[str, Change] = {
        SWAP: lambda row, spans, draw: _swap(row, spans, draw, pool),
        "lower case": lambda row, spans, draw: [word.lower() for word in row],
        "a typo outside of entities": _misspell,
    }
    sets = [_alter(name, change, words, entities, rows, seed) for name, change in changes.items()]
    return [altered for altered in sets if altered.before]


def _alter(
    name: str,
    change: Change,
    words: Sequence[Words],
    entities: Sequence[Sequence[tuple[int, int, int]]],
    rows: int,
    seed: int,
) -> AlteredWords:
    altered = AlteredWords(name, [], [], [])
    row_of_text = {" ".join(row_words): row for row, row_words in enumerate(words)}
    for text in spread(row_of_text, seed):
        if len(altered.before) == rows:
            break
        before, spans = words[row_of_text[text]], entities[row_of_text[text]]
        after = change(before, spans, random.Random(f"{seed} {name} {text}"))
        if after != list(before):
            altered.before.append(before)
            altered.after.append(after)
            altered.entities.append(spans)
    return altered


def _pool(
    words: Sequence[Words], entities: Sequence[Sequence[tuple[int, int, int]]]
) -> dict[tuple[int, int], list[tuple[str, ...]]]:
    """(type, number of words) -> its distinct entities, sorted."""
    pool: dict[tuple[int, int], set[tuple[str, ...]]] = {}
    for row_words, spans in zip(words, entities, strict=True):
        for start, end, type_id in spans:
            pool.setdefault((type_id, end - start), set()).add(tuple(row_words[start:end]))
    return {key: sorted(distinct) for key, distinct in pool.items()}


def _swap(
    words: Words,
    spans: Sequence[tuple[int, int, int]],
    draw: random.Random,
    pool: dict[tuple[int, int], list[tuple[str, ...]]],
) -> list[str]:
    """Replace one entity by another of the same type and number of words."""
    if not spans:
        return list(words)
    start, end, type_id = draw.choice(spans)
    current = tuple(words[start:end])
    others = [entity for entity in pool[type_id, end - start] if entity != current]
    return [*words[:start], *draw.choice(others), *words[end:]] if others else list(words)


def _misspell(
    words: Words, spans: Sequence[tuple[int, int, int]], draw: random.Random
) -> list[str]:
    """Swap two letters of one word outside of entities."""
    inside = {i for start, end, _ in spans for i in range(start, end)}
    misspelt = {i: swap_letters(word, draw) for i, word in enumerate(words) if i not in inside}
    candidates = [i for i, word in misspelt.items() if word != words[i]]
    if not candidates:
        return list(words)
    chosen = draw.choice(candidates)
    return [*words[:chosen], misspelt[chosen], *words[chosen + 1 :]]


def still_found(
    outputs: Floats, others: Floats | None, *, replaced: Sequence[tuple[int, int, int] | None]
) -> npt.NDArray[np.bool_]:
    """True where the replacement is found if the replaced entity was, and the rest mostly agrees.

    Mostly: at least half of the remaining entities of either are in both.
    """
    now, before = _spans(outputs, others)
    rows = zip(replaced, now, before, strict=True)
    return np.asarray(
        [
            (span not in old or span in new) and _mostly_same(new - {span}, old - {span})
            for span, new, old in rows
        ],
        bool,
    )


def mostly_found(outputs: Floats, others: Floats | None) -> npt.NDArray[np.bool_]:
    """True where at least half of the entities of either are in both.

    Losing one entity of several does not count as a different answer.
    """
    return np.asarray(
        [_mostly_same(new, old) for new, old in zip(*_spans(outputs, others), strict=True)], bool
    )


def _spans(outputs: Floats, others: Floats | None) -> list[list[set[tuple[int, int, int] | None]]]:
    """(entities of each row in `outputs`, entities of each row in `others`)."""
    assert others is not None
    return [
        [set(row) for row in find_spans(predicted_tags(logits)).by_row(len(logits))]
        for logits in pad_to_common_shape(outputs, others)
    ]


def _mostly_same(new: Set[Any], old: Set[Any]) -> bool:
    return 2 * len(new & old) >= len(new | old)


def same_spans(
    outputs: Floats, others: Floats | None, *, texts: Sequence[str], tokens: Sequence[Sequence[str]]
) -> npt.NDArray[np.bool_]:
    """True where both have the same entities at the same characters.

    The words may differ: `outputs` are of the words found in `texts`, `others` of `tokens`.
    """
    assert others is not None
    entities = []
    for logits, words in (
        (outputs, list(map(find_words, texts))),
        (others, [join_words(row_tokens)[1] for row_tokens in tokens]),
    ):
        spans = find_spans(word_tags(logits, words)).by_row(len(texts))
        entities.append(
            [
                {(words[row][i][0], words[row][j - 1][1], type_id) for i, j, type_id in row_spans}
                for row, row_spans in enumerate(spans)
            ]
        )
    return np.asarray([first == second for first, second in zip(*entities, strict=True)], bool)


def have(outputs: Floats, others: Floats | None, *, label: int) -> npt.NDArray[np.bool_]:
    """True where at least one word is tagged with the type `label`."""
    tags = predicted_tags(outputs)
    has_type: npt.NDArray[np.bool_] = ((tags > 0) & ((tags - 1) // 2 == label)).any(-1)
    return has_type


def moves(
    outputs: Floats, others: Floats | None, *, label: int, sign: int, tolerance: float
) -> npt.NDArray[np.bool_]:
    """True where the type's largest word probability moved in the direction of `sign`.

    A move of at most `tolerance` the other way passes too.
    """
    from scipy.special import softmax

    assert others is not None
    now, before = (
        np.nanmax(softmax(logits, -1)[..., 1 + 2 * label : 3 + 2 * label].sum(-1), -1)
        for logits in (outputs, others)
    )
    moved: npt.NDArray[np.bool_] = sign * (now - before) >= -tolerance
    return moved
