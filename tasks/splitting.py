"""Rows to train, validation and test by a hash of the normalized text, so that a row never changes splits when rows are added.

Same normalized text, same hash, same split; where a problem keeps rows together (those of a query, say), that is hashed.
Of two near-duplicates in different splits the one further from the test set leaves: out of train, or out of validation if the other
is in test. So the test set only ever grows.

{train,validation,test}.parquet   the rows as they came
quarantine.jsonl                  rows that left, each with the row it resembles; rows in = rows in the splits + rows here
split.json                        counts and class shares a split, and `warnings`
account.json                      what became of all rows (see data/quality/row_account.py)
Sources that name their splits are taken as they are: what would leak is reported, nothing leaves.
"""

from __future__ import annotations

import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.arrays import Bools
from tasks.core.errors import DataError
from tasks.core.files import write_json, write_jsonl
from tasks.core.progress import Report
from tasks.data.duplicates.distinct_texts import DistinctTexts
from tasks.data.duplicates.leakage import Claims, Tiers, quarantined_rows, say_leaks, say_left
from tasks.data.duplicates.near_duplicates import Match, NearDuplicates
from tasks.data.duplicates.normalization import normalize_rows, positions
from tasks.data.duplicates.text_digests import SameTexts
from tasks.data.quality.row_account import Account, Losses
from tasks.data.tables.label_lists import flat
from tasks.data.tables.loaded import SPLIT, SPLITS
from tasks.data.tables.row_store import RowStore
from tasks.params.schema import SplitParams
from tasks.problems import load_problem

MAX_CLASS_DEVIATION = (
    0.05  # of a class's share in a split from its share of all rows; above it is a warning
)
MAX_SHARE_DEVIATION = 0.2  # of a split's size from the size asked for, relative


def split_rows(
    valid: Path,
    splits: Path,
    *,
    problem: str,
    labels: tuple[str, ...],
    split: SplitParams,
    report: Report,
) -> None:
    """Read valid/rows.parquet and write the directory `splits`. Raises DataError if a split would have no rows."""
    kind = load_problem(problem)
    rows = RowStore(valid / "rows.parquet")
    given = SPLIT in rows.column_names
    splits.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".split.", dir=splits.parent) as scratch:
        texts = DistinctTexts(Path(scratch), normalized(rows, kind.text_columns))
        tiers = (
            given_tiers(rows)
            if given
            else assign(_together(rows, kind.split_columns, texts, Path(scratch)), split)
        )
        report(1, {"progress": 0.3})
        claims = Claims(texts, tiers)
        matches = near_duplicates(
            texts, claims.text_tiers, split.near_duplicate_similarity, Path(scratch) / "shingles"
        )
    report(2, {"progress": 0.8})
    leaving = np.zeros(len(tiers), bool)
    if not given:
        # a text that two groups of rows share may be in two splits
        leaving = np.isin(texts.of_rows, [match.text for match in matches]) | claims.outdone
    account = Account.read(valid)
    _require_rows(tiers[~leaving], account, quarantined_rows(rows, claims, leaving, matches), given)
    splits.mkdir(parents=True)
    described = describe(
        write_splits(rows, splits, kind.label_column, tiers, leaving),
        labels,
        tiers,
        leaving,
        split,
        given,
    )
    losses = Losses("split")
    quarantined = write_jsonl(
        splits / "quarantine.jsonl", losses.watch(quarantined_rows(rows, claims, leaving, matches))
    )
    account.less(losses.found()).write(splits)
    described["warnings"] += (
        say_leaks(rows, claims, matches) if given else say_left(claims, leaving, matches, split)
    )
    described["duplicates"] = len(rows) - len(texts)
    write_json(splits / "split.json", described)
    report(3, {"progress": 1.0, "quarantined": quarantined})


def normalized(rows: RowStore, columns: Sequence[str]) -> Iterator[pa.ChunkedArray]:
    """The texts by which rows count as the same, some rows at a time."""
    return (
        normalize_rows([some[column] for column in columns]) for _, some in rows.batches(columns)
    )


def _together(
    rows: RowStore, columns: Sequence[str], texts: DistinctTexts, scratch: Path
) -> SameTexts:
    """The rows by what those of one split have in common: by these columns, or by their texts where there are none."""
    if not columns:
        return texts.rows
    found = SameTexts(scratch / "together")
    for some in normalized(rows, columns):
        found.add(some)
    return found


