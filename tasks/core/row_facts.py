"""What can be said of a row only beside the others: copies of its text, and how its label fares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def text_codes(normalized: pa.ChunkedArray) -> pa.Array:
    """A number for each distinct normalized text; null where there is none."""
    return normalized.combine_chunks().dictionary_encode().indices


def duplicate_of(codes: pa.Array, numbers: pa.ChunkedArray) -> pa.Array:
    """For each row that repeats an earlier one's text, the number of the first such row; null for the others."""
    order = np.flatnonzero(pc.is_valid(codes).to_numpy(zero_copy_only=False))
    found = codes.drop_null().to_numpy()
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    original = order[first[inverse]]
    repeats = original != order
    values = np.zeros(len(codes), np.int64)
    values[order] = numbers.to_numpy()[original]
    missing = np.ones(len(codes), bool)
    missing[order[repeats]] = False
    return pa.array(values, mask=missing)


def labels_of_text(codes: pa.Array, labels: pa.ChunkedArray) -> pa.Array:
    """How many different labels the row's text has among all rows; null where text or label is."""
    encoded = labels.combine_chunks().dictionary_encode().indices
    valid = pc.and_(pc.is_valid(codes), pc.is_valid(encoded)).to_numpy(zero_copy_only=False)
    texts, label = (pc.fill_null(part, 0).to_numpy()[valid].astype(np.int64) for part in (codes, encoded))
    pairs = np.unique(np.stack((texts, label), 1), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=len(codes) + 1)
    values = np.zeros(len(codes), np.int64)
    values[valid] = counts[texts]
    return pa.array(values, mask=~valid)


@dataclass(frozen=True)
class LabelLists:
    """A column of lists of labels, as facts of its rows.

    labels   which labels each row has, joined to one text; null where the list is
    unknown  the first label that is not known, None where all are
    rows     of the row's rarest label, None where it has none that is known;  most_rows  of its most frequent one
    present  labels that rows have, known or not
    """

    labels: list[str | None]
    unknown: list[str | None]
    rows: list[int | None]
    most_rows: list[int | None]
    present: list[str]


def label_lists(column: pa.ChunkedArray, known: Sequence[str]) -> LabelLists:
    """The facts of these rows."""
    lists, allowed = column.to_pylist(), set(known)
    sets = [None if items is None else {str(item) for item in items} for items in lists]
    counts = Counter(label for labels in sets for label in labels or ())
    of_rows = [[counts[label] for label in labels or () if label in allowed] for labels in sets]
    return LabelLists(
        [None if labels is None else "\x1f".join(sorted(labels)) for labels in sets],
        [next((str(item) for item in items or () if str(item) not in allowed), None) for items in lists],
        [min(found, default=None) for found in of_rows],
        [max(found, default=None) for found in of_rows],
        list(counts),
    )


def rows_of_label(labels: pa.ChunkedArray, known: Sequence[str]) -> pa.Array:
    """How many rows have the row's label; null for labels that are not known."""
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(labels).to_pylist()}
    place = pc.index_in(labels, pa.array(list(known), labels.type))
    return pa.array([counts.get(label, 0) for label in known], pa.int64()).take(place.combine_chunks())
