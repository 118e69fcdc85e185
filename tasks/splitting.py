"""Split rows into train, validation and test by a hash of the normalized text.

A row therefore never changes splits when rows are added. Equal normalized texts share a split;
where a problem keeps rows together (those of a query, say), the shared columns are hashed instead.
Of two near-duplicates in different splits, the one further from the test set is quarantined: the
train row, or the validation row if the other is in test. So the test set only ever grows.

{train,validation,test}.parquet   the rows unchanged
quarantine.jsonl                  quarantined rows, each with the row it resembles; rows in = rows
                                  in the splits + rows here
split.json                        counts and class shares per split, and `warnings`
account.json                      what became of all rows (see data/quality/row_account.py)
unlabelled.parquet                unlabelled rows that are like no held-out row, if there are any
Splits named by the sources are kept as they are: leaks are reported, and no row is quarantined.
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
from tasks.data.duplicates.held_out_texts import write_apart
from tasks.data.duplicates.leakage import Claims, Tiers, quarantined_rows, say_leaks, say_left
from tasks.data.duplicates.near_duplicates import Match, NearDuplicates
from tasks.data.duplicates.normalization import normalize_rows, positions
from tasks.data.duplicates.text_digests import SameTexts
from tasks.data.quality.row_account import Account, Losses
from tasks.data.tables.label_lists import flat
from tasks.data.tables.loaded import SPLIT, SPLITS
from tasks.data.tables.row_store import RowStore
from tasks.data.tables.unlabelled_rows import UNLABELLED
from tasks.params.schema import SplitParams
from tasks.problems import load_problem

# warn above these: difference of a class's share in a split from its share of all rows,
# and relative difference of a split's size from the size requested
MAX_CLASS_DEVIATION = 0.05
MAX_SHARE_DEVIATION = 0.2
SHOWN = 5  # labels in one warning


def split_rows(
    valid: Path,
    splits: Path,
    *,
    problem: str,
    labels: tuple[str, ...],
    split: SplitParams,
    report: Report,
) -> None:
    """Split valid/rows.parquet into the directory `splits`; DataError if a split would be empty."""
    problem_type = load_problem(problem)
    rows = RowStore(valid / "rows.parquet")
    predefined = SPLIT in rows.column_names  # the sources name the splits
    splits.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".split.", dir=splits.parent) as scratch:
        texts = DistinctTexts(Path(scratch), normalized(rows, problem_type.rows.text_columns))
        if predefined:
            tiers = predefined_tiers(rows)
        else:
            groups = _split_keys(rows, problem_type.rows.split_columns, texts, Path(scratch))
            tiers = assign(groups, split)
        report(1, {"progress": 0.3})
        claims = Claims(texts, tiers)
        matches = near_duplicates(
            texts, claims.text_tiers, split.near_duplicate_similarity, Path(scratch) / "shingles"
        )
    report(2, {"progress": 0.8})
    leaving = np.zeros(len(tiers), bool)
    if not predefined:
        # a text shared by two groups of rows may be in two splits
        leaving = np.isin(texts.of_rows, [match.text for match in matches]) | claims.outdone
    account = Account.read(valid)
    _require_rows(
        tiers[~leaving], account, quarantined_rows(rows, claims, leaving, matches), predefined
    )
    splits.mkdir(parents=True)
    classes = write_splits(rows, splits, problem_type.rows.label_column, tiers, leaving)
    described = describe(classes, labels, tiers, leaving, split, predefined)
    losses = Losses("split")
    quarantined = write_jsonl(
        splits / "quarantine.jsonl", losses.watch(quarantined_rows(rows, claims, leaving, matches))
    )
    account.less(losses.found()).write(splits)
    described["warnings"] += (
        say_leaks(rows, claims, matches)
        if predefined
        else say_left(claims, leaving, matches, split)
    )
    described["duplicates"] = len(rows) - len(texts)
    if (valid / UNLABELLED).is_file():
        (column,) = problem_type.rows.text_columns
        unlabelled = write_apart(valid, splits, column, split.near_duplicate_similarity)
        described["unlabelled"] = unlabelled.plain()
        described["warnings"] += unlabelled.warnings
    write_json(splits / "split.json", described)
    report(3, {"progress": 1.0, "quarantined": quarantined})


def normalized(rows: RowStore, columns: Sequence[str]) -> Iterator[pa.ChunkedArray]:
    """Normalized texts by which rows count as equal, batch by batch."""
    for _, batch in rows.batches(columns):
        yield normalize_rows([batch[column] for column in columns])


def _split_keys(
    rows: RowStore, columns: Sequence[str], texts: DistinctTexts, scratch: Path
) -> SameTexts:
    """What rows of one split share: the values of `columns`, or without columns their texts."""
    if not columns:
        return texts.rows
    keys = SameTexts(scratch / "together")
    for batch in normalized(rows, columns):
        keys.add(batch)
    return keys


def assign(rows: SameTexts, split: SplitParams) -> Tiers:
    """Split of each row by its hash, as an index into SPLITS."""
    tiers = [np.zeros(0, np.int8)]
    for hashes in map(positions, rows.digests()):
        below = [hashes < split.test, hashes < split.test + split.validation]
        tiers.append(np.select(below, [2, 1], 0).astype(np.int8))
    return np.concatenate(tiers)


def predefined_tiers(rows: RowStore) -> Tiers:
    """Split of each row as its source names it, as an index into SPLITS."""
    names = pa.array(SPLITS)
    tiers = [pc.index_in(batch[SPLIT], names).to_numpy() for _, batch in rows.batches([SPLIT])]
    return np.concatenate([np.zeros(0), *tiers]).astype(np.int8)


def near_duplicates(
    texts: DistinctTexts, tiers: Tiers, similarity: float, scratch: Path
) -> list[Match]:
    """Validation texts like a test text; train texts like a test text or a kept validation text."""
    if similarity >= 1:
        return []
    search = NearDuplicates(texts, similarity, scratch)
    matches = search.find(tiers == 1, tiers == 2)
    held_out = tiers > 0
    held_out[[match.text for match in matches]] = False
    return matches + search.find(tiers == 0, held_out)


def write_splits(
    rows: RowStore, splits: Path, label: str | None, tiers: Tiers, leaving: Bools
) -> dict[str, Counter[str]]:
    """Write each split's rows; returns split -> class -> rows, empty without a label column."""
    classes: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                pq.ParquetWriter(splits / f"{name}.parquet", rows.schema, compression="zstd")
            )
            for name in SPLITS
        ]
        for first, batch in rows.batches():
            window = slice(first, first + len(batch))
            for tier, (name, writer) in enumerate(zip(SPLITS, writers, strict=True)):
                kept = batch.filter(pa.array((tiers[window] == tier) & ~leaving[window]))
                if len(kept):
                    writer.write_table(kept)
                if label is not None:
                    counts = pc.value_counts(flat(kept[label])).to_pylist()
                    classes[name].update({entry["values"]: entry["counts"] for entry in counts})
    return {} if label is None else classes


