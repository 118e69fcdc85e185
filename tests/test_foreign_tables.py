"""What `ratchet init` takes a file for is what ingest can read of it, whatever its format; labels are never ignored or printed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import tiny_rows

from flows.guessing import Guess
from flows.initialization import Request, guess_problem
from tasks.core.errors import ParamsError
from tasks.core.files import read_jsonl
from tasks.core.params import IngestParams
from tasks.core.progress import silent
from tasks.ingestion import read_sources

TEXT = tiny_rows(60)["text"]
SEVERAL, ONE = "multi-label-classification", "text-classification"


def cycle(values: list[Any]) -> list[Any]:
    """As many as there are texts."""
    return [values[i % len(values)] for i in range(len(TEXT))]


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(rows)
    return path


def guessed(path: Path) -> Guess:
    return guess_problem(Request(path.parent / "w", None, [str(path)], {}))


def taken(path: Path) -> tuple[Guess, list[dict[str, Any]], set[str]]:
    """(guess, rows, reasons of those set aside) of a file that is read as it is guessed."""
    found, root = guessed(path), path.parent
    ingest = IngestParams.model_validate({"sources": [{"url": str(path)}], "columns": dict(found.columns), **found.reading})
    read_sources(root / "raw", problem=found.problem, ingest=ingest, root=root, cache=root / "cache", report=silent)
    aside = {entry["reason"] for entry in read_jsonl(root / "raw" / "quarantine.jsonl")}
    return found, pq.read_table(root / "raw" / "rows.parquet").to_pylist(), aside


# --- several labels ---


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
@pytest.mark.parametrize("values", [[[0, 1], [1], [2]], [["x", "y"], ["y"], []], [[True], [True, False], [False]]])
def test_lists_of_plain_values_are_several_labels_in_every_format(name: str, values: list[Any], tmp_path: Path) -> None:
    found, rows, aside = taken(write(tmp_path / name, {"text": TEXT, "topics": cycle(values)}))
    wanted = [[str(item).lower() if isinstance(item, bool) else str(item) for item in value] for value in values]
    assert (found.problem, [row["labels"] for row in rows], aside) == (SEVERAL, cycle(wanted), set())


@pytest.mark.parametrize(
    ("bad", "says"),
    [("['x' 'y']", "a printed NumPy array"), ("['x', 'y", "not a list"), ("['x', y]", "not a list"), ("[0 1]", "not a list")],
)
def test_lists_that_cannot_be_read_do_not_hide_the_labels(bad: str, says: str, tmp_path: Path) -> None:
    for values in (["['x']"] * 59 + [bad], cycle(["['x']", "['y', 'x']", bad])):
        found, rows, aside = taken(write(tmp_path / "a.csv", {"text": TEXT, "topics": values}))
        assert (found.problem, len(rows)) == (SEVERAL, len(TEXT) - values.count(bad))
        assert len(aside) == 1
        assert says in aside.pop()


@pytest.mark.parametrize(
    "values",
    [[[{"id": i, "name": "xyz"[i % 3]}] for i in range(60)], cycle(['{"a": 0, "b": 1}', '{"a": 1, "b": 1}']), cycle([[["x"]], [["y"]]])],
)
def test_labels_in_objects_are_refused_not_ignored(values: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="fit no problem type") as error:
        guessed(write(tmp_path / "a.jsonl", {"text": TEXT, "labels": values}))
    assert "lists of texts or whole numbers; write labels so" in error.value.remedy


def test_measurements_in_lists_are_no_labels(tmp_path: Path) -> None:
    vectors = [[i / 7, i / 3] for i in range(60)]
    boxes = [[i, 2 * i, 3 * i] for i in range(60)]
    assert guessed(write(tmp_path / "a.parquet", {"text": TEXT, "vector": vectors, "box": boxes})).problem == "masked-lm"


@pytest.mark.parametrize("values", [["{'x', 'y'}", "('x',)", "['y']", "set()"], ["('x', 'y')", "{'x'}", "('y',)", "()"]])
def test_sets_and_tuples_are_read_as_lists(values: list[str], tmp_path: Path) -> None:
    found, rows, aside = taken(write(tmp_path / "a.csv", {"text": TEXT, "topics": cycle(values)}))
    assert (found.problem, [row["labels"] for row in rows], aside) == (SEVERAL, cycle([["x", "y"], ["x"], ["y"], []]), set())


def test_labels_in_brackets_are_no_lists(tmp_path: Path) -> None:
    for labels in (["[POS]", "[NEG]"], ["(18, 25]", "(25, 40]"], ["(other)", "(none)"]):
        found, rows, _ = taken(write(tmp_path / "a.csv", {"text": TEXT, "age": cycle(labels)}))
        assert (found.problem, [row["label"] for row in rows]) == (ONE, cycle(labels))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("values", [[1, 0, None], [1.0, None, 0.0], [True, None, False], ["yes", "no", None]])
def test_flags_of_which_some_are_missing_are_still_several_labels(name: str, values: list[Any], tmp_path: Path) -> None:
    columns = {"text": TEXT, "toxic": cycle(values), "rude": cycle([values[0], *[value for value in values[1:] if value is not None]])}
    found, rows, aside = taken(write(tmp_path / name, columns))
    assert (found.problem, found.columns["labels"]) == (SEVERAL, ("toxic", "rude"))
    assert len(rows) == 40
    assert aside == {"toxic: missing, which is neither 0 nor 1; `ingest.query` can say what it means"}
    assert rows[0]["labels"] == ["toxic", "rude"]
