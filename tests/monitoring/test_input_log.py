"""The log of prediction inputs: what is written, what is read back, and what is no log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported import PROBLEM, Exported, ship
from samples import local
from tiny import tiny_rows
from workspaces import ratchet, ratchet_json, write_csv

from applications.prediction import make_log, predict_file
from tasks.core.errors import DataError
from tasks.core.files import read_jsonl
from tasks.data.tables.row_files import BATCH_ROWS
from tasks.inference.predictor import Predictor
from tasks.monitoring.input_log import log_inputs, read_inputs
from tasks.params.workspace import Workspace
from tasks.problems import load_problem

ODD = ["", "a\x00b", "two\nlines\r", "line\u2028break", "🙂 שלום", '"quoted", \\', "null", "  "]
WRITER = """
import sys
from pathlib import Path
from tasks.monitoring.input_log import log_inputs
log, name = Path(sys.argv[1]), sys.argv[2]
for call in range(40):
    log_inputs(log, [{"text": f"{name} {call} {row}"} for row in range(25)], "1")
"""


def texts_in(path: Path) -> list[str]:
    return list(read_inputs(path, ["text"])["text"].to_pylist())


def test_what_is_logged_is_read_back(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    rows = [{"text": text, "label": "positive", "score": 0.5} for text in ODD]
    file = log_inputs(tmp_path / "log", rows, "7")
    assert texts_in(file) == texts_in(tmp_path / "log") == ODD
    for row in read_jsonl(file):
        assert set(row) == {"text", "label", "score", "time", "version"}
        assert before <= datetime.fromisoformat(row["time"]) <= datetime.now(UTC)
        assert row["version"] == "7"


def test_names_sort_by_time(tmp_path: Path) -> None:
    written = [log_inputs(tmp_path, [{"text": str(call)}], "1") for call in range(20)]
    assert written == sorted(written)
    assert texts_in(tmp_path) == [str(call) for call in range(20)]


def test_two_writers_and_a_reader_at_once_lose_no_row(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(log), name]) for name in ("a", "b")
    ]
    while any(writer.poll() is None for writer in writers):
        assert len(texts_in(log)) % 25 == 0
    assert [writer.returncode for writer in writers] == [0, 0]
    written = [f"{name} {call} {row}" for name in "ab" for call in range(40) for row in range(25)]
    assert Counter(texts_in(log)) == Counter(written)
    assert len(list(log.iterdir())) == 80


def test_parquet_and_folders_in_the_folder_are_read_too(tmp_path: Path) -> None:
    log_inputs(tmp_path / "day=1", [{"text": "one"}], "1")
    pq.write_table(pa.table({"text": ["two", None], "id": [1, 2]}), tmp_path / "part.parquet")
    pq.write_table(pa.table({"text": [3]}), tmp_path / "numbers [1]*.parquet")
    assert Counter(texts_in(tmp_path)) == Counter(["one", "two", "", "3"])


def test_scratch_of_a_killed_writer_and_marks_of_other_tools_are_no_log(tmp_path: Path) -> None:
    log_inputs(tmp_path, [{"text": "whole"}], "1")
    (tmp_path / ".killed.jsonl.x1").mkdir()
    (tmp_path / ".killed.jsonl.x1" / "killed.jsonl").write_text('{"text": "ha')
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "empty.jsonl").touch()
    assert texts_in(tmp_path) == ["whole"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("half.jsonl", b'{"text": "a"}\n{"text": "b'),
        ("unclosed.jsonl", b'{"text": "a"'),
        ("array.jsonl", b'[{"text": "a"},\n{"text": "b"}]\n'),
        ("number.jsonl", b'{"text": "a"}\n5\n'),
        ("latin.jsonl", b'{"text": "\xe4"}\n'),
        ("other.jsonl", b'{"texts": "a"}\n'),
        ("half.parquet", b"PAR1 and no footer"),
        ("notes.txt", b"text\n"),
        ("rows.csv", b"text\na\n"),
    ],
)
def test_a_half_written_or_foreign_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    for text in ("a", "b"):
        log_inputs(tmp_path, [{"text": text}], "1")
    pq.write_table(pa.table({"text": ["c"]}), tmp_path / "good.parquet")
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match=name) as error:
            read_inputs(path, ["text"])
        assert error.value.remedy


def test_a_log_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "inputs.jsonl").touch()
    with pytest.raises(DataError, match=r"inputs\.jsonl"):
        log_inputs(tmp_path / "inputs.jsonl", [{"text": "a"}], "1")
    with pytest.raises(DataError, match="nowhere"):
        read_inputs(tmp_path / "nowhere", ["text"])


def test_a_large_file_is_logged_in_parts_with_its_inputs_alone(
    exported: Exported, tmp_path: Path, template: Path
) -> None:
    predictor = Predictor(ship(exported, tmp_path / "bundle"), load_problem(PROBLEM))
    count = BATCH_ROWS + 100
    texts = [*ODD[2:], *tiny_rows(count - len(ODD) + 2)["text"]]
    write_csv(tmp_path / "new.csv", {"id": [str(i) for i in range(count)], "text": texts})
    (tmp_path / "params.yaml").write_bytes((template / "params.yaml").read_bytes())
    log = make_log(Workspace(tmp_path), predictor, "3")
    source = local(tmp_path / "new.csv")
    assert predict_file(predictor, source, tmp_path / "out.jsonl", log=log) == count
    files = sorted((tmp_path / ".ratchet" / "inputs").iterdir())
    logged = [row for file in files for row in read_jsonl(file)]
    assert len(files) == 2
    assert set(logged[0]) == {"text", "label", "score", "time", "version"}
    predicted = read_jsonl(tmp_path / "out.jsonl")
    assert [(row["text"], row["label"], row["score"]) for row in logged] == [
        (row["text"], row["predicted_label"], row["predicted_score"]) for row in predicted
    ]


def test_predict_logs_only_when_asked_to(trained: Path, tmp_path: Path) -> None:
    inputs = trained / ".ratchet" / "inputs"
    ratchet(trained, "predict", "a good film")
    assert not inputs.exists()
    predicted = ratchet_json(trained, "predict", "a good film", "a bad film", "--log")
    (file,) = inputs.iterdir()
    assert [(row["text"], row["label"], row["version"]) for row in read_jsonl(file)] == [
        (row["text"], row["predicted_label"], "1") for row in predicted
    ]
    write_csv(tmp_path / "new.csv", {"text": ["a lamp", ""]})
    files = ("--input", str(tmp_path / "new.csv"), "--output", str(tmp_path / "out.csv"))
    ratchet(trained, "predict", "--log", *files)
    ratchet(trained, "predict", "--log", "--bundle", "models/bundle", "a door")
    assert texts_in(inputs) == ["a good film", "a bad film", "a lamp", "", "a door"]
    bundle = ("--bundle", str(trained / "models" / "bundle"))
    done = ratchet(tmp_path, "predict", "--log", *bundle, "a door", "--json", code=2)
    error = json.loads(done.stdout)["error"]
    assert (error["type"], "-C DIR" in error["remedy"]) == ("WorkspaceError", True)


def test_files_of_unlike_values_cannot_be_read_together(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [["a", "list"]]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [{"a": "struct"}]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="cannot be read together"):
        read_inputs(tmp_path, ["text"])