def describe(
    classes: Mapping[str, Counter[str]],
    labels: tuple[str, ...],
    tiers: Tiers,
    leaving: Bools,
    split: SplitParams,
    predefined: bool,
) -> dict[str, Any]:
    """Counts and shares for split.json.

    classes   split -> class -> rows; empty if rows have no classes
    """
    stays = ~leaving
    requested = {
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
        "given": predefined,
        "splits": {
            name: {
                "rows": count,
                "share": count / total,
                "asked": None if predefined else round(requested[name], 6),
            }
            for name, count in counts.items()
        },
        "warnings": [],
    }
    if not predefined:
        described["warnings"] += [
            f"{name} has {count} rows, {count / total:.1%}; {requested[name]:.0%} was requested."
            for name, count in counts.items()
            if abs(count / total - requested[name]) > MAX_SHARE_DEVIATION * requested[name]
        ]
    if classes:
        described["classes"] = _shares(classes, labels)
        described["warnings"] += _class_warnings(described["classes"])
        described["largest_class_deviation"] = max(
            abs(entry["share"] - shares["all"]["share"])
            for shares in described["classes"].values()
            for entry in shares.values()
        )
    return described


def _shares(classes: Mapping[str, Counter[str]], labels: tuple[str, ...]) -> dict[str, Any]:
    """label -> split (or `all`) -> the label's rows and their share of the split."""
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
    absent: dict[tuple[str, ...], list[str]] = {}
    deviating = []
    for label, shares in classes.items():
        overall = shares["all"]["share"]
        missing = tuple(name for name in SPLITS if not shares[name]["rows"])
        if missing:
            absent.setdefault(missing, []).append(f"'{label}'")
        deviating += [
            f"class '{label}' is {shares[name]['share']:.1%} of {name}, {overall:.1%} of all rows."
            for name in SPLITS
            if name not in missing and abs(shares[name]["share"] - overall) > MAX_CLASS_DEVIATION
        ]
    # what cannot be learnt first
    most_serious = sorted(absent.items(), key=lambda entry: SPLITS[0] not in entry[0])
    return [_absence(missing, labels) for missing, labels in most_serious] + deviating


def _absence(missing: tuple[str, ...], labels: list[str]) -> str:
    """That the labels have no rows in the splits `missing`."""
    where = f"no rows in {' and '.join(missing)}"
    never = ", so the model never predicts" if SPLITS[0] in missing else ""
    if len(labels) == 1:
        return f"class {labels[0]} has {where}{never and f'{never} it'}."
    shown = ", ".join(labels[:SHOWN]) + (", …" if len(labels) > SHOWN else "")
    return f"{len(labels)} classes have {where}{never and f'{never} them'}: {shown}."


def _require_rows(
    tiers: Tiers, account: Account, leaving: Iterator[dict[str, Any]], predefined: bool
) -> None:
    """Raise DataError if a split is empty: what was quarantined and why, then the empty splits.

    tiers    splits of the remaining rows
    account  before the split
    leaving  quarantine entries of the split
    """
    counts = {name: int((tiers == tier).sum()) for tier, name in enumerate(SPLITS)}
    empty = [name for name, count in counts.items() if not count]
    if empty:
        losses = Losses("split")
        deque(losses.watch(leaving), maxlen=0)
        sizes = ", ".join(f"{name} {count}" for name, count in counts.items())
        failure = (
            f"no rows for {' and '.join(empty)}: {account.used} valid rows split into {sizes}."
        )
        remedy = "Provide more rows, or raise split.validation and split.test in params.yaml."
        if predefined:
            remedy = "Provide rows for each of the three."
        raise DataError(account.less(losses.found()).before(failure), remedy)
