"""Rows to train, validation and test by a hash of the normalized text, so that a row never changes splits when rows are added.

Same normalized text, same hash, same split; where a problem keeps rows together (those of a query, say), that is hashed.
Of two near-duplicates in different splits the one further from the test set leaves: out of train, or out of validation if the other
is in test. So the test set only ever grows.

{train,validation,test}.parquet   the rows as they came
quarantine.jsonl                  rows that left, each with the row it resembles; rows in = rows in the splits + rows here
split.json                        counts and class shares a split, and `warnings`
Sources that name their splits are taken as they are: what would leak is reported, nothing leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.errors import DataError
from tasks.core.files import write_json, write_jsonl
from tasks.core.label_lists import flat
from tasks.core.loaded import SPLIT
from tasks.core.near_duplicates import Match, find_matches, make_prefixes
from tasks.core.normalization import normalize_rows, positions
from tasks.core.params import SplitParams
from tasks.core.progress import Report
from tasks.core.quarantine import place_of, say_place, set_aside
from tasks.problems import load_problem

SPLITS = ("train", "validation", "test")  # in the order of their claim on a text: a row gives way to a later split
MAX_CLASS_DEVIATION = 0.05  # of a class's share in a split from its share of all rows; above it is a warning
MAX_SHARE_DEVIATION = 0.2  # of a split's size from the size asked for, relative

_Tiers = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Texts:
    """The distinct normalized texts, sorted, and which of them each row has."""

    texts: list[str]
    of_rows: npt.NDArray[np.int64]


def split_rows(valid: Path, splits: Path, *, problem: str, labels: tuple[str, ...], split: SplitParams, report: Report) -> None:
    """Read valid/rows.parquet and write the directory `splits`. Raises DataError if a split would have no rows."""
    kind = load_problem(problem)
    rows = pq.read_table(valid / "rows.parquet")
    texts = distinct_texts(rows, kind.text_columns)
    report(1, {"progress": 0.3})
    given = SPLIT in rows.column_names
    together = distinct_texts(rows, kind.split_columns) if kind.split_columns else texts
    tiers = _given_tiers(rows) if given else assign(together, split)[together.of_rows]
    text_tiers = np.zeros(len(texts.texts), np.int8)
    np.maximum.at(text_tiers, texts.of_rows, tiers)
    matches = near_duplicates(texts.texts, text_tiers, split.near_duplicate_similarity)
    report(2, {"progress": 0.8})
    leaving = np.zeros(len(tiers), bool)
    quarantine = []
    if not given:
        # a text that two groups of rows share may be in two splits
        leaving = np.isin(texts.of_rows, [match.text for match in matches]) | (tiers < text_tiers[texts.of_rows])
        quarantine = _quarantine(rows, texts, tiers, leaving, matches)
    _require_rows(tiers[~leaving], len(tiers), given)
    described = describe(rows, kind.label_column, labels, tiers, leaving, split, given)
    described["warnings"] += _leaks(rows, texts, tiers, matches) if given else _left(quarantine, split)
    described["duplicates"] = len(rows) - len(texts.texts)
    splits.mkdir(parents=True)
    for tier, name in enumerate(SPLITS):
        pq.write_table(rows.filter(pa.array((tiers == tier) & ~leaving)), splits / f"{name}.parquet", compression="zstd")
    write_jsonl(splits / "quarantine.jsonl", quarantine)
    write_json(splits / "split.json", described)
    report(3, {"progress": 1.0, "quarantined": len(quarantine)})


def distinct_texts(rows: pa.Table, columns: tuple[str, ...]) -> Texts:
    """The texts of the rows by which they count as the same."""
    normalized = normalize_rows([rows[column] for column in columns])
    encoded = pc.fill_null(normalized, "").combine_chunks().dictionary_encode()
    # sorted: what follows must not depend on the order of the rows
    order = pc.sort_indices(encoded.dictionary)
    place = np.empty(len(order), np.int64)
    place[order.to_numpy()] = np.arange(len(order))
    return Texts(encoded.dictionary.take(order).to_pylist(), place[encoded.indices.to_numpy()])


def assign(texts: Texts, split: SplitParams) -> _Tiers:
    """The split of each distinct text, as an index into SPLITS."""
    position = positions(pa.chunked_array([pa.array(texts.texts, pa.large_string())]))
    return np.select([position < split.test, position < split.test + split.validation], [2, 1], 0).astype(np.int8)


def near_duplicates(texts: list[str], tiers: _Tiers, similarity: float) -> list[Match]:
    """Validation texts like a test text, and train texts like a test text or a validation text that stays."""
    if similarity >= 1 or not texts:
        return []
    prefixes = make_prefixes(texts, similarity)
    found = find_matches(prefixes, tiers == 1, tiers == 2)
    held_out = tiers > 0
    held_out[[match.text for match in found]] = False
    return found + find_matches(prefixes, tiers == 0, held_out)


def describe(
    rows: pa.Table,
    label_column: str | None,
    labels: tuple[str, ...],
    tiers: _Tiers,
    leaving: npt.NDArray[np.bool_],
    split: SplitParams,
    given: bool,
) -> dict[str, Any]:
    """Counts and shares for split.json."""
    stays = ~leaving
    asked = {"train": 1 - split.validation - split.test, "validation": split.validation, "test": split.test}
    counts = {name: int(((tiers == tier) & stays).sum()) for tier, name in enumerate(SPLITS)}
    total = sum(counts.values())
    described: dict[str, Any] = {
        "rows_in": len(rows),
        "rows_out": total,
        "quarantined": int(leaving.sum()),
        "given": given,
        "splits": {
            name: {"rows": count, "share": count / total, "asked": None if given else round(asked[name], 6)}
            for name, count in counts.items()
        },
        "warnings": [],
    }
    if not given:
        described["warnings"] += [
            f"{name} has {count} rows, {count / total:.1%}; {asked[name]:.0%} was asked for."
            for name, count in counts.items()
            if abs(count / total - asked[name]) > MAX_SHARE_DEVIATION * asked[name]
        ]
    if label_column is not None:
        described["classes"] = _classes(rows[label_column], labels, tiers, stays)
        described["warnings"] += _class_warnings(described["classes"])
        described["largest_class_deviation"] = max(
            abs(one["share"] - shares["all"]["share"]) for shares in described["classes"].values() for one in shares.values()
        )
    return described


def _classes(column: pa.ChunkedArray, labels: tuple[str, ...], tiers: _Tiers, stays: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """label -> split (and `all`) -> its rows and their share of the split."""
    masks = {"all": stays} | {name: stays & (tiers == tier) for tier, name in enumerate(SPLITS)}
    counts = {name: Counter(flat(column.filter(pa.array(mask))).to_pylist()) for name, mask in masks.items()}
    known = list(labels) + sorted(str(label) for label in counts["all"] if label not in labels)
    return {
        label: {name: {"rows": count[label], "share": count[label] / max(1, count.total())} for name, count in counts.items()}
        for label in known
    }


def _class_warnings(classes: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    warnings = []
    for label, shares in classes.items():
        overall = shares["all"]["share"]
        missing = [name for name in SPLITS if not shares[name]["rows"]]
        if missing:
            warnings.append(f"class '{label}' has no rows in {' and '.join(missing)}.")
        warnings += [
            f"class '{label}' is {shares[name]['share']:.1%} of {name}, {overall:.1%} of all rows."
            for name in SPLITS
            if name not in missing and abs(shares[name]["share"] - overall) > MAX_CLASS_DEVIATION
        ]
    return warnings


def _given_tiers(rows: pa.Table) -> _Tiers:
    tiers: _Tiers = pc.index_in(rows[SPLIT], pa.array(SPLITS)).to_numpy().astype(np.int8)
    return tiers


def _first_rows(texts: Texts, tiers: _Tiers) -> npt.NDArray[np.int64]:
    """For each distinct text the first of its rows that are in the split of its claim."""
    order = np.lexsort((np.arange(len(tiers)), -tiers, texts.of_rows))
    return order[np.searchsorted(texts.of_rows[order], np.arange(len(texts.texts)))]


def _quarantine(rows: pa.Table, texts: Texts, tiers: _Tiers, leaving: npt.NDArray[np.bool_], matches: list[Match]) -> list[dict[str, Any]]:
    by_text = {match.text: match for match in matches}
    first = _first_rows(texts, tiers)
    indices = np.flatnonzero(leaving).tolist()
    partners = [by_text.get(text, Match(text, text, 1.0)) for text in texts.of_rows[indices].tolist()]
    places = rows.select([name for name in rows.column_names if name in ("row", "_file", "_line")])
    reasons = []
    for i, match in zip(indices, partners, strict=True):
        reason: dict[str, Any] = {"check": "near_duplicates", "split": SPLITS[tiers[i]]}
        if match.partner is None:
            reason |= {
                "reason": "it shares rare shingles with too many held-out texts to compare it with each",
                "similarity": None,
                "like": None,
            }
        else:
            like = int(first[match.partner])
            place = place_of(places.slice(like, 1).to_pylist()[0]) | {"split": SPLITS[tiers[like]]}
            reason["reason"] = f"nearly the same text as {say_place(place)}, which is in {place['split']}"
            reason |= {"similarity": round(match.similarity, 4), "like": place}
        reasons.append(reason)
    return set_aside(rows, indices, reasons)


def _left(quarantine: list[dict[str, Any]], split: SplitParams) -> list[str]:
    counts = Counter(entry["split"] for entry in quarantine)
    warnings = [
        f"{_rows(count)} of {name} left: each nearly repeats a text of {'test' if name == 'validation' else 'validation or test'} "
        f"(similarity {split.near_duplicate_similarity:g} or more); they are kept in data/splits/quarantine.jsonl."
        for name, count in counts.items()
    ]
    crowded = sum(entry["like"] is None for entry in quarantine)
    if crowded:
        warnings.append(
            f"{crowded} of them left uncompared: too many texts are alike. A higher split.near_duplicate_similarity compares fewer."
        )
    return warnings


def _leaks(rows: pa.Table, texts: Texts, tiers: _Tiers, matches: list[Match]) -> list[str]:
    """What the user's own splits share, in words."""
    highest = np.zeros(len(texts.texts), np.int8)
    np.maximum.at(highest, texts.of_rows, tiers)
    first = _first_rows(texts, tiers)
    same = [(i, int(first[texts.of_rows[i]])) for i in np.flatnonzero(tiers < highest[texts.of_rows]).tolist()]
    by_text = {match.text: match.partner for match in matches if match.partner is not None}
    near = [(i, int(first[by_text[text]])) for i, text in enumerate(texts.of_rows.tolist()) if text in by_text]
    warnings = []
    for words, pairs in (("repeat the text", same), ("nearly repeat a text", near)):
        if pairs:
            a, b = (say_place(place_of(rows.slice(i, 1).to_pylist()[0])) for i in pairs[0])
            warnings.append(
                f"{_rows(len(pairs))} {words} of a later split ({', '.join(SPLITS)}), for example {a} and {b}; they stay as given."
            )
    return warnings


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _require_rows(tiers: _Tiers, total: int, given: bool) -> None:
    counts = {name: int((tiers == tier).sum()) for tier, name in enumerate(SPLITS)}
    empty = [name for name, count in counts.items() if not count]
    if empty:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        remedy = "Give rows for each of the three." if given else "Give more rows, or raise split.validation and split.test in params.yaml."
        raise DataError(f"no rows for {' and '.join(empty)}: of {total} valid rows there are {found}.", remedy)
