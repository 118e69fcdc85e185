"""Entities as word spans and as BIO tags (IOB2: `B-` begins, `I-` continues, `O` is outside).

Tags are numbers: 0 is O, 1 + 2k and 2 + 2k are B and I of type k; negative means no word.
An I that follows no tag of its type begins a span, as in conlleval (Tjong Kim Sang & De Meulder
2003).
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
    """Tag names in the order of their numbers."""
    return [OUTSIDE, *(f"{prefix}-{name}" for name in types for prefix in "BI")]


def types_of(tags: Sequence[str]) -> list[str]:
    """Entity types of the tag names; the inverse of `tag_names`."""
    return [tag[2:] for tag in tags if tag.startswith("B-")]


def tag_ids(
    tags: Sequence[Sequence[str] | None], lengths: Sequence[int], names: Sequence[str]
) -> list[list[int]]:
    """Tags as numbers. Raises DataError for invalid rows that validation was told to let pass.

    lengths  words of each row
    """
    numbers = {name: number for number, name in enumerate(names)}
    rows = [row or () for row in tags]
    problems = []
    for row_number, (row, length) in enumerate(zip(rows, lengths, strict=True), 1):
        if len(row) != length:
            problems.append(f"row {row_number} has {length} words and {len(row)} tags.")
        problems += [
            f"row {row_number} has '{tag}'.{did_you_mean(str(tag), names)}"
            for tag in dict.fromkeys(row)
            if tag not in numbers
        ]
    if problems:
        raise DataError(
            f"tags: {' '.join(problems[:5])}{' …' if len(problems) > 5 else ''} "
            f"Each word needs one of {', '.join(names)}.",
            "Fix the rows, or let validation quarantine them (its checks tag_number, tag_form and "
            "unknown_label).",
        )
    return [[numbers[tag] for tag in row] for row in rows]


@dataclass(frozen=True)
class EntitySpans:
    """Entity spans in order of row and position; each array is (s,).

    Words `starts` to `ends` - 1 of row `rows` are an entity of type `kinds`.
    """

    rows: Indices
    starts: Indices
    ends: Indices
    kinds: Indices

    def by_row(self, rows: int) -> list[list[tuple[int, int, int]]]:
        """(first word, word after the last, type) of the entities in each of `rows` rows."""
        spans: list[list[tuple[int, int, int]]] = [[] for _ in range(rows)]
        columns = (self.rows, self.starts, self.ends, self.kinds)
        for row, start, end, kind in zip(*(column.tolist() for column in columns), strict=True):
            spans[row].append((start, end, kind))
        return spans


def find_spans(tags: Indices) -> EntitySpans:
    """The spans of (rows, words) tags."""
    padded = np.pad(np.maximum(tags, 0), ((0, 0), (0, 1)))  # an O at the end closes each row
    inside = padded > 0
    kinds = np.where(inside, (padded - 1) // 2, -1)
    previous = np.pad(kinds, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    continues = inside & (padded % 2 == 0) & (previous == kinds)
    starts = np.flatnonzero(inside & ~continues)
    breaks = np.flatnonzero(~continues)
    ends = breaks[np.searchsorted(breaks, starts, "right")]
    width = padded.shape[1]
    return EntitySpans(
        starts // width, starts % width, ends - starts + starts % width, kinds.ravel()[starts]
    )


def span_codes(spans: EntitySpans, width: int, *, kinds: bool = True) -> Indices:
    """One number per span; equal numbers mean the same row, words and type.

    width  the largest number of words in any row
    kinds  whether the type counts
    """
    positions = (spans.rows * (width + 1) + spans.starts) * (width + 1) + spans.ends
    return positions * MOST_TYPES + spans.kinds if kinds else positions
