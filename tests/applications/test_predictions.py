"""Predictions are added to a user's columns, which keep their names, values, types and order."""

from __future__ import annotations

import csv
import io
import json
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported import PROBLEM, Exported, ship
from samples import local
from tiny import LABELS, tiny_rows

from applications.prediction import Predicted, predict_file, predict_rows, predict_texts
from applications.standard_streams import STANDARD, input_rows
from tasks.core.errors import DataError, ParamsError, SourceError
from tasks.core.files import read_jsonl
from tasks.data.tables.row_files import BATCH_ROWS, read_batches
from tasks.inference.prediction_names import flat, named
from tasks.inference.predictor import Predictor
from tasks.problems import load_problem, problem_names

SCORES = [f"predicted_scores.{label}" for label in LABELS]
PREDICTED = ["predicted_label", "predicted_score", *SCORES]


@pytest.fixture
def predictor(exported: Exported, tmp_path: Path) -> Predictor:
    return Predictor(ship(exported, tmp_path / "bundle"), load_problem(PROBLEM))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_keeps_its_columns_in_every_format(predictor: Predictor, tmp_path: Path) -> None:
    header = ["scores", "label", "text", "score", "_line", "Text", "labels"]
    rows = [
        ["x", "mine", "a good film", "007", "9", "", "1.50"],
        ["", "né", "a bad, broken\nphone", "NULL", "", '"', " z "],
    ]
    source = tmp_path / "new.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    wanted = [dict(zip(header, row, strict=True)) for row in rows]
    predicted = predict_rows(predictor, local(source), "predicted_")
    labels = [row.prediction["label"] for row in predicted]
    assert labels == ["positive", "negative"]
    for ending in ("csv", "jsonl", "parquet"):
        assert predict_file(predictor, local(source), tmp_path / f"out.{ending}") == 2
    csv_rows = read_csv(tmp_path / "out.csv")
    assert list(csv_rows[0]) == header + PREDICTED
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == header + PREDICTED
    lines = read_jsonl(tmp_path / "out.jsonl")
    assert list(lines[0]) == [*header, "predicted_label", "predicted_score", "predicted_scores"]
    scores = [row["predicted_score"] for row in lines]
    for written in (csv_rows, table.to_pylist(), lines):
        assert [{name: row[name] for name in header} for row in written] == wanted
        assert [row["predicted_label"] for row in written] == labels
        assert [float(row["predicted_score"]) for row in written] == pytest.approx(scores)
    assert table.select(PREDICTED).to_pylist() == [flat(named_of(row)) for row in lines]


def named_of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name.startswith("predicted_")}


def test_a_parquet_file_keeps_its_types(predictor: Predictor, tmp_path: Path) -> None:
    table = pa.table(
        {
            "label": pa.array([3, None], pa.int8()),
            "text": pa.array(["a good film", None]).dictionary_encode(),
            "score": pa.array([0.1, float("nan")], pa.float32()),
            "when": pa.array([datetime(2024, 1, 2, 3), None], pa.timestamp("ns", "UTC")),
            "price": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)),
            "scores": pa.array([{"a": 1, "b": ["x|y", "z"]}, None]),
            "raw": pa.array([b"\xff", b""]),
            "flags": pa.array([["x", "y"], []], pa.large_list(pa.string())),
        }
    ).replace_schema_metadata({"pandas": '{"index_columns": []}'})
    pq.write_table(table, tmp_path / "new.parquet")
    predict_file(predictor, local(tmp_path / "new.parquet"), tmp_path / "out.parquet")
    output = pq.read_table(tmp_path / "out.parquet")
    assert output.column_names == table.column_names + PREDICTED
    kept = output.select(table.column_names)
    source_schema = pq.read_table(tmp_path / "new.parquet").schema
    assert kept.schema.equals(source_schema, check_metadata=True)
    assert kept.drop_columns("score").equals(table.drop_columns("score"))
    assert kept["score"].to_pylist()[0] == table["score"].to_pylist()[0]
    predict_file(predictor, local(tmp_path / "new.parquet"), tmp_path / "out.csv")
    first, second = read_csv(tmp_path / "out.csv")
    assert list(first) == table.column_names + PREDICTED
    assert (first["label"], first["price"], first["flags"]) == ("3", "1.10", "x|y")
    assert json.loads(first["scores"]) == {"a": 1, "b": ["x|y", "z"]}
    assert (second["label"], second["text"], second["scores"]) == ("", "", "")


