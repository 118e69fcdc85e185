"""`ratchet init` and ingest read a file alike, whatever its format.

Labels are never ignored or printed.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import tiny_rows
from tiny_entities import tagged_rows

from flows.workspaces.creation import guess_problem
from flows.workspaces.guessing import Guess
from flows.workspaces.request import Request
from tasks.core.errors import DataError, ParamsError
from tasks.core.files import read_jsonl
from tasks.core.progress import silent
from tasks.data.tables.foreign_values import UnfitError, tagged_of, turns_of
from tasks.data.tables.span_borders import SpanBorders
from tasks.ingestion import read_sources
from tasks.params.ingestion import IngestParams

TEXT = tiny_rows(60)["text"]
SEVERAL, ONE = "multi-label-classification", "text-classification"


def cycle(values: list[Any]) -> list[Any]:
    """As many as there are texts."""
    return [values[i % len(values)] for i in range(len(TEXT))]


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
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


def taken(path: Path, **settings: Any) -> tuple[Guess, list[dict[str, Any]], set[str]]:
    """(guess, rows, reasons of those set aside) of a file that is read as it is guessed."""
    found, root = guessed(path), path.parent
    ingest = IngestParams.model_validate(
        {
            "sources": [{"url": str(path)}],
            "columns": dict(found.columns),
            **found.reading,
            **settings,
        }
    )
    read_sources(
        root / "raw",
        problem=found.problem,
        ingest=ingest,
        root=root,
        cache=root / "cache",
        report=silent,
    )
    aside = {entry["reason"] for entry in read_jsonl(root / "raw" / "quarantine.jsonl")}
    return found, pq.read_table(root / "raw" / "rows.parquet").to_pylist(), aside


# --- several labels ---


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
@pytest.mark.parametrize(
    "values", [[[0, 1], [1], [2]], [["x", "y"], ["y"], []], [[True], [True, False], [False]]]
)
def test_lists_of_plain_values_are_several_labels_in_every_format(
    name: str, values: list[Any], tmp_path: Path
) -> None:
    found, rows, aside = taken(write(tmp_path / name, {"text": TEXT, "topics": cycle(values)}))
    wanted = [
        [str(item).lower() if isinstance(item, bool) else str(item) for item in value]
        for value in values
    ]
    assert (found.problem, [row["labels"] for row in rows], aside) == (
        SEVERAL,
        cycle(wanted),
        set(),
    )


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("['x' 'y']", "a printed NumPy array"),
        ("['x', 'y", "not a list"),
        ("['x', y]", "not a list"),
        ("[0 1]", "not a list"),
    ],
)
def test_lists_that_cannot_be_read_do_not_hide_the_labels(
    bad: str, says: str, tmp_path: Path
) -> None:
    for values in (["['x']"] * 59 + [bad], cycle(["['x']", "['y', 'x']", bad])):
        found, rows, aside = taken(write(tmp_path / "a.csv", {"text": TEXT, "topics": values}))
        assert (found.problem, len(rows)) == (SEVERAL, len(TEXT) - values.count(bad))
        assert len(aside) == 1
        assert says in aside.pop()


@pytest.mark.parametrize(
    "values",
    [
        [[{"id": i, "name": "xyz"[i % 3]}] for i in range(60)],
        cycle(['{"a": 0, "b": 1}', '{"a": 1, "b": 1}']),
        cycle([[["x"]], [["y"]]]),
    ],
)
def test_labels_in_objects_are_refused_not_ignored(values: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="fit no problem type") as error:
        guessed(write(tmp_path / "a.jsonl", {"text": TEXT, "labels": values}))
    assert "whole numbers; if labels holds the labels" in error.value.remedy


def test_measurements_in_lists_are_no_labels(tmp_path: Path) -> None:
    vectors = [[i / 7, i / 3] for i in range(60)]
    boxes = [[i, 2 * i, 3 * i] for i in range(60)]
    assert (
        guessed(
            write(tmp_path / "a.parquet", {"text": TEXT, "vector": vectors, "box": boxes})
        ).problem
        == "masked-lm"
    )


@pytest.mark.parametrize(
    "values", [["{'x', 'y'}", "('x',)", "['y']", "set()"], ["('x', 'y')", "{'x'}", "('y',)", "()"]]
)
def test_sets_and_tuples_are_read_as_lists(values: list[str], tmp_path: Path) -> None:
    found, rows, aside = taken(write(tmp_path / "a.csv", {"text": TEXT, "topics": cycle(values)}))
    assert (found.problem, [row["labels"] for row in rows], aside) == (
        SEVERAL,
        cycle([["x", "y"], ["x"], ["y"], []]),
        set(),
    )


def test_labels_in_brackets_are_no_lists(tmp_path: Path) -> None:
    for labels in (["[POS]", "[NEG]"], ["(18, 25]", "(25, 40]"], ["(other)", "(none)"]):
        found, rows, _ = taken(write(tmp_path / "a.csv", {"text": TEXT, "age": cycle(labels)}))
        assert (found.problem, [row["label"] for row in rows]) == (ONE, cycle(labels))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    "values", [[1, 0, None], [1.0, None, 0.0], [True, None, False], ["yes", "no", None]]
)
def test_flags_of_which_some_are_missing_are_still_several_labels(
    name: str, values: list[Any], tmp_path: Path
) -> None:
    columns = {
        "text": TEXT,
        "toxic": cycle(values),
        "rude": cycle([values[0], *[value for value in values[1:] if value is not None]]),
    }
    found, rows, aside = taken(write(tmp_path / name, columns))
    assert (found.problem, found.columns["labels"]) == (SEVERAL, ("toxic", "rude"))
    assert len(rows) == 40
    assert aside == {
        "toxic: missing, which is neither 0 nor 1; `ingest.query` can say what it means"
    }
    assert rows[0]["labels"] == ["toxic", "rude"]


# --- entities ---

ENTITIES = tagged_rows(60)
KINDS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
NUMBERED = [[KINDS.index(tag) for tag in tags] for tags in ENTITIES["tags"]]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("number", [int, float])
def test_numbers_of_tags_ask_for_names_in_every_format(
    name: str, number: type, tmp_path: Path
) -> None:
    tags = [[number(tag) for tag in some] for some in NUMBERED]
    path = write(tmp_path / name, {"tokens": ENTITIES["tokens"], "ner_tags": tags})
    with pytest.raises((ParamsError, DataError)) as error:
        taken(path)
    assert "init --tags" in str(error.value)
    found, rows, aside = taken(path, tag_names=KINDS)
    assert (found.problem, [row["tags"] for row in rows], aside) == (
        "token-classification",
        ENTITIES["tags"],
        set(),
    )
    _, rows, aside = taken(path, tag_names=KINDS[:3])
    assert all("PER" not in str(row["tags"]) for row in rows)
    assert "tag numbers that `ingest.tag_names` does not name" in aside.pop()


@pytest.mark.parametrize("between", [" ", ",", ", ", "|"])
@pytest.mark.parametrize("as_list", [False, True])
def test_tags_in_one_text_are_read_where_they_fit_the_words(
    between: str, as_list: bool, tmp_path: Path
) -> None:
    words = ENTITIES["tokens"] if as_list else [" ".join(some) for some in ENTITIES["tokens"]]
    tags = [between.join(some) for some in ENTITIES["tags"]]
    found, rows, aside = taken(write(tmp_path / "a.csv", {"sentence": words, "tags": tags}))
    assert (found.problem, [row["tags"] for row in rows], aside) == (
        "token-classification",
        ENTITIES["tags"],
        set(),
    )
    assert [row["tokens"] for row in rows] == ENTITIES["tokens"]
    short = [*tags[:-1], between.join(["O", "B-PER"] * 20)]
    _, rows, aside = taken(write(tmp_path / "b.csv", {"sentence": words, "tags": short}))
    assert as_list or aside == {
        "sentence: tags without a list of words: 40 tags, 14 words separated by blanks"
    }


def test_words_a_row_are_no_sentences_of_one_word(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", {"tokens": ["Anna", "left"] * 30, "tags": ["B-PER", "O"] * 30})
    ingest = IngestParams.model_validate({"sources": [{"url": str(path)}]})
    with pytest.raises(DataError, match="no row is left"):
        read_sources(
            tmp_path / "raw",
            problem="token-classification",
            ingest=ingest,
            root=tmp_path,
            cache=tmp_path,
            report=silent,
        )


def annotated(kind: str, **more: Any) -> list[dict[str, Any]]:
    value = {"choices": ["x"]} if kind == "choices" else {"start": 0, "end": 1, "labels": ["PER"]}
    return [{"id": 1, "result": [{"type": kind, "value": value}], **more}]


def test_what_label_studio_exports_is_spans_only_where_it_is(tmp_path: Path) -> None:
    data = [{"text": f"A {text}"} for text in TEXT]
    with pytest.raises(ParamsError, match="choices: classes of whole texts, not spans"):
        guessed(
            write(tmp_path / "a.jsonl", {"data": data, "annotations": [annotated("choices")] * 60})
        )
    some = [
        *[annotated("labels")] * 57,
        annotated("choices"),
        annotated("labels", was_cancelled=True),
        [{"id": 1, "result": []}],
    ]
    found, rows, aside = taken(write(tmp_path / "b.jsonl", {"data": data, "annotations": some}))
    assert (found.problem, len(rows), rows[-1]["entities"]) == ("token-classification", 58, [])
    assert aside == {
        "data.text: an annotation of type choices, which is not a span",
        "data.text: the annotator skipped the text",
    }


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
@pytest.mark.parametrize("kind", ["spans", "label"])
def test_rows_that_an_annotator_let_go_are_set_aside(name: str, kind: str, tmp_path: Path) -> None:
    held: list[Any] = (
        [[{"start": 0, "end": 1, "label": "PER"}]] * 60 if kind == "spans" else cycle(["x", "y"])
    )
    columns: dict[str, list[Any]] = {
        "text": [f"A {text}" for text in TEXT],
        "_task_hash": list(range(60)),
        kind: held,
        "answer": cycle(["accept", "accept", "reject", "ignore"]),
    }
    found, rows, aside = taken(write(tmp_path / name, columns))
    assert (found.problem, len(rows)) == ("token-classification" if kind == "spans" else ONE, 30)
    assert aside == {"the annotator's answer is reject", "the annotator's answer is ignore"}


def test_values_that_are_no_turns_tags_or_annotations_say_what_was_wanted() -> None:
    borders = SpanBorders()
    annotated = json.dumps([{"result": []}, {"result": []}])
    for call, says in (
        (lambda: turns_of([1, 2]), "wanted a list of turns"),
        (lambda: tagged_of("a b", '{"a": 1}', borders), "wanted a list of tags or of spans"),
        (lambda: tagged_of("a b", annotated, borders), "2 annotations of one text; wanted one"),
    ):
        with pytest.raises(UnfitError, match=says):
            call()
