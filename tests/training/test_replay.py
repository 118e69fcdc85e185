"""Replay of old rows in continued training: a share of each label, drawn by content and seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tasks.core.errors import DataError
from tasks.training.replay import replayed_rows


def tokens_of(ids: Sequence[Sequence[int]], references: Sequence[int]) -> pa.Table:
    columns = {
        "input_ids": pa.array(ids, pa.list_(pa.int32())),
        "references": pa.array(references, pa.int64()),
    }
    return pa.table(columns)


def test_rows_with_several_references_are_replayed_by_their_share() -> None:
    ids = pa.array([[2, row, 3] for row in range(100)], pa.list_(pa.int32()))
    references = pa.array([[row % 5, row % 7] for row in range(100)], pa.list_(pa.int64()))
    table = pa.table({"input_ids": ids, "references": references})
    _, counts = replayed_rows(table, table, (0, 1), 0.25, seed=1)
    assert (counts.new, counts.replayed, counts.left_out) == (0, 25, 75)


def many(count: int, first: int = 0) -> pa.Table:
    rows = range(first, first + count)
    return tokens_of([[2, row, row // 7, 3] for row in rows], [row % 3 for row in rows])


def content(table: pa.Table) -> list[tuple[Any, ...]]:
    return sorted((tuple(row["input_ids"]), row["references"]) for row in table.to_pylist())


def test_no_replay_leaves_the_new_rows_and_full_replay_all() -> None:
    present, past = many(500), many(400)
    none, counts = replayed_rows(present, past, (0, 1, 2), 0.0, seed=1)
    assert (counts.new, counts.replayed, counts.left_out) == (100, 0, 400)
    assert content(none) == content(many(100, 400))
    whole, counts = replayed_rows(present, past, (0, 1, 2), 1.0, seed=1)
    assert (counts.new, counts.replayed, counts.left_out) == (100, 400, 0)
    assert whole is present


def test_a_share_is_drawn_from_every_label_alike() -> None:
    rows, counts = replayed_rows(many(400), many(300), (0, 1, 2), 0.1, seed=1)
    assert (counts.new, counts.replayed, counts.left_out) == (100, 30, 270)
    assert np.bincount(rows.slice(0, 30)["references"].to_numpy()).tolist() == [10, 10, 10]
    _, counts = replayed_rows(many(9), many(9), (0, 1, 2), 0.01, seed=1)
    assert counts.replayed == 3  # at least one row of each label


def test_which_rows_are_replayed_depends_on_content_and_seed_alone() -> None:
    present, past = many(400), many(300)
    order = np.random.default_rng(0).permutation(400)
    shuffled, shuffled_past = present.take(order), past.take(order[order < 300])

    def drawn(present: pa.Table, past: pa.Table, seed: int) -> list[tuple[Any, ...]]:
        rows, _ = replayed_rows(present, past, (0, 1, 2), 0.3, seed=seed)
        return content(rows)

    assert drawn(shuffled, shuffled_past, 1) == drawn(present, past, 1)
    assert drawn(present, past, 2) != drawn(present, past, 1)


def test_rows_are_known_by_their_labels_name_not_its_number() -> None:
    past = tokens_of([[1], [2], [3]], [0, 1, 2])
    present = tokens_of([[1], [2], [3], [1]], [1, 0, 0, 0])
    # the old label 2 is gone
    _, counts = replayed_rows(present, past, (1, 0, None), 0.0, seed=1)
    assert (counts.new, counts.left_out) == (2, 2)


def test_nothing_new_and_no_replay_is_told() -> None:
    with pytest.raises(DataError, match="none of its 20 rows is new") as caught:
        replayed_rows(many(20), many(30), (0, 1, 2), 0.0, seed=1)
    assert "replay_share" in caught.value.remedy


def test_many_rows_are_told_apart_without_a_loop() -> None:
    ids = np.arange(1_600_000, dtype=np.int32)
    offsets = np.arange(0, 1_600_001, 8, dtype=np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids))
    table = pa.table({"input_ids": lists, "references": pa.array(np.arange(200_000) % 5)})
    rows, counts = replayed_rows(table, table.slice(0, 180_000), range(5), 0.5, seed=0)
    assert (counts.new, counts.replayed, len(rows)) == (20_000, 90_000, 110_000)