def test_jsonl_keeps_values_of_mixed_types(predictor: Predictor, tmp_path: Path) -> None:
    large = 12345678901234567890123
    rows: list[dict[str, Any]] = [
        {"label": 1, "text": "a good film", "score": "1", "Label": {"a": 1}, "n": large},
        {"text": 5, "label": "1", "more": [1, "x", None], "score": 1.0},
        {"text": None, "label": None, "_raw": True},
    ]
    source = tmp_path / "new.jsonl"
    source.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8")
    assert predict_file(predictor, local(source), tmp_path / "out.jsonl") == 3
    written = read_jsonl(tmp_path / "out.jsonl")
    own_values = [
        {name: value for name, value in row.items() if not name.startswith("predicted_")}
        for row in written
    ]
    assert own_values == rows
    for row, own in zip(written, rows, strict=True):
        assert list(row)[: len(own)] == list(own)
    predicted = predict_rows(predictor, local(source), "predicted_")
    assert [row.plain("predicted_") for row in predicted] == written
    small = source.read_text(encoding="utf-8").replace(str(large), "1234567890")
    source.write_text(small, encoding="utf-8")
    predict_file(predictor, local(source), tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    columns = {"label", "text", "score", "Label", "n", "more", "_raw"}
    assert set(table.column_names) == columns | set(PREDICTED)
    assert table["text"].to_pylist() == ["a good film", "5", None]


def test_no_digit_of_a_large_number_is_lost(predictor: Predictor, tmp_path: Path) -> None:
    source, large = tmp_path / "new.jsonl", 123456789012345678901234567890
    source.write_text(
        f'{{"text": "a good film", "n": {large}, "sure": true}}\n{{"text": "bad", "n": 1.50}}\n',
        encoding="utf-8",
    )
    assert predict_file(predictor, local(source), tmp_path / "out.csv") == 2
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["n"], row["sure"]) for row in rows] == [(str(large), "true"), ("1.5", "")]
    with pytest.raises(DataError, match="'n' holds 123456789012345678901234567890"):
        predict_file(predictor, local(source), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_bytes_are_written_as_base64(predictor: Predictor, ending: str, tmp_path: Path) -> None:
    table = pa.table({"text": ["a good film"], "raw": pa.array([b"\xff\x00"], pa.binary())})
    pq.write_table(table, tmp_path / "new.parquet")
    predict_file(predictor, local(tmp_path / "new.parquet"), tmp_path / f"out.{ending}")
    assert "/wA=" in (tmp_path / f"out.{ending}").read_text(encoding="utf-8")


def test_two_columns_of_one_name_are_both_kept_or_told(
    predictor: Predictor, tmp_path: Path
) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["a good film"]), pa.array([1]), pa.array([3])], names=["text", "x", "x"]
    )
    pq.write_table(table, tmp_path / "new.parquet")
    predict_file(predictor, local(tmp_path / "new.parquet"), tmp_path / "out.parquet")
    assert pq.ParquetFile(tmp_path / "out.parquet").read().column_names[:3] == ["text", "x", "x"]
    with pytest.raises(DataError, match="two columns are called 'x'"):
        predict_file(predictor, local(tmp_path / "new.parquet"), tmp_path / "out.jsonl")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_rows_of_several_batches_and_no_rows_at_all(
    predictor: Predictor, ending: str, tmp_path: Path
) -> None:
    texts = tiny_rows(BATCH_ROWS + 5)["text"]
    columns, numbers = ["n", "text", *PREDICTED], list(range(BATCH_ROWS + 5))
    for name, column in (("many", texts), ("none", [])):
        n, text = pa.array(range(len(column)), pa.int32()), pa.array(column, pa.string())
        source, target = tmp_path / f"{name}.parquet", tmp_path / f"{name}-out.{ending}"
        pq.write_table(pa.table({"n": n, "text": text}), source)
        assert predict_file(predictor, local(source), target) == len(column)
    (tmp_path / "none.csv").write_text("n,text\n")
    target = tmp_path / f"csv-out.{ending}"
    assert predict_file(predictor, local(tmp_path / "none.csv"), target) == 0
    if ending == "parquet":
        assert pq.read_table(tmp_path / "many-out.parquet")["n"].to_pylist() == numbers
        assert pq.read_table(tmp_path / "none-out.parquet").column_names == columns
    if ending == "csv":
        assert [int(row["n"]) for row in read_csv(tmp_path / "many-out.csv")] == numbers
        header = (tmp_path / "csv-out.csv").read_text().replace('"', "").strip()
        assert header == ",".join(columns)


