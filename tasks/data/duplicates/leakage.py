"""Texts that rows of several splits share, or nearly: which split has the claim, what leaves the others, and how both are told."""

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

Tiers = npt.NDArray[
    np.int8
]  # indices into SPLITS, which stand in the order of their claim on a text: a row gives way to a later split


@dataclass(frozen=True)
class Claims:
    """Which split each row is of, and which each text: the last of those that its rows are of."""

    texts: DistinctTexts
    tiers: Tiers

    @cached_property
    def text_tiers(self) -> Tiers:
        """(texts,) the split that has the claim on each."""
        found = np.zeros(len(self.texts), np.int8)
        np.maximum.at(found, self.texts.of_rows, self.tiers)
        return found

    @property
    def outdone(self) -> Bools:
        """(rows,) whether the row's text is in a later split too."""
        return self.tiers < self.text_tiers[self.texts.of_rows]

    @cached_property
    def first(self) -> npt.NDArray[np.int32]:
        """(texts,) the first of each text's rows that are in the split of its claim."""
        rows = np.flatnonzero(~self.outdone)[::-1].astype(np.int32)
        found = np.zeros(len(self.texts), np.int32)
        found[self.texts.of_rows[rows]] = rows  # of several values the last stays
        return found


def quarantined_rows(
    rows: RowStore, claims: Claims, leaving: Bools, matches: Sequence[Match]
) -> Iterator[dict[str, Any]]:
    """The rows that leave, in order, each with the row that it resembles."""
    by_text = {match.text: match for match in matches}
    of_rows = claims.texts.of_rows
    # what no search found has its own text in a later split
    found = {
        text: by_text.get(text, Match(text, text, 1.0))
        for text in np.unique(of_rows[leaving]).tolist()
    }
    like = {
        text: int(claims.first[match.partner])
        for text, match in found.items()
        if match.partner is not None
    }
    places = _places(rows, [*like.values()])
    for first, some in rows.batches() if leaving.any() else ():
        indices = np.flatnonzero(leaving[first : first + len(some)]).tolist()
        reasons = []
        for text, tier in zip(
            of_rows[first:][indices].tolist(), claims.tiers[first:][indices].tolist(), strict=True
        ):
            reason: dict[str, Any] = {"check": "near_duplicates", "split": SPLITS[tier]}
            if text in like:
                place = places[like[text]] | {"split": SPLITS[claims.tiers[like[text]]]}
                reason["reason"] = (
                    f"nearly the same text as {say_place(place)}, which is in {place['split']}"
                )
                reason |= {"similarity": round(found[text].similarity, 4), "like": place}
            else:
                reason |= {
                    "reason": "it shares rare shingles with too many held-out texts to compare it with each",
                    "similarity": None,
                    "like": None,
                }
            reasons.append(reason)
        yield from set_aside(some, indices, reasons)


def _places(rows: RowStore, wanted: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Where some rows came from, by their places in the table."""
    places = np.unique(np.array(wanted, np.int64))
    found = rows.take(places, [name for name in rows.column_names if name in ("row", FILE, LINE)])
    return dict(zip(places.tolist(), map(place_of, found.to_pylist()), strict=True))


def say_left(
    claims: Claims, leaving: Bools, matches: Sequence[Match], split: SplitParams
) -> list[str]:
    """What left the splits, in words."""
    counts = Counter(SPLITS[tier] for tier in claims.tiers[leaving].tolist())
    warnings = [
        f"{_rows(count)} of {name} left: each nearly repeats a text of {'test' if name == 'validation' else 'validation or test'} "
        f"(similarity {split.near_duplicate_similarity:g} or more); they are kept in data/splits/quarantine.jsonl."
        for name, count in counts.items()
    ]
    crowded = int(
        np.isin(
            claims.texts.of_rows, [match.text for match in matches if match.partner is None]
        ).sum()
    )
    if crowded:
        warnings.append(
            f"{crowded} of them left uncompared: too many texts are alike. A higher split.near_duplicate_similarity compares fewer."
        )
    return warnings


def say_leaks(rows: RowStore, claims: Claims, matches: Sequence[Match]) -> list[str]:
    """What the user's own splits share, in words."""
    partners = {match.text: match.partner for match in matches if match.partner is not None}
    of_rows = claims.texts.of_rows
    warnings = []
    for words, found in (
        ("repeat the text", np.flatnonzero(claims.outdone)),
        ("nearly repeat a text", np.flatnonzero(np.isin(of_rows, list(partners)))),
    ):
        if len(found):
            own = int(found[0])
            text = int(of_rows[own])
            like = int(claims.first[partners[text] if words.startswith("nearly") else text])
            places = _places(rows, [own, like])
            warnings.append(
                f"{_rows(len(found))} {words} of a later split ({', '.join(SPLITS)}), for example {say_place(places[own])} and "
                f"{say_place(places[like])}; they stay as given."
            )
    return warnings


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
