"""The demo end to end on a tiny model: every step does what it says, or the demo says so."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny_story
from workspaces import forked, ratchet_json

from flows.demo.material import BAD_LINES, cut_base, shuffle_labels, write_rows

SCRIPT = Path(tiny_story.__file__)
TITLES = [
    "bad rows are caught",
    "the first model is trained and promoted",
    "a model trained on shuffled labels is refused",
    "a better one, trained on more data, is promoted",
    "a rollback",
    "the second run of the same flow is a no-op",
    "the ledger has every decision",
]


def demo(
    directory: Path, base: Path, min_value: str, *arguments: str, code: int
) -> subprocess.CompletedProcess[str]:
    command = (str(base), min_value, "demo", *arguments)
    return forked(
        directory, *command, code=code, script=SCRIPT, environment={"TMPDIR": str(directory)}
    )


def test_every_step_comes_out_as_told(base_dir: Path, tmp_path: Path) -> None:
    done = demo(tmp_path, base_dir, "null", "--keep", "kept", "--json", code=0)
    story = json.loads(done.stdout)
    steps: list[dict[str, Any]] = story["steps"]
    assert [step["title"] for step in steps] == TITLES
    assert all(step["held"] for step in steps)
    assert story["held"]
    bad, first, shuffled, better, back, no_op, ledger = (step["facts"] for step in steps)

    good_rows, bad_rows = tiny_story.FIRST, len(BAD_LINES)
    assert (bad["rows"], bad["kept"]) == (good_rows + bad_rows, good_rows)
    assert len(bad["quarantined"]) == bad_rows
    assert all(entry["reason"] for entry in bad["quarantined"])
    assert (first["outcome"], first["champion"]) == ("promoted", 1)
    assert (shuffled["outcome"], shuffled["version"], shuffled["champion"]) == ("refused", 2, 1)
    assert shuffled["numbers"]["p_value"] < shuffled["numbers"]["level"]
    # the champion is the best so far, and is not scored twice
    assert shuffled["gates"]["high-water mark"] == "not applicable"
    assert (better["outcome"], better["champion"]) == ("promoted", 3)
    low, high = better["numbers"]["interval"]
    assert 0 < low < better["numbers"]["difference"] < high
    assert (back["from"], back["champion"]) == (3, 1)
    assert (no_op["state"], no_op["version"], no_op["stages"]) == ("cached", 3, {"cached": 9})

    outcomes = [(decision["outcome"], decision["version"]) for decision in ledger["decisions"]]
    assert outcomes == [("promoted", 1), ("refused", 2), ("promoted", 3), ("rolled back", 1)]
    # the kept directory is a workspace like any other, and agrees
    kept = tmp_path / "kept"
    ids = [decision["id"] for decision in ledger["decisions"]]
    assert [decision["id"] for decision in ratchet_json(kept, "history")] == ids
    versions = ratchet_json(kept, "status")["model"]["versions"]
    aliases = {version["version"]: version["aliases"] for version in versions}
    assert aliases == {1: ["champion"], 2: [], 3: ["challenger"]}
    params = (kept / "params.yaml").read_text(encoding="utf-8")
    assert "labels=[negative, neutral, positive]: a misspelt label" in params


def test_a_step_that_comes_out_otherwise_ends_the_story_with_code_1(
    base_dir: Path, tmp_path: Path
) -> None:
    done = demo(tmp_path, base_dir, "1.5", code=1)
    assert "1. Bad rows are caught" in done.stdout
    assert "Not as expected: the first model is trained and promoted." in done.stdout
    assert "Refused: failed: minimum value. Champion: no version." in done.stdout
    assert "3. " not in done.stdout
    assert "The demo ends here." in done.stdout
    assert list(tmp_path.glob("ratchet-demo-*")) == []


def test_a_directory_with_something_in_it_is_not_touched(base_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = demo(tmp_path, base_dir, "null", "--keep", ".", code=2)
    assert "not empty" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_shuffling_moves_labels_and_nothing_else() -> None:
    rows = [(f"text {i}", "odd" if i % 2 else "even") for i in range(100)]
    shuffled = shuffle_labels(rows, 0)
    assert [text for text, _ in shuffled] == [text for text, _ in rows]
    assert sorted(label for _, label in shuffled) == sorted(label for _, label in rows)
    unchanged = sum(old == new for old, new in zip(rows, shuffled, strict=True))
    assert 25 < unchanged < 75


@pytest.mark.parametrize("count", [3, 7, 8, 100])
def test_no_bad_line_is_left_out(tmp_path: Path, count: int) -> None:
    write_rows(tmp_path / "rows.csv", [("a, b", "x")] * count, BAD_LINES)
    lines = (tmp_path / "rows.csv").read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + count + len(BAD_LINES)
    assert set(BAD_LINES) <= set(lines)


def test_a_cut_base_has_the_lowest_layers_as_they_were(base_dir: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    cut_base(base_dir, tmp_path / "cut", 1)
    whole = load_file(base_dir / "model.safetensors")
    cut = load_file(tmp_path / "cut" / "model.safetensors")
    assert all((whole[name] == values).all() for name, values in cut.items())
    assert {name for name in whole if "layer.1." in name} == set(whole) - set(cut)
    tokenizers = (directory / "tokenizer.json" for directory in (base_dir, tmp_path / "cut"))
    assert len({tokenizer.read_bytes() for tokenizer in tokenizers}) == 1
