"""Rows longer than a model reads, as overlapping windows, and what the model says of each as one row again.

Features of a row: `input_ids`, its windows one after the other; `windows`, how long each is; `words`, for each word the place in
`input_ids` of the token that stands for it, in that window where it is furthest from an edge.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.encoding.padding import pad_features, pad_rows

if TYPE_CHECKING:
    from tasks.core.arrays import Features, Floats

OVERLAP = 0.25  # share of a window that the next one has too
NO_WORD = -100  # reference of a token that stands for no word; cross-entropy leaves it out


@dataclass(frozen=True)
class Frame:
    """What a window is made of beside the text's tokens.

    capacity       tokens of the text in one window
    before, after  special tokens
    """

    capacity: int
    before: Sequence[int]
    after: Sequence[int]


@dataclass(frozen=True)
class Windowed:
    """A row's features; `cut` where a word alone has more tokens than a window holds, and so lost its end."""

    input_ids: list[int]
    windows: list[int]
    words: list[int]
    cut: bool


def make_windows(ids: Sequence[int], words: Sequence[int], frame: Frame) -> Windowed:
    """A row's windows; they begin and end between words.

    ids    tokens of the whole text
    words  the place of each word's first token, ascending
    A row without words has one place all the same, its first token's, so that no row is without an output.
    """
    kept, words, cut = _cut_words(ids, words, frame.capacity)
    borders = sorted({0, *words, len(kept)})
    parts = cut_windows(borders, frame.capacity, int(OVERLAP * frame.capacity))
    flat: list[int] = []
    starts = []
    for begin, end in parts:
        starts.append(len(flat) + len(frame.before))
        flat += [*frame.before, *kept[begin:end], *frame.after]
    around = len(frame.before) + len(frame.after)
    places = []
    for word in words:
        best = max(range(len(parts)), key=lambda number: _room(word, parts[number], len(kept)))
        places.append(starts[best] + word - parts[best][0])
    return Windowed(flat, [around + end - begin for begin, end in parts], places or [0], cut)


def _cut_words(
    ids: Sequence[int], words: Sequence[int], capacity: int
) -> tuple[list[int], list[int], bool]:
    """(tokens, words, whether any was cut) with no word longer than a window."""
    borders = sorted({0, *words, len(ids)})
    moved: dict[int, int] = {}
    kept: list[int] = []
    for begin, end in pairwise(borders):
        moved[begin] = len(kept)
        kept += ids[begin : min(end, begin + capacity)]
    return kept, [moved[word] for word in words], len(kept) < len(ids)


def cut_windows(borders: Sequence[int], capacity: int, overlap: int) -> list[tuple[int, int]]:
    """(begin, end) of each window: at most `capacity` long, together the whole, two neighbours sharing about `overlap`.

    borders  ascending places where a window may begin or end, first 0; neighbours are at most `capacity` apart
    The last one reaches as far back as it can: more context costs nothing there.
    """
    whole, begin = borders[-1], 0
    windows = []
    while True:
        end = borders[bisect_right(borders, begin + capacity) - 1]
        windows.append((begin, end))
        if end == whole:
            return windows
        reaching = borders[
            bisect_left(borders, borders[bisect_right(borders, end)] - capacity)
        ]  # else it would add nothing
        begin = max(reaching, borders[bisect_right(borders, max(end - overlap, 0)) - 1])
        if whole - begin <= capacity:
            begin = borders[bisect_left(borders, whole - capacity)]


def _room(place: int, window: tuple[int, int], whole: int) -> int:
    """Tokens between a place and the nearer edge of a window, -1 outside of it; the text's own ends are no edges."""
    begin, end = window
    if not begin <= place < end:
        return -1
    left = place - begin if begin else whole
    return min(left, end - 1 - place if end < whole else whole)


def split_windows(
    values: Sequence[Sequence[int]], windows: Sequence[Sequence[int]]
) -> list[Sequence[int]]:
    """Each row's values cut at its windows: one list a window, of all rows one after the other."""
    found = []
    for row, lengths in zip(values, windows, strict=True):
        ends = np.cumsum(lengths).tolist()
        found += [row[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    return found


def collate_windows(features: Features, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
    """All windows of some rows as one padded batch, (windows, longest)."""
    return pad_features(
        {"input_ids": split_windows(features["input_ids"], features["windows"])}, pad_token_id
    )


def window_references(features: Features) -> npt.NDArray[np.int64]:
    """(windows, longest): a word's reference at the token that stands for it, NO_WORD everywhere else."""
    rows = []
    for ids, words, references in zip(
        *(features[name] for name in ("input_ids", "words", "references")), strict=True
    ):
        row = [NO_WORD] * len(ids)
        for place, reference in zip(
            words, references, strict=False
        ):  # a row without words has a place, and no reference
            row[place] = reference
        rows.append(row)
    return pad_rows(split_windows(rows, features["windows"]), NO_WORD)


def merge_windows(outputs: Floats, features: Features) -> Floats:
    """(windows, tokens, c) to (rows, words, c): of each word what was put out for the token that stands for it; NaN past a row's words."""
    counts = list(map(len, features["words"]))
    lengths = np.asarray(list(chain.from_iterable(features["windows"])))
    ends = np.cumsum(lengths)
    firsts = np.cumsum([0, *(sum(row) for row in features["windows"])])[:-1]
    places = np.concatenate(
        [first + np.asarray(words) for first, words in zip(firsts, features["words"], strict=True)]
    )
    window = np.searchsorted(ends, places, "right")
    merged = np.full((len(counts), max(counts), outputs.shape[-1]), np.nan, np.float32)
    target: Any = np.arange(max(counts)) < np.asarray(counts)[:, None]
    merged[target] = outputs[window, places - (ends - lengths)[window]]
    return merged
