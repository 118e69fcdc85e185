"""Rows without labels, and labels without rows: by `ratchet init` and `train` alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny import LABELS, tiny_rows
from workspaces import FAST, ratchet, ratchet_json, write_csv

from flows.workspaces.unlabelled import LABEL_NAMES
from tasks.core.files import read_json
from tasks.params.schema import read_yaml

OVERRIDES = [part for value in (*FAST[4:], "finetune.pooling=mean") for part in ("-S", value)]


@pytest.fixture
def given(base_dir: Path, tmp_path: Path) -> tuple[str, ...]:
    """Options of `init`; the files lie in `tmp_path`."""
    write_csv(tmp_path / "train.csv", tiny_rows(12, seed=1))
    write_csv(tmp_path / "validation.csv", tiny_rows(60, seed=2))
    write_csv(tmp_path / "test.csv", tiny_rows(60, seed=3))
    pool = tiny_rows(150, seed=4)["text"]
    held_out = tiny_rows(60, seed=3)["text"][:5]
    write_csv(tmp_path / "pool.csv", {"text": [*pool, *pool[:7], "", *held_out]})
    held = ("--validation", "validation.csv", "--test", "test.csv")
    return ("--yes", *held, "--base-model", str(base_dir))


def test_few_labels_and_many_texts(given: tuple[str, ...], tmp_path: Path) -> None:
    files = ("--train", "train.csv", "--unlabelled", "pool.csv")
    made = ratchet_json(tmp_path, "init", "few", *given, *files, "--recipe", "few-shot")
    assert not any("--recipe frozen measured better" in note for note in made["notes"])
    assert "5 of 162 unlabelled rows are validation or test rows: left out." in made["notes"]
    root = tmp_path / "few"
    written = read_yaml(root / "params.yaml")
    assert written["ingest"]["unlabelled"][0]["url"] == "../pool.csv"
    assert written["finetune"]["self_training"] is True
    assert ratchet_json(root, "train", *OVERRIDES)["version"] == 1
    split = read_json(root / "data" / "splits" / "split.json")["unlabelled"]
    left = pq.read_table(root / "data" / "splits" / "unlabelled.parquet")["text"].to_pylist()
    assert len(left) == split["rows"] == 162 - split["held_out"] - split["repeated"]
    assert split["held_out"] >= 5
    assert not set(left) & {*tiny_rows(60, seed=2)["text"], *tiny_rows(60, seed=3)["text"]}
    told = read_json(root / "reports" / "training.json")
    assert told["self_training"]["rows"] == split["rows"]
    assert told["learning_curve"] is None  # of twelve rows, halves say nothing
    page = (root / "reports" / "report.html").read_text(encoding="utf-8")
    assert f"Of {split['rows']} unlabelled rows" in page
    # other texts are other data: the stages that read them run again
    write_csv(tmp_path / "pool.csv", {"text": tiny_rows(90, seed=8)["text"]})
    states = {s["name"]: s["state"] for s in ratchet_json(root, "status")["stages"]}
    assert states["ingest"] != "clean"


def test_a_row_a_label_is_told_of_the_better_recipe(given: tuple[str, ...], tmp_path: Path) -> None:
    rows = tiny_rows(60, seed=1)
    firsts = [rows["label"].index(label) for label in LABELS]
    write_csv(tmp_path / "train.csv", {name: [rows[name][i] for i in firsts] for name in rows})
    files = ("--train", "train.csv", "--unlabelled", "pool.csv")
    made = ratchet_json(tmp_path, "init", "few", *given, *files, "--recipe", "few-shot")
    assert any("--recipe frozen measured better" in note for note in made["notes"])


def test_labels_without_rows_are_learned_from_their_names(
    given: tuple[str, ...], tmp_path: Path
) -> None:
    # an option of the labelled files is not one of a JSONL file
    lines = [json.dumps({"text": text}) for text in tiny_rows(150, seed=4)["text"]]
    (tmp_path / "pool.jsonl").write_text("\n".join(lines), encoding="utf-8")
    options = (*given, "--unlabelled", "pool.jsonl", "--recipe", "zero-shot", "--delimiter", ",")
    made = ratchet_json(tmp_path, "init", "zero", *options)
    root = tmp_path / "zero"
    assert made["splits"]["train"] == [LABEL_NAMES]
    with (root / LABEL_NAMES).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == made["labels"]
    # a label's description is a row
    with (root / LABEL_NAMES).open("a", encoding="utf-8") as file:
        file.write("good lovely superb bright,positive\n")
    written = (root / LABEL_NAMES).read_text(encoding="utf-8")
    (root / "params.yaml").unlink()
    ratchet_json(tmp_path, "init", "zero", *options)
    assert (root / LABEL_NAMES).read_text(encoding="utf-8") == written  # it is the user's
    trained = ratchet_json(root, "train", *OVERRIDES)
    assert trained["version"] == 1
    (answer,) = ratchet_json(root, "predict", "a good day")
    assert answer["predicted_label"] in made["labels"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--train", "train.csv", "--unlabelled", "pool.csv"), "--unlabelled: the standard recipe"),
        (("--train", "train.csv", "--recipe", "zero-shot"), "no training rows"),
        (("--recipe", "few-shot"), "there is no train split"),
        (("--recipe", "zero-shot", "--label", "number"), "names say nothing"),
        (
            ("--recipe", "zero-shot", "--unlabelled", "test.csv"),
            "all rows are validation or test rows",
        ),
        (("--recipe", "zero-shot", "--unlabelled", "other.csv"), "no column 'text'"),
        (("--recipe", "zero-shot", "--unlabelled", "blank.csv"), "hold no text"),
        (("--recipe", "zero-shot", "--unlabelled", "gone.csv"), "gone.csv"),
        (("--recipe", "zero-shot", "--problem", "masked-lm"), "has no classes to solve for"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value[:20],
)
def test_what_cannot_be_is_told_before_anything_is_written(
    given: tuple[str, ...], options: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    for name in ("validation", "test"):
        rows = tiny_rows(60, seed=len(name))
        write_csv(tmp_path / f"{name}.csv", rows | {"number": [str(i % 3) for i in range(60)]})
    write_csv(tmp_path / "other.csv", {"sentence": ["one", "two"]})
    write_csv(tmp_path / "blank.csv", {"text": ["", " "]})
    assert says in ratchet(tmp_path, "init", "one", *given, *options, code=2).stderr
    assert not (tmp_path / "one").exists()


def test_the_test_rows_alone_are_no_rows_to_learn_from(
    given: tuple[str, ...], tmp_path: Path
) -> None:
    """A single file is split by training, so only training can tell."""
    write_csv(tmp_path / "all.csv", tiny_rows(90, seed=1))
    base = given[given.index("--base-model") :]
    options = ("--yes", "--data", "all.csv", *base, "--recipe", "frozen")
    ratchet_json(tmp_path, "init", "one", *options, "--unlabelled", "pool.csv")
    root = tmp_path / "one"
    ratchet(root, "train", *OVERRIDES)
    held_out = pq.read_table(root / "data" / "splits" / "test.parquet")["text"].to_pylist()
    write_csv(tmp_path / "pool.csv", {"text": held_out})
    done = ratchet(root, "train", *OVERRIDES, code=2)
    assert f"all {len(held_out)} rows are validation or test rows" in done.stderr
