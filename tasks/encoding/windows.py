"""Split long rows into overlapping windows, and merge the windows' outputs back into rows.

Features of a row: `input_ids`, its windows concatenated; `windows`, the length of each; `words`,
for each word the index in `input_ids` of its first token, in the window where it is furthest from
an edge.
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

OVERLAP = 0.25  # share of a window that the next one repeats
IGNORE_INDEX = -100  # reference of a token that represents no word; ignored by cross-entropy


@dataclass(frozen=True)
class Frame:
    """The size of a window and the special tokens around its text.

    capacity       text tokens in one window
    before, after  special tokens
    """

    capacity: int
    before: Sequence[int]
    after: Sequence[int]


@dataclass(frozen=True)
class Windowed:
    """A row's features; `cut` if a single word exceeded a window and lost its end."""

    input_ids: list[int]
    windows: list[int]
    words: list[int]
    cut: bool


def make_windows(ids: Sequence[int], words: Sequence[int], frame: Frame) -> Windowed:
    """Split a row into windows that begin and end between words.

    ids    tokens of the whole text
    words  index of each word's first token, ascending
    A row without words gets the index of its first token, so that every row has an output.
    """
    kept, words, cut = _cut_words(ids, words, frame.capacity)
    borders = sorted({0, *words, len(kept)})
    spans = cut_windows(borders, frame.capacity, int(OVERLAP * frame.capacity))
    flat: list[int] = []
    starts = []
    for begin, end in spans:
        starts.append(len(flat) + len(frame.before))
        flat += [*frame.before, *kept[begin:end], *frame.after]
    around = len(frame.before) + len(frame.after)
    indices = []
    for word in words:
        best = max(range(len(spans)), key=lambda number: _margin(word, spans[number], len(kept)))
        indices.append(starts[best] + word - spans[best][0])
    return Windowed(flat, [around + end - begin for begin, end in spans], indices or [0], cut)


def _cut_words(
    ids: Sequence[int], words: Sequence[int], capacity: int
) -> tuple[list[int], list[int], bool]:
    """(tokens, words, whether any word was cut), each word cut to the size of a window."""
    borders = sorted({0, *words, len(ids)})
    moved: dict[int, int] = {}
    kept: list[int] = []
    for begin, end in pairwise(borders):
        moved[begin] = len(kept)
        kept += ids[begin : min(end, begin + capacity)]
    return kept, [moved[word] for word in words], len(kept) < len(ids)


def cut_windows(borders: Sequence[int], capacity: int, overlap: int) -> list[tuple[int, int]]:
    """(begin, end) of windows that cover the text; neighbours share about `overlap` tokens.

    borders   ascending indices where a window may begin or end, from 0; at most `capacity` apart
    capacity  longest window, in tokens
    The last window reaches back as far as it can: more context costs nothing there.
    """
    length, begin = borders[-1], 0
    windows = []
    while True:
        end = borders[bisect_right(borders, begin + capacity) - 1]
        windows.append((begin, end))
        if end == length:
            return windows
        # the earliest begin whose window reaches past `end`; any earlier one would add nothing
        earliest = borders[bisect_left(borders, borders[bisect_right(borders, end)] - capacity)]
        begin = max(earliest, borders[bisect_right(borders, max(end - overlap, 0)) - 1])
        if length - begin <= capacity:
            begin = borders[bisect_left(borders, length - capacity)]


def _margin(index: int, window: tuple[int, int], length: int) -> int:
    """Tokens from an index to the nearer edge of a window, -1 outside it.

    The ends of the text (`length` tokens) are not edges.
    """
    begin, end = window
    if not begin <= index < end:
        return -1
    left = index - begin if begin else length
    return min(left, end - 1 - index if end < length else length)


def split_windows(
    values: Sequence[Sequence[int]], windows: Sequence[Sequence[int]]
) -> list[Sequence[int]]:
    """Split each row's values at its windows; one list per window, rows in order."""
    parts = []
    for row, lengths in zip(values, windows, strict=True):
        ends = np.cumsum(lengths).tolist()
        parts += [row[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    return parts


def collate_windows(features: Features, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
    """All windows of the rows as one padded batch, (windows, longest)."""
    windows = split_windows(features["input_ids"], features["windows"])
    return pad_features({"input_ids": windows}, pad_token_id)


def window_references(features: Features) -> npt.NDArray[np.int64]:
    """(windows, longest): each word's reference at its first token, NO_WORD elsewhere."""
    columns = (features[name] for name in ("input_ids", "words", "references"))
    rows = []
    for ids, words, references in zip(*columns, strict=True):
        row = [IGNORE_INDEX] * len(ids)
        # not strict: a row without words has an index but no reference
        for index, reference in zip(words, references, strict=False):
            row[index] = reference
        rows.append(row)
    return pad_rows(split_windows(rows, features["windows"]), IGNORE_INDEX)


def merge_windows(outputs: Floats, features: Features) -> Floats:
    """Outputs of tokens, (windows, tokens, c), to outputs of words, (rows, words, c).

    A word has the output of its first token; NaN past a row's words.
    """
    counts = list(map(len, features["words"]))
    lengths = np.asarray(list(chain.from_iterable(features["windows"])))
    ends = np.cumsum(lengths)
    firsts = np.cumsum([0, *(sum(row) for row in features["windows"])])[:-1]
    indices = np.concatenate(
        [first + np.asarray(words) for first, words in zip(firsts, features["words"], strict=True)]
    )
    window = np.searchsorted(ends, indices, "right")
    merged = np.full((len(counts), max(counts), outputs.shape[-1]), np.nan, np.float32)
    target: Any = np.arange(max(counts)) < np.asarray(counts)[:, None]
    merged[target] = outputs[window, indices - (ends - lengths)[window]]
    return merged
