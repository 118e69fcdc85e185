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

from tasks.core.arrays import Bools
from tasks.data.quality.checks import COPIES_LABELS, FIRST_COPY
from tasks.data.tables.label_lists import is_list

_END = "\x1f"  # of each label of a row
_TOGETHER = 1_000_000  # rows counted at a time
Codes = npt.NDArray[np.signedinteger]
Places = npt.NDArray[np.int64]


class Copies:
    """Which rows have the text of others that are alive, and with which labels.

    places   of rows whose text others have, ascending;  texts   (places,) a number for each one's text
    labels   (rows,) None where rows have none
    """

    def __init__(self, places: Codes, texts: Codes, alive: Bools, labels: Codes | None) -> None:
        here = alive[places]
        self._places, self._labels = places[here], labels
        _, first, text = np.unique(texts[here], return_index=True, return_inverse=True)
        order = np.argsort(first)
        self.originals = self._places[first[order]]  # the first row of each text, ascending
        self._text = text = np.argsort(order)[text]
        if labels is not None:
            own = labels[self._places].astype(np.int64)
            kinds = int(own.max(initial=0)) + 1
            pairs = np.unique((text * kinds + own)[own >= 0])
            self._label_counts = np.bincount(pairs // kinds, minlength=len(first))

    def facts(self, places: Places, missing: Bools, numbers: Places) -> dict[str, pa.Array]:
        """Of the rows that are alive in one stretch, by their places.

        missing         (rows,) whether a row has no text;  numbers   of the originals, for people
        copies.first    the number of the first row with the row's text; null for that row itself
        copies.labels   how many different labels the row's text has among all rows; null where text or label is
        """
        low, high = (
            np.searchsorted(self._places, (places[0], places[-1] + 1)) if len(places) else (0, 0)
        )
        copies, text = self._places[low:high], self._text[low:high]
        where = np.searchsorted(places, copies)
        first, itself = np.zeros(len(places), np.int64), np.ones(len(places), bool)
        first[where], itself[where] = numbers[text], self.originals[text] == copies
        found = {FIRST_COPY: pa.array(first, mask=itself)}
        if self._labels is None:
            return found
        counts = np.ones(len(places), np.int64)
        counts[where] = self._label_counts[text]
        return found | {
            COPIES_LABELS: pa.array(counts, mask=missing[places] | (self._labels[places] < 0))
        }


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
        kind = np.min_scalar_type(
            -len(self._numbers) - 1
        )  # there are many rows, and mostly few sets of labels
        self._parts.append(
            np.array([*numbers, -1], kind)[pc.fill_null(encoded.indices, -1).to_numpy()]
        )

    @property
    def codes(self) -> Codes:
        """(rows,) the number of each row's set of labels."""
        self._parts = [np.concatenate([*self._parts, np.zeros(0, np.int8)])]
        return self._parts[0]

    def of(self, codes: Codes) -> SetCounts:
        """Of some rows, by their sets of labels."""
        sets = [value.split(_END)[:-1] for value in self._numbers]
        counts: Counter[str] = Counter()
        rows = np.zeros(len(sets) + 1, np.int64)
        for start in range(0, len(codes), _TOGETHER):
            rows += np.bincount(
                codes[start : start + _TOGETHER].astype(np.int64) + 1, minlength=len(rows)
            )
        for labels, count in zip(sets, rows[1:].tolist(), strict=True):
            if count:
                counts.update(dict.fromkeys(labels, count))
        known = [[counts[label] for label in labels if label in self._known] for labels in sets]
        least, most = (
            pa.array([*(choose(found, default=None) for found in known), None], pa.int64())
            for choose in (min, max)
        )
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
    return (
        None
        if labels is None
        else "".join(label + _END for label in sorted({str(label) for label in labels}))
    )


def unknown_labels(column: pa.ChunkedArray, known: Sequence[str]) -> pa.Array:
    """The first of a row's labels that is not known, null where all are."""
    allowed = set(known)
    lists = column.to_pylist()
    return pa.array(
        [
            next((str(label) for label in labels or () if str(label) not in allowed), None)
            for labels in lists
        ],
        pa.string(),
    )
