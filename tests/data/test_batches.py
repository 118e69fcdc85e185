"""Validating rows in batches gives what validating all at once gives."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from test_validation import COUNT, Run, table
from tiny import LABELS

from tasks.data.duplicates.text_digests import SameTexts

OWN = [
    {"type": f"expect_column_{name}", "kwargs": kwargs, "action": "warn"}
    for name, kwargs in [
        ("values_to_be_unique", {"column": "text"}),
        ("values_to_be_in_set", {"column": "domain", "value_set": ["films"], "mostly": 0.9}),
        ("values_to_not_match_regex", {"column": "text", "regex": "a"}),
        ("values_to_be_null", {"column": "domain", "mostly": 0.5}),
        ("mean_to_be_between", {"column": "text.characters", "max_value": 1}),
        ("pair_values_to_be_equal", {"column_A": "text", "column_B": "label"}),
        ("unique_value_count_to_be_between", {"column": "domain", "max_value": 1}),
    ]
]


@pytest.mark.parametrize("seed", range(3))
def test_rows_in_batches_are_judged_as_all_at_once(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    texts = [None, "", "same text", "Same, TEXT!", "\x00", "y" * 900]
    texts += ["tel. (212) 566-8082", "Ã©tÃ©", "中文"]
    spoiled = {
        row: {
            "text": draw.choice(texts),
            "label": draw.choice([None, "", "new", *LABELS]),
            "domain": draw.choice([None, "films", "x"]),
        }
        for row in draw.sample(range(200), 120)
    }
    actions = {
        "duplicates": draw.choice(["quarantine", "warn"]),
        "unknown_label": "warn",
        "conflicts": "quarantine",
    }
    rows = table(spoiled, 200)
    params: dict[str, Any] = {"script": "Latin", "actions": actions, "expectations": OWN}
    whole = Run(tmp_path / "whole", rows, **params)
    monkeypatch.setattr("tasks.data.tables.row_store.BATCH_ROWS", 30)
    parts = Run(tmp_path / "parts", rows, row_group=7, **params)
    assert parts.report == whole.report
    assert parts.page == whole.page
    assert parts.aside == whole.aside
    assert parts.kept.equals(whole.kept)
    failed = {check["name"] for check in parts.report["checks"] if not check["success"]}
    assert failed >= {f"expectations.{i}" for i in range(len(OWN))}


def test_numbers_with_nulls_are_matched_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = pa.array([None if i in (5, 40) else i for i in range(COUNT)], pa.int64())
    rows = table().append_column("number", numbers).append_column("row_index", numbers)
    own = [
        {
            "type": "expect_column_values_to_match_regex",
            "kwargs": {"column": "number", "regex": "^[0-9]$"},
            "action": "warn",
        }
    ]
    for name, batch in (("whole", 1000), ("parts", 20)):
        monkeypatch.setattr("tasks.data.tables.row_store.BATCH_ROWS", batch)
        run = Run(tmp_path / name, rows, row_group=5, expectations=own)
        assert run.check("expectations.0")["unexpected"] == COUNT - 11


@pytest.mark.filterwarnings("ignore:.*deprecated as of GX Core 1.9.0:DeprecationWarning")
def test_what_is_said_of_the_table_is_judged_on_the_users_columns_and_rows(tmp_path: Path) -> None:
    few = {
        "min_value": 1,
        "max_value": 2,
        "row_condition": 'domain=="x"',
        "condition_parser": "pandas",
    }
    own = [
        {"type": "expect_table_column_count_to_equal", "kwargs": {"value": 3}, "action": "error"},
        {
            "type": "expect_table_columns_to_match_set",
            "kwargs": {"column_set": ["text", "label", "domain"]},
            "action": "error",
        },
        {"type": "expect_table_row_count_to_be_between", "kwargs": few, "action": "error"},
        {
            "type": "expect_table_columns_to_match_set",
            "kwargs": {"column_set": ["text", "label"]},
            "action": "warn",
        },
    ]
    run = Run(tmp_path, table({3: {"domain": "x"}, 9: {"domain": "x"}}), expectations=own)
    assert [run.check(f"expectations.{i}")["observed"] for i in (0, 2)] == [3, 2]
    assert not run.check("expectations.3")["success"]


def test_the_profile_reads_its_own_file_and_long_values(tmp_path: Path) -> None:
    """In a directory whose name DuckDB could read as a pattern or as a partition's value."""
    bodies = [f"{i} " * 20_000 for i in range(COUNT)]
    rows = table().append_column("body", pa.array(bodies))
    for name, count in (("[1]", 60), ("1", COUNT), ("domain=zzz", COUNT)):
        profile = Run(tmp_path / name, rows.slice(0, count)).report["profile"]
        assert profile["rows"] == sum(profile["labels"].values()) == count
        assert profile["columns"]["body"]["distinct"] == profile["rows"]
        assert "zzz" not in profile["columns"]["domain"]["top"]


def test_lists_of_labels_in_batches_are_judged_as_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    known = ("a", "b", "c")
    choices = [None, [], ["a"], ["b", "a"], ["c", "b"], ["new", "a"], ["b"]]
    lists = [draw.choice(choices) for _ in range(COUNT)]
    rows = table({4: {"text": "one text"}, 5: {"text": "one text"}}).drop_columns("label")
    rows = rows.append_column("labels", pa.array(lists))
    params: dict[str, Any] = {
        "actions": dict.fromkeys(("unknown_label", "rows_per_class", "missing_class"), "warn"),
        "min_rows_per_class": 40,
        "max_class_share": 0.1,
    }
    runs = {}
    for name, batch in (("whole", 1000), ("parts", 10)):
        monkeypatch.setattr("tasks.data.tables.row_store.BATCH_ROWS", batch)
        runs[name] = Run(tmp_path / name, rows, known, 5, "multi-label-classification", **params)
    assert runs["parts"].report == runs["whole"].report
    assert runs["parts"].aside == runs["whole"].aside
    counts = {label: sum(label in (labels or ()) for labels in lists) for label in known}
    few = {label for label, count in counts.items() if count < 40}
    assert few
    expected = sum(any(label in few for label in labels) for labels in lists if labels)
    assert runs["whole"].check("rows_per_class")["unexpected"] == expected


def test_texts_are_numbered_in_parts_as_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.data.duplicates.text_digests._PART", 7)
    draw = random.Random(0)
    texts = [draw.choice("abcdefghijklmnopqrstuvwxyz") * draw.randint(1, 3) for _ in range(100)]
    same = SameTexts(tmp_path / "digests")
    assert [len(array) for array in (*same.number(), *same.repeated())] == [0, 0, 0, 0]
    for start, stop in ((0, 40), (40, 45), (45, 100)):
        same.add(pa.chunked_array([pa.array(texts[start:stop])]))
    ordered = sorted({*texts}, key=lambda text: hashlib.sha256(text.encode()).digest())
    numbers, first = same.number()
    assert [ordered[number] for number in numbers] == texts
    assert first.tolist() == [texts.index(text) for text in ordered]
    rows, originals = same.repeated()
    assert rows.tolist() == [row for row, text in enumerate(texts) if texts.count(text) > 1]
    assert originals.tolist() == [texts.index(texts[row]) for row in rows]
