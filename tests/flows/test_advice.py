"""What `ratchet init` says of its choices and of what may not fit."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from workspaces import git, ratchet_json, write_csv

from flows.workspaces.advice import mostly_latin

WORDS = [f"word {number}" for number in range(90)]
CHINESE = ["这部电影很好看", "房间又脏又吵，不推荐", "服务很好"]


def notes(tmp_path: Path, rows: dict[str, list[str]], *options: str) -> list[str]:
    write_csv(tmp_path / "rows.csv", rows)
    command = ("init", "ws", "--data", "rows.csv", "--problem", "text-classification", *options)
    result: dict[str, Any] = ratchet_json(tmp_path, *command)
    return list(result["notes"])


def test_it_says_what_it_chose(tmp_path: Path) -> None:
    rows = {"text": [f"some words {i}" for i in range(100)], "label": ["good", "bad"] * 50}
    first, *others = notes(tmp_path, rows)
    assert "epochs of 16 rows a step" in first
    assert "chosen for 80 training rows and 2 labels" in first
    assert others == []


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"text": ["good", "bad"], "label": ["p", "n"]}, "only 2 rows"),
        ({"text": CHINESE * 40, "label": ["p", "n", "p"] * 40}, "the default base model knows"),
        ({"text": WORDS, "label": ["p", "oos", "n"] * 30}, "`out_of_scope: oos`"),
    ],
)
def test_it_says_what_may_not_fit(rows: dict[str, list[str]], says: str, tmp_path: Path) -> None:
    assert [note for note in notes(tmp_path, rows) if says in note]


def test_a_choice_of_ones_own_is_not_questioned(tmp_path: Path, base_dir: Path) -> None:
    rows = {"text": CHINESE * 40, "label": ["p", "oos", "n"] * 40}
    options = ("--base-model", str(base_dir), "--out-of-scope", "oos")
    told = " ".join(notes(tmp_path, rows, *options))
    assert "base model knows" not in told
    assert "out_of_scope" not in told


def test_latin_letters_are_counted() -> None:
    assert mostly_latin(["naïve café", "123"])
    assert mostly_latin([])
    assert not mostly_latin(["Привет, мир", "ok"])


@pytest.mark.parametrize("has_commit", [True, False])
def test_what_is_staged_in_git_stays_as_it_was(has_commit: bool, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "mine.txt").write_text("mine")
    git(tmp_path, "add", "mine.txt")
    if has_commit:
        git(tmp_path, "commit", "--quiet", "-m", "mine")
        (tmp_path / "mine.txt").write_text("changed")
        git(tmp_path, "add", "mine.txt")
    before = staged(tmp_path)
    notes(tmp_path, {"text": [f"words {i}" for i in range(60)], "label": ["p", "n"] * 30})
    assert staged(tmp_path) == before


def staged(directory: Path) -> str:
    command = ["git", "ls-files", "--stage"]
    return subprocess.run(command, cwd=directory, capture_output=True, check=True, text=True).stdout
