"""Entities as spans of words, and as BIO tags (IOB2: `B-` begins one, `I-` goes on, `O` is outside).

Tags are numbers: 0 is O, 1 + 2k and 2 + 2k are B and I of type k; below 0 there is no word.
An I that follows no tag of its type begins a span, as conlleval has it (Tjong Kim Sang & De Meulder 2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import Indices
from tasks.core.errors import DataError, did_you_mean

OUTSIDE = "O"
MOST_TYPES = 1 << 16


def tag_names(types: Sequence[str]) -> list[str]:
    """The tags by their number."""
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]


def types_of(tags: Sequence[str]) -> list[str]:
    """The inverse."""
    return [tag[2:] for tag in tags if tag.startswith("B-")]


def tag_ids(
    tags: Sequence[Sequence[str] | None], lengths: Sequence[int], names: Sequence[str]
) -> list[list[int]]:
    """Tags as numbers; DataError where validation was told to let rows pass that cannot be numbered.

    lengths  words of each row
    """
    numbers = {name: number for number, name in enumerate(names)}
    wrong = []
    for row, (given, length) in enumerate(zip(tags, lengths, strict=True), 1):
        if len(given or ()) != length:
            wrong.append(f"row {row} has {length} words and {len(given or ())} tags.")
        wrong += [
            f"row {row} has '{tag}'.{did_you_mean(str(tag), names)}"
            for tag in dict.fromkeys(given or ())
            if tag not in numbers
        ]
    if wrong:
        raise DataError(
            f"tags: {' '.join(wrong[:5])}{' …' if len(wrong) > 5 else ''} Wanted is one of {', '.join(names)} for each word.",
            "Mend the rows, or let validation set them aside (its checks tag_number, tag_form and unknown_label).",
        )
    return [[numbers[tag] for tag in given or ()] for given in tags]


@dataclass(frozen=True)
class Found:
    """Spans, ordered by row and place, each (s,): words `starts` to `ends` - 1 of row `rows` are an entity of type `kinds`."""

    rows: Indices
    starts: Indices
    ends: Indices
    kinds: Indices

    def by_row(self, rows: int) -> list[list[tuple[int, int, int]]]:
        """(first word, word after the last, type) of each of `rows` rows' entities."""
        found: list[list[tuple[int, int, int]]] = [[] for _ in range(rows)]
        for row, start, end, kind in zip(
            *(part.tolist() for part in (self.rows, self.starts, self.ends, self.kinds)),
            strict=True,
        ):
            found[row].append((start, end, kind))
        return found


def find_spans(tags: Indices) -> Found:
    """The spans of (rows, words) tags."""
    closed = np.pad(np.maximum(tags, 0), ((0, 0), (0, 1)))  # a row's end is outside
    inside = closed > 0
    kinds = np.where(inside, (closed - 1) // 2, -1)
    before = np.pad(kinds, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    goes_on = inside & (closed % 2 == 0) & (before == kinds)
    starts = np.flatnonzero(inside & ~goes_on)
    breaks = np.flatnonzero(~goes_on)
    ends = breaks[np.searchsorted(breaks, starts, "right")]
    width = closed.shape[1]
    return Found(
        starts // width, starts % width, ends - starts + starts % width, kinds.ravel()[starts]
    )


def codes(spans: Found, width: int, *, kinds: bool = True) -> Indices:
    """One number a span, the same for the same row, words and type (with `kinds` false, whatever its type).

    width  the greatest number of words of any row
    """
    places = (spans.rows * (width + 1) + spans.starts) * (width + 1) + spans.ends
    return places * MOST_TYPES + spans.kinds if kinds else places
