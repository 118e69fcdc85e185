"""Rows to token ids on disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import LABELS, tiny_rows

from tasks.core.errors import DataError
from tasks.core.progress import silent
from tasks.params.schema import BaseModelParams, TokenizeParams
from tasks.tokenization import tokenize_splits


def test_a_split_without_rows_is_told_and_leaves_nothing(base_dir: Path, tmp_path: Path) -> None:
    rows = pa.table({"row": range(9), **tiny_rows(9)})
    (tmp_path / "splits").mkdir()
    for split, count in (("train", 9), ("validation", 9), ("test", 0)):
        pq.write_table(rows.slice(0, count), tmp_path / "splits" / f"{split}.parquet")
    with pytest.raises(DataError, match="the test split has no rows"):
        tokenize_splits(
            tmp_path / "splits",
            tmp_path / "tokens",
            problem="text-classification",
            labels=LABELS,
            tokenize=TokenizeParams(max_length=32),
            base_model=BaseModelParams(path=str(base_dir)),
            root=tmp_path,
            cache=tmp_path,
            report=silent,
        )
