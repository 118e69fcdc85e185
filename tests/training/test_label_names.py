"""Label names as training rows: what they say, which say nothing, and a training with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from test_matrix import Killed, killed_after_two_steps, tokens_of, train
from tiny import LABELS

from tasks.core.errors import ParamsError
from tasks.core.files import sha256_file
from tasks.encoding.token_files import load_tokenizer, read_tokens
from tasks.problems import load_problem
from tasks.training.label_names import (
    NAMED,
    check_label_names,
    mute_labels,
    spoken,
    with_label_names,
)

PROBLEM = load_problem("text-classification")


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("account_blocked", "account blocked"),
        ("accountBlocked", "account blocked"),
        ("Sci/Tech", "sci tech"),
        ("  very  good ", "very good"),
        ("正面", "正面"),
    ],
)
def test_a_name_is_read_as_it_is_said(label: str, says: str) -> None:
    assert spoken(label) == says
    assert mute_labels([label]) == []


def test_names_that_say_nothing_are_found() -> None:
    mute = ["0", "1.0", "A", "b2", "LABEL_1", "class 12", "Topic", "-", ""]
    assert mute_labels([*mute, "pos", "neutral"]) == mute


def test_the_rows_stay_and_one_for_each_name_follows() -> None:
    tokens = tokens_of("text-classification")
    rows, tokenizer = read_tokens(tokens / "train.arrow"), load_tokenizer(tokens / "tokenizer", 32)
    named = with_label_names(rows, PROBLEM, tokenizer, LABELS)
    assert named.slice(0, len(rows)).equals(rows)
    added = named.slice(len(rows)).to_pydict()
    assert added["references"] == list(range(len(LABELS)))
    assert added["row"] == [NAMED] * len(LABELS)
    assert added["input_ids"] == [tokenizer.encode(spoken(label)).ids for label in LABELS]
    assert named.schema.equals(rows.schema)
    assert isinstance(named, pa.Table)
    # a name that says nothing among others gets no row
    some = with_label_names(rows, PROBLEM, tokenizer, ("w2", *LABELS[1:]))
    assert some.slice(len(rows))["references"].to_pylist() == list(range(1, len(LABELS)))
    check_label_names(PROBLEM, ("w2", *LABELS[1:]))


def test_a_training_with_them_resumes_like_one_that_was_not_killed(tmp_path: Path) -> None:
    values: dict[str, Any] = {"label_names": True, "head_start": "solved", "pooling": "mean"}
    train("text-classification", "full", tmp_path / "without", **values | {"label_names": False})
    train("text-classification", "full", tmp_path / "whole", **values)
    with pytest.raises(Killed):
        train("text-classification", "full", tmp_path / "killed", killed_after_two_steps, **values)
    train("text-classification", "full", tmp_path / "killed", **values)
    without, whole, killed = (
        sha256_file(tmp_path / name / "checkpoint" / "model.safetensors")
        for name in ("without", "whole", "killed")
    )
    assert whole == killed != without


@pytest.mark.parametrize(
    ("problem", "labels", "says"),
    [
        (
            "text-classification",
            ("good", "LABEL_1", "2"),
            "most names say nothing .* 'LABEL_1', '2'",
        ),
        ("text-pair", ("yes", "no"), "not one text with one class"),
        ("multi-label-classification", ("good", "bad"), "not one text with one class"),
        ("token-classification", ("PER", "LOC"), "not one text with one class"),
        ("chat", (), "not one text with one class"),
    ],
)
def test_where_they_cannot_help_is_told(problem: str, labels: tuple[str, ...], says: str) -> None:
    with pytest.raises(ParamsError, match=says):
        check_label_names(load_problem(problem), labels)