def assign(rows: SameTexts, split: SplitParams) -> Tiers:
    """The split of each row, as an index into SPLITS."""
    tiers = [np.zeros(0, np.int8)]
    for found in map(positions, rows.digests()):
        tiers.append(
            np.select(
                [found < split.test, found < split.test + split.validation], [2, 1], 0
            ).astype(np.int8)
        )
    return np.concatenate(tiers)


def given_tiers(rows: RowStore) -> Tiers:
    """The split that each row names."""
    found = [
        pc.index_in(some[SPLIT], pa.array(SPLITS)).to_numpy() for _, some in rows.batches([SPLIT])
    ]
    return np.concatenate([np.zeros(0), *found]).astype(np.int8)


def near_duplicates(
    texts: DistinctTexts, tiers: Tiers, similarity: float, scratch: Path
) -> list[Match]:
    """Validation texts like a test text, and train texts like a test text or a validation text that stays."""
    if similarity >= 1:
        return []
    search = NearDuplicates(texts, similarity, scratch)
    found = search.find(tiers == 1, tiers == 2)
    held_out = tiers > 0
    held_out[[match.text for match in found]] = False
    return found + search.find(tiers == 0, held_out)


def write_splits(
    rows: RowStore, splits: Path, label: str | None, tiers: Tiers, leaving: Bools
) -> dict[str, Counter[str]]:
    """Write the rows of each split; returns how many of them have each class."""
    classes: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                pq.ParquetWriter(splits / f"{name}.parquet", rows.schema, compression="zstd")
            )
            for name in SPLITS
        ]
        for first, some in rows.batches():
            here = slice(first, first + len(some))
            for tier, (name, writer) in enumerate(zip(SPLITS, writers, strict=True)):
                part = some.filter(pa.array((tiers[here] == tier) & ~leaving[here]))
                if len(part):
                    writer.write_table(part)
                if label is not None:
                    counts = pc.value_counts(flat(part[label])).to_pylist()
                    classes[name].update({entry["values"]: entry["counts"] for entry in counts})
    return {} if label is None else classes


def describe(
    classes: Mapping[str, Counter[str]],
    labels: tuple[str, ...],
    tiers: Tiers,
    leaving: Bools,
    split: SplitParams,
    given: bool,
) -> dict[str, Any]:
    """Counts and shares for split.json.

    classes   split -> class -> rows; empty where rows have none
    """
    stays = ~leaving
    asked = {
        "train": 1 - split.validation - split.test,
        "validation": split.validation,
        "test": split.test,
    }
    counts = {name: int(((tiers == tier) & stays).sum()) for tier, name in enumerate(SPLITS)}
    total = sum(counts.values())
    described: dict[str, Any] = {
        "rows_in": len(tiers),
        "rows_out": total,
        "quarantined": int(leaving.sum()),
        "given": given,
        "splits": {
            name: {
                "rows": count,
                "share": count / total,
                "asked": None if given else round(asked[name], 6),
            }
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
    if classes:
        described["classes"] = _shares(classes, labels)
        described["warnings"] += _class_warnings(described["classes"])
        described["largest_class_deviation"] = max(
            abs(one["share"] - shares["all"]["share"])
            for shares in described["classes"].values()
            for one in shares.values()
        )
    return described


def _shares(classes: Mapping[str, Counter[str]], labels: tuple[str, ...]) -> dict[str, Any]:
    """label -> split (and `all`) -> its rows and their share of the split."""
    counts = {"all": sum(classes.values(), Counter[str]()), **classes}
    known = list(labels) + sorted(str(label) for label in counts["all"] if label not in labels)
    return {
        label: {
            name: {"rows": count[label], "share": count[label] / max(1, count.total())}
            for name, count in counts.items()
        }
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


def _require_rows(
    tiers: Tiers, account: Account, leaving: Iterator[dict[str, Any]], given: bool
) -> None:
    """DataError where a split has none: what was set aside and why, then which.

    tiers    of the rows that stay
    account  before the split;  leaving  what it sets aside
    """
    counts = {name: int((tiers == tier).sum()) for tier, name in enumerate(SPLITS)}
    empty = [name for name, count in counts.items() if not count]
    if empty:
        losses = Losses("split")
        deque(losses.watch(leaving), maxlen=0)
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        failure = (
            f"no rows for {' and '.join(empty)}: of {account.used} valid rows there are {found}."
        )
        remedy = (
            "Give rows for each of the three."
            if given
            else "Give more rows, or raise split.validation and split.test in params.yaml."
        )
        raise DataError(account.less(losses.found()).before(failure), remedy)
