"""Facts about a row that depend on the other rows: copies of its text, frequency of its label.

Texts and labels are given as integer codes (`Codes`), one per row, -1 for null, to save memory.
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

_END = "\x1f"  # terminates each label of a row
_CHUNK_ROWS = 1_000_000  # rows counted at a time
Codes = npt.NDArray[np.signedinteger]
Places = npt.NDArray[np.int64]


class Copies:
    """Which alive rows share their text with other rows, and under which labels.

    places   indices of the rows whose text is repeated, ascending
    texts    (places,) code of each one's text
    alive    (rows,) the rows to consider
    labels   (rows,) codes; None if the rows have no label column
    """

    def __init__(self, places: Codes, texts: Codes, alive: Bools, labels: Codes | None) -> None:
        kept = alive[places]
        self._places, self._labels = places[kept], labels
        _, first, text = np.unique(texts[kept], return_index=True, return_inverse=True)
        order = np.argsort(first)
        self.originals = self._places[first[order]]  # the first row of each text, ascending
        self._text = text = np.argsort(order)[text]
        if labels is not None:
            copy_labels = labels[self._places].astype(np.int64)
            n_labels = int(copy_labels.max(initial=0)) + 1
            pairs = np.unique((text * n_labels + copy_labels)[copy_labels >= 0])
            self._label_counts = np.bincount(pairs // n_labels, minlength=len(first))

    def facts(self, places: Places, missing: Bools, numbers: Places) -> dict[str, pa.Array]:
        """Facts about the alive rows of one contiguous range, given by their indices `places`.

        missing         (rows,) whether a row has no text
        numbers         (originals,) row numbers to show to people
        copies.first    number of the first row with this text; null for that row itself
        copies.labels   distinct labels this text has in all alive rows; null without text or label
        """
        low, high = (
            np.searchsorted(self._places, (places[0], places[-1] + 1)) if len(places) else (0, 0)
        )
        copies, text = self._places[low:high], self._text[low:high]
        positions = np.searchsorted(places, copies)
        first, is_original = np.zeros(len(places), np.int64), np.ones(len(places), bool)
        first[positions], is_original[positions] = numbers[text], self.originals[text] == copies
        first_copy = {FIRST_COPY: pa.array(first, mask=is_original)}
        if self._labels is None:
            return first_copy
        counts = np.ones(len(places), np.int64)
        counts[positions] = self._label_counts[text]
        unknown = missing[places] | (self._labels[places] < 0)
        return first_copy | {COPIES_LABELS: pa.array(counts, mask=unknown)}


class LabelCounts:
    """Encodes the rows' labels, one or several per row, batch by batch, and counts them."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = set(known)
        self._code_of: dict[str, int] = {}  # set of labels, joined -> code
        self._parts: list[Codes] = []

    def see(self, column: pa.ChunkedArray) -> None:
        """Encode the labels of the next rows."""
        several = is_list(column)
        if several:
            column = pa.chunked_array([pa.array(map(_joined, column.to_pylist()), pa.string())])
        encoded = column.combine_chunks().dictionary_encode()
        values = [value if several else value + _END for value in encoded.dictionary.to_pylist()]
        codes = [self._code_of.setdefault(value, len(self._code_of)) for value in values]
        # the smallest type: there are many rows, but usually few sets of labels
        dtype = np.min_scalar_type(-len(self._code_of) - 1)
        self._parts.append(
            np.array([*codes, -1], dtype)[pc.fill_null(encoded.indices, -1).to_numpy()]
        )

    @property
    def codes(self) -> Codes:
        """(rows,) the code of each row's set of labels."""
        self._parts = [np.concatenate([*self._parts, np.zeros(0, np.int8)])]
        return self._parts[0]

    def of(self, codes: Codes) -> SetCounts:
        """Count the labels in the rows with these codes."""
        sets = [value.split(_END)[:-1] for value in self._code_of]
        counts: Counter[str] = Counter()
        rows = np.zeros(len(sets) + 1, np.int64)
        for start in range(0, len(codes), _CHUNK_ROWS):
            chunk = codes[start : start + _CHUNK_ROWS].astype(np.int64)
            rows += np.bincount(chunk + 1, minlength=len(rows))
        for labels, count in zip(sets, rows[1:].tolist(), strict=True):
            if count:
                counts.update(dict.fromkeys(labels, count))
        known = [[counts[label] for label in labels if label in self._known] for labels in sets]
        rarest, most_frequent = (
            pa.array([*(choose(n_rows, default=None) for n_rows in known), None], pa.int64())
            for choose in (min, max)
        )
        return SetCounts(rarest, most_frequent, counts)


@dataclass(frozen=True)
class SetCounts:
    """Number of rows per label, and for each set of labels.

    rarest, most_frequent
            (sets + 1,) rows with the set's rarest and its most frequent known label; null without
            a known label; the last entry, null, is for rows without labels
    labels  label -> rows, known or not
    """

    rarest: pa.Array
    most_frequent: pa.Array
    labels: Mapping[str, int]


def _joined(labels: Sequence[str] | None) -> str | None:
    if labels is None:
        return None
    return "".join(label + _END for label in sorted({str(label) for label in labels}))


def unknown_labels(column: pa.ChunkedArray, known: Sequence[str]) -> pa.Array:
    """(rows,) the first of each row's labels that is not in `known`; null if all are."""
    allowed = set(known)
    first_unknown = [
        next((str(label) for label in labels or () if str(label) not in allowed), None)
        for labels in column.to_pylist()
    ]
    return pa.array(first_unknown, pa.string())
