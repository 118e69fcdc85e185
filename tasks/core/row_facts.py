"""What can be said of a row only beside the others: copies of its text, and how its label fares.

Texts and labels come as numbers, a row each, -1 where there is none (`Codes`): many rows take little memory so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.core.checks import COPIES_LABELS, FIRST_COPY
from tasks.core.label_lists import is_list

_END = "\x1f"  # of each label of a row
Codes = npt.NDArray[np.int32]


class Copies:
    """Which of some rows have the text of others among them, and with which labels.

    numbers   of the rows, for people;  labels   None where rows have none
    """

    def __init__(self, codes: Codes, numbers: Codes, labels: Codes | None) -> None:
        self._codes, self._numbers, self._labels = codes, numbers, labels
        rows = np.arange(len(codes), dtype=np.int32)
        texts = int(codes.max(initial=-1)) + 1
        first = np.zeros(texts + 1, np.int32)  # -1 has a place too, the last
        first[codes[::-1]] = rows[::-1]  # of several values the last stays
        self._original = np.where(codes >= 0, first[codes], rows)
        if labels is not None:
            repeated = np.zeros(texts + 1, bool)
            repeated[codes[self._original != rows]] = True
            involved = np.flatnonzero(repeated[codes] & (labels >= 0))
            kinds = int(labels.max(initial=0)) + 1
            pairs = np.unique(codes[involved].astype(np.int64) * kinds + labels[involved])
            several, counts = np.unique(pairs // kinds, return_counts=True)
            self._label_counts = np.ones(texts + 1, np.int32)
            self._label_counts[several] = counts

    def facts(self, start: int, count: int) -> dict[str, pa.Array]:
        """Of `count` rows from `start` on.

        copies.first    the number of the first row with the row's text; null for that row itself
        copies.labels   how many different labels the row's text has among all rows; null where text or label is
        """
        here = slice(start, start + count)
        original, codes = self._original[here], self._codes[here]
        numbers = self._numbers[original].astype(np.int64)
        found = {FIRST_COPY: pa.array(numbers, mask=original == np.arange(start, start + count))}
        if self._labels is None:
            return found
        labels = self._label_counts[codes].astype(np.int64)
        return found | {COPIES_LABELS: pa.array(labels, mask=(codes < 0) | (self._labels[here] < 0))}


class LabelCounts:
    """The labels of rows, one each or several, seen a batch at a time."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = set(known)
        self._numbers: dict[str, int] = {}
        self._parts: list[Codes] = []

    def see(self, column: pa.ChunkedArray) -> None:
        """The labels of the next rows."""
        several = is_list(column)
        if several:
            column = pa.chunked_array([pa.array(map(_joined, column.to_pylist()), pa.string())])
        encoded = column.combine_chunks().dictionary_encode()
        values = [value if several else value + _END for value in encoded.dictionary.to_pylist()]
        numbers = [self._numbers.setdefault(value, len(self._numbers)) for value in values]
        self._parts.append(np.array([*numbers, -1], np.int32)[pc.fill_null(encoded.indices, -1).to_numpy()])

    @property
    def codes(self) -> Codes:
        """(rows,) the number of each row's set of labels."""
        self._parts = [np.concatenate([*self._parts, np.zeros(0, np.int32)])]
        return self._parts[0]

    def of(self, codes: Codes) -> SetCounts:
        """Of some rows, by their sets of labels."""
        sets = [value.split(_END)[:-1] for value in self._numbers]
        counts: Counter[str] = Counter()
        for labels, count in zip(sets, np.bincount(codes[codes >= 0], minlength=len(sets)).tolist(), strict=True):
            if count:
                counts.update(dict.fromkeys(labels, count))
        known = [[counts[label] for label in labels if label in self._known] for labels in sets]
        least, most = (pa.array([*(choose(found, default=None) for found in known), None], pa.int64()) for choose in (min, max))
        return SetCounts(least, most, counts)


@dataclass(frozen=True)
class SetCounts:
    """How many rows have the labels of each set, its rarest known one and its most frequent; and how many have each label, known or not.

    A set without a known label has null, as has no set at all, which is the last.
    """

    rarest: pa.Array
    most_frequent: pa.Array
    labels: Mapping[str, int]


def _joined(labels: Sequence[str] | None) -> str | None:
    return None if labels is None else "".join(label + _END for label in sorted({str(label) for label in labels}))


def unknown_labels(column: pa.ChunkedArray, known: Sequence[str]) -> pa.Array:
    """The first of a row's labels that is not known, null where all are."""
    allowed = set(known)
    lists = column.to_pylist()
    return pa.array([next((str(label) for label in labels or () if str(label) not in allowed), None) for labels in lists], pa.string())
