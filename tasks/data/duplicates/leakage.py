"""Texts repeated across splits: which split keeps them, which rows leave, and the messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Bools
from tasks.data.duplicates.distinct_texts import DistinctTexts
from tasks.data.duplicates.near_duplicates import Match
from tasks.data.tables.loaded import FILE, LINE, SPLITS
from tasks.data.tables.quarantine import place_of, say_place, set_aside
from tasks.data.tables.row_store import RowStore
from tasks.params.schema import SplitParams

# indices into SPLITS, which ascend in priority: a row gives way to the same text in a later split
Tiers = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Claims:
    """The split of each row, and the split that keeps each text: the last one with a row of it."""

    texts: DistinctTexts
    tiers: Tiers

    @cached_property
    def text_tiers(self) -> Tiers:
        """(texts,) the split that keeps each text."""
        tiers = np.zeros(len(self.texts), np.int8)
        np.maximum.at(tiers, self.texts.of_rows, self.tiers)
        return tiers

    @property
    def outdone(self) -> Bools:
        """(rows,) whether the row's text also occurs in a later split."""
        return self.tiers < self.text_tiers[self.texts.of_rows]

    @cached_property
    def first(self) -> npt.NDArray[np.int32]:
        """(texts,) the first row of each text in the split that keeps it."""
        rows = np.flatnonzero(~self.outdone)[::-1].astype(np.int32)
        first = np.zeros(len(self.texts), np.int32)
        first[self.texts.of_rows[rows]] = rows  # descending, so the first row is assigned last
        return first


def quarantined_rows(
    rows: RowStore, claims: Claims, leaving: Bools, matches: Sequence[Match]
) -> Iterator[dict[str, Any]]:
    """Quarantine entries for the rows that leave, in order, each with the row it resembles."""
    by_text = {match.text: match for match in matches}
    of_rows = claims.texts.of_rows
    # a leaving row without a match has its own text in a later split
    match_of = {
        text: by_text.get(text, Match(text, text, 1.0))
        for text in np.unique(of_rows[leaving]).tolist()
    }
    similar_row = {
        text: int(claims.first[match.partner])
        for text, match in match_of.items()
        if match.partner is not None
    }
    places = _places(rows, [*similar_row.values()])
    for first, batch in rows.batches() if leaving.any() else ():
        indices = np.flatnonzero(leaving[first : first + len(batch)]).tolist()
        reasons = []
        for text, tier in zip(
            of_rows[first:][indices].tolist(), claims.tiers[first:][indices].tolist(), strict=True
        ):
            reason: dict[str, Any] = {"check": "near_duplicates", "split": SPLITS[tier]}
            if text in similar_row:
                split = SPLITS[claims.tiers[similar_row[text]]]
                like = places[similar_row[text]] | {"split": split}
                words = f"nearly the same text as {say_place(like)}, which is in {split}"
                similarity = round(match_of[text].similarity, 4)
                reason |= {"reason": words, "similarity": similarity, "like": like}
            else:
                words = "shares rare shingles with too many held-out texts to be compared with each"
                reason |= {"reason": words, "similarity": None, "like": None}
            reasons.append(reason)
        yield from set_aside(batch, indices, reasons)


def _places(rows: RowStore, wanted: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Where some rows came from, by row index."""
    row_indices = np.unique(np.array(wanted, np.int64))
    origin_columns = [name for name in rows.column_names if name in ("row", FILE, LINE)]
    origins = rows.take(row_indices, origin_columns).to_pylist()
    return dict(zip(row_indices.tolist(), map(place_of, origins), strict=True))


def say_left(
    claims: Claims, leaving: Bools, matches: Sequence[Match], split: SplitParams
) -> list[str]:
    """Warnings about the rows that left the splits."""
    counts = Counter(SPLITS[tier] for tier in claims.tiers[leaving].tolist())
    warnings = [
        f"{count} near-duplicate {'row was' if count == 1 else 'rows were'} removed from {name}: "
        "each nearly repeats a text of "
        f"{'test' if name == 'validation' else 'validation or test'} "
        f"(similarity {split.near_duplicate_similarity:g} or more); "
        "they are kept in data/splits/quarantine.jsonl."
        for name, count in counts.items()
    ]
    uncompared = [match.text for match in matches if match.partner is None]
    n_uncompared = int(np.isin(claims.texts.of_rows, uncompared).sum())
    if n_uncompared:
        warnings.append(
            f"{n_uncompared} of them {'was' if n_uncompared == 1 else 'were'} removed without "
            "being compared with each held-out text: too many texts are alike. "
            "A higher split.near_duplicate_similarity compares fewer."
        )
    return warnings


def say_leaks(rows: RowStore, claims: Claims, matches: Sequence[Match]) -> list[str]:
    """Warnings about texts that the user's own splits share."""
    partners = {match.text: match.partner for match in matches if match.partner is not None}
    of_rows = claims.texts.of_rows
    warnings = []
    for words, row_indices in (
        ("repeat the text", np.flatnonzero(claims.outdone)),
        ("nearly repeat a text", np.flatnonzero(np.isin(of_rows, list(partners)))),
    ):
        if len(row_indices):
            example = int(row_indices[0])
            text = int(of_rows[example])
            like = int(claims.first[partners[text] if words.startswith("nearly") else text])
            places = _places(rows, [example, like])
            warnings.append(
                f"{_rows(len(row_indices))} {words} of a later split ({', '.join(SPLITS)}), for "
                f"example {say_place(places[example])} and {say_place(places[like])}; "
                "the splits are used as given."
            )
    return warnings


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
