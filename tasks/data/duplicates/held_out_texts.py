"""Unlabelled rows that may be learned from: none of them is a validation or test row."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.errors import DataError
from tasks.data.duplicates.distinct_texts import DistinctTexts
from tasks.data.duplicates.near_duplicates import NearDuplicates
from tasks.data.duplicates.normalization import normalize_rows
from tasks.data.tables.loaded import SPLITS
from tasks.data.tables.row_store import RowStore
from tasks.data.tables.unlabelled_rows import UNLABELLED


@dataclass(frozen=True)
class Unlabelled:
    """What became of the unlabelled rows.

    rows      those that are left
    held_out  left out: the same or nearly the same text as a validation or test row
    repeated  left out: the same text as another unlabelled row
    """

    rows: int
    held_out: int
    repeated: int

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @property
    def warnings(self) -> list[str]:
        """For people; empty if no row is like a held-out one."""
        if not self.held_out:
            return []
        return [
            f"{self.held_out} unlabelled rows are left out: they are (nearly) the same as "
            "validation or test rows."
        ]


def write_apart(valid: Path, splits: Path, column: str, similarity: float) -> Unlabelled:
    """Write the unlabelled rows of `valid` to `splits`, without what is held out or repeated.

    column      the text's
    similarity  of near-duplicates, as of NearDuplicates; 1: only the same texts are left out
    Raises DataError if no row is left.
    """
    rows = RowStore(valid / UNLABELLED)
    held_out = [RowStore(splits / f"{name}.parquet") for name in SPLITS[1:]]
    before = sum(map(len, held_out))

    def normalized() -> Iterator[pa.ChunkedArray]:
        for store in (*held_out, rows):
            for _, batch in store.batches([column]):
                yield normalize_rows([batch[column]])

    with tempfile.TemporaryDirectory(prefix=".unlabelled.", dir=splits.parent) as scratch:
        texts = DistinctTexts(Path(scratch), normalized())
        is_held_out = np.zeros(len(texts), bool)
        is_held_out[texts.of_rows[:before]] = True
        own = texts.of_rows[before:]
        if similarity < 1:
            search = NearDuplicates(texts, similarity, Path(scratch) / "shingles")
            similar = search.find(~is_held_out, is_held_out)
            is_held_out[[match.text for match in similar]] = True
    first = np.zeros(len(own), bool)
    first[np.unique(own, return_index=True)[1]] = True
    apart = ~is_held_out[own]
    kept = first & apart
    found = Unlabelled(int(kept.sum()), int((~apart).sum()), int((~first & apart).sum()))
    if not found.rows:
        raise DataError(
            f"ingest.unlabelled: all {found.held_out} rows are validation or test rows.",
            "Give other rows, or set ingest.unlabelled to [] and finetune.self_training to false.",
        )
    with pq.ParquetWriter(splits / UNLABELLED, rows.schema, compression="zstd") as writer:
        for start, batch in rows.batches():
            writer.write_table(batch.filter(pa.array(kept[start : start + len(batch)])))
    return found