@pytest.mark.parametrize(
    "taken", ["predicted_label", "Predicted_Score", "predicted_scores", "predicted_scores.positive"]
)
def test_a_name_that_is_taken_is_told_and_another_prefix_helps(
    predictor: Predictor, taken: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "new.csv", tmp_path / "out.csv"
    source.write_text(f"text,{taken},model1_label\na good film,mine,mine\n")
    with pytest.raises(ParamsError, match=f"new.csv: has a column '{taken}'") as error:
        predict_file(predictor, local(source), target)
    assert not target.exists()
    prefix = error.value.remedy.rpartition(" ")[2]
    assert prefix == "model2_"
    predict_file(predictor, local(source), target, prefix)
    (row,) = read_csv(target)
    assert (row[taken], row["model1_label"], row["model2_label"]) == ("mine", "mine", "positive")


def test_a_damaged_parquet_file_is_told_and_nothing_is_written(
    predictor: Predictor, tmp_path: Path
) -> None:
    source = tmp_path / "new.parquet"
    pq.write_table(pa.table({"text": tiny_rows(100)["text"]}), source)
    source.write_bytes(source.read_bytes()[:-30])
    with pytest.raises(SourceError, match=r"new\.parquet: not a readable Parquet file"):
        predict_file(predictor, local(source), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_texts_are_answered_by_the_same_names(predictor: Predictor) -> None:
    (answer,) = predict_texts(predictor, ["a good film"])
    assert isinstance(answer, Predicted)
    names = ["predicted_label", "predicted_score", "predicted_scores"]
    assert list(answer.plain("predicted_")) == ["text", *names]
    assert list(answer.plain("v2_"))[1:] == ["v2_label", "v2_score", "v2_scores"]


@pytest.mark.parametrize("name", problem_names())
def test_no_problems_predictions_have_a_name_of_its_columns(name: str) -> None:
    problem = load_problem(name)
    usual = {"label": "a", "score": 0.5, "scores": {"a": 0.5}}
    example = problem.decoding.prediction_example(LABELS) or usual
    own = {*problem.rows.columns, *problem.rows.derived, *problem.decoding.example()}
    assert not {*flat(named(example)), *named(example)} & own


@pytest.mark.parametrize(
    ("given", "options", "texts"),
    [
        ("a good film\n\nnaïve\r\n{no JSON".encode(), {}, ["a good film", "", "naïve", "{no JSON"]),
        ("naïve".encode("cp1252"), {"encoding": "cp1252"}, ["naïve"]),
        (b'\n{"text": "one", "id": 1}\n', {}, ["one"]),
        (b'{"text": "one"}\n', {"format": "lines"}, ['{"text": "one"}']),
        (b'[{"text": "one"},\n {"text": "two"}]', {}, ["one", "two"]),
        (b"[urgent] help\n[{me}]\n", {}, ["[urgent] help", "[{me}]"]),
        (b"id;text\n1;one\n", {"format": "csv"}, ["one"]),
        (b"id\ttext\n1\tone\n", {"format": "tsv"}, ["one"]),
    ],
)
def test_standard_input_is_objects_or_lines_or_what_it_is_said_to_be(
    given: bytes, options: dict[str, str], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    row_format = load_problem("text-classification").rows
    with input_rows(STANDARD, options, ["text"]) as source:
        batches = list(read_batches(source, ["text"], row_format))
    assert [text for batch in batches for text in batch.inputs["text"].to_pylist()] == texts


@pytest.mark.parametrize(
    "given", [b'{"text": "a", "id', b'{"text": "a"}\n{"text": "b', b'[{"text": "a"']
)
def test_a_cut_off_object_on_standard_input_is_no_text(
    given: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    row_format = load_problem("text-classification").rows
    with (
        pytest.raises(DataError, match="standard input"),
        input_rows(STANDARD, {}, ["text"]) as source,
    ):
        list(read_batches(source, ["text"], row_format))


@pytest.mark.parametrize(
    ("given", "columns", "says"),
    [
        (b"one\ntwo\n", ["text_a", "text_b"], "lines of text, but a row has text_a and text_b"),
        (b"one\n" * 300 + b"\xff\n", ["text"], "line 301: byte 0xff"),
    ],
)
def test_lines_that_are_no_rows_are_told(
    given: bytes, columns: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    with pytest.raises(DataError, match=says), input_rows(STANDARD, {}, columns):
        pass
