"""Files that are valid and still not what they seem: nothing of them is lost without a word."""

from __future__ import annotations

import csv
import gzip
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import local
from test_ingestion import Workbench

from tasks.core.errors import DataError
from tasks.core.files import read_jsonl
from tasks.data.quality.row_account import Account
from tasks.data.tables.foreign_values import UnfitError, content_of, turns_of
from tasks.data.tables.row_files import read_batches
from tasks.data.tables.span_borders import is_shifted
from tasks.params.labels import label_variants
from tasks.problems import load_problem

PROBLEM = load_problem("text-classification")


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_rows_that_stray_quotes_swallow_are_set_aside_one_by_one(
    line_end: str, bench: Workbench
) -> None:
    lines = ["text,label", *(f"some words number {i},{'pn'[i % 2]}" for i in range(2, 122))]
    lines[11] = '"' + lines[11]
    lines[71] = lines[71].replace(",", '",')
    rows = bench.texts(line_end.join(lines) + line_end)
    assert [line for _, _, line in rows] == [*range(2, 12), *range(73, 122)]
    assert [line for line, _ in bench.quarantine()] == [*range(12, 73)]
    assert {reason for _, reason in bench.quarantine()} == {
        "a line of a quoted field whose lines all are rows: its quotes seem to be stray"
    }
    assert Account.read(bench.raw).held == 120


def test_few_rows_that_stray_quotes_swallow_are_set_aside_too(bench: Workbench) -> None:
    lines = ["text,label", *(f"some words number {i},{'pn'[i % 2]}" for i in range(2, 32))]
    lines[9], lines[12] = '"' + lines[9], lines[12].replace(",", ' 15",')
    assert len(bench.texts("\n".join(lines))) == 26
    assert [line for line, _ in bench.quarantine()] == [10, 11, 12, 13]


VERSES = "\n".join(f"line {i}, with a comma" for i in range(9))
HONEST = {
    "verses": [(VERSES, "p"), ("short", "n")],
    "a list": [
        ("We ship to:\nBerlin,DE\nParis,FR\nRome,IT\nThanks!", "DE"), ("x", "FR"), ("y", "IT"),
    ],
    "a matrix": [("0,1\n1,0\n0,1\n1,0", "1"), ("see above", "0")],
    "a table in a text": [("Hello, all\nplot,3\ncast,4\nbye", "5"), ("a", "3"), ("b", "4")],
    "empty notes": [("a verse,\nanother,\na third,", ""), ("b", ""), ("c", "")],
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_texts_with_line_breaks_are_no_swallowed_rows(name: str, bench: Workbench) -> None:
    with io.StringIO(newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("text", "label"), *HONEST[name]])
        rows = bench.texts(file.getvalue())
    assert [(text, label) for text, label, _ in rows] == HONEST[name]
    assert bench.quarantine() == []


CONTENT = gzip.compress(b"text,label\n" + b"".join(b"some text %d,p\n" % i for i in range(2000)))


@pytest.mark.parametrize(
    "damaged",
    [
        CONTENT[: len(CONTENT) // 2],
        CONTENT[:-4],
        CONTENT[:300] + bytes([CONTENT[300] ^ 255]) + CONTENT[301:],
        CONTENT[:-6] + bytes([CONTENT[-6] ^ 1]) + CONTENT[-5:],
        CONTENT + b"junk",
    ],
    ids=["half", "no length", "a byte", "checksum", "more"],
)
def test_a_damaged_gzip_file_is_told(damaged: bytes, bench: Workbench) -> None:
    bench.write("a.csv.gz", damaged)
    with pytest.raises(DataError, match=r"a\.csv\.gz: damaged gzip file, or not yet complete"):
        bench.ingest("a.csv.gz")


def test_an_object_with_a_key_twice_is_set_aside_and_never_predicted(
    bench: Workbench, tmp_path: Path
) -> None:
    """DuckDB reads the first of two values, Python the last."""
    twice = '{"text": "one", "label": "p", "text": "two"}'
    rows = bench.texts(f'{twice}\n{{"text": "three", "label": "n"}}\n', "a.jsonl")
    assert [text for text, _, _ in rows] == ["three"]
    assert bench.quarantine() == [(1, "a key is there twice")]
    with pytest.raises(DataError, match="line 1: a key is there twice"):
        list(read_batches(local(tmp_path / "a.jsonl"), ["text"], PROBLEM.rows))


def test_lines_of_arrays_are_not_taken_for_one_array(bench: Workbench) -> None:
    bench.write("a.jsonl", '["a text", {"entities": []}]\n["another", {"entities": []}]\n')
    with pytest.raises(DataError, match="its lines are JSON arrays") as caught:
        bench.ingest("a.jsonl")
    assert "format: json" not in caught.value.remedy


def test_an_array_with_a_key_twice_is_refused(bench: Workbench) -> None:
    bench.write("a.json", '[{"text": "a", "label": "p"}, {"text": "b", "text": "c", "label": "n"}]')
    with pytest.raises(DataError, match="an object has the key 'text' twice"):
        bench.ingest("a.json")


def test_a_number_beyond_the_range_is_not_written_as_infinity(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one", "size": 1e400}\n')
    with pytest.raises(DataError, match="the number 1e400 is too large"):
        list(read_batches(local(tmp_path / "a.jsonl"), ["text"], PROBLEM.rows))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"text": "t"}, "t"),
        ({"value": "t", "annotations": []}, "t"),
        ({"type": "text", "text": "t", "cache_control": {"type": "ephemeral"}}, "t"),
        ({"value": "t", "id": 5}, None),
        ({"text": "t", "author": "bob"}, None),
    ],
)
def test_an_object_is_a_text_only_if_it_holds_nothing_else(value: Any, text: str | None) -> None:
    if text is None:
        with pytest.raises(UnfitError, match="found an object"):
            content_of(value)
    else:
        assert content_of(value) == text


@pytest.mark.parametrize("member", ["reasoning_content", "images"])
def test_what_a_turn_holds_beside_its_text_is_told(member: str) -> None:
    question, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    turns: list[dict[str, Any]] = [question, {**answer, member: ["x"]}]
    with pytest.raises(UnfitError, match=f"turn 2: {member}, which is not trained on"):
        turns_of(turns)
    turns[1][member] = []
    assert turns_of(turns) == [question, answer]


SAME = ["正面", "正面\u3000", "very good", "very  good", "cafe\u0301", "caf\xe9", "x\u200b", "X"]


def test_labels_that_look_alike_are_told_and_merged_when_asked(bench: Workbench) -> None:
    assert list(map(sorted, label_variants(SAME))) == [
        sorted(pair) for pair in (SAME[6:], SAME[4:6], SAME[2:4], SAME[:2])
    ]
    content = "\n".join(json.dumps({"text": "t", "label": label}) for label in SAME)
    bench.write("a.jsonl", content)
    rows = bench.ingest("a.jsonl", merge_labels=True)
    assert [row["label"] for row in rows] == [
        "正面", "正面", "very good", "very good", "café", "café", "x", "x",
    ]  # fmt: skip


def test_a_decimal_is_the_label_of_its_value(bench: Workbench, tmp_path: Path) -> None:
    labels = pa.array(map(Decimal, ("2.5", "2", "1.05")), pa.decimal128(8, 4))
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": labels}), tmp_path / "a.parquet")
    assert [row["label"] for row in bench.ingest("a.parquet")] == ["2.5", "2", "1.05"]


@pytest.mark.parametrize(
    ("text", "span", "shifted"),
    [
        ("Anna met Bob", (0, 3), True),  # an inclusive end
        ("😀😀 Anna met Bob", (5, 9), True),  # UTF-16 units
        ("é Anna met Bob", (3, 7), True),  # bytes
        ("Anna met Bob", (0, 4), False),
        ("Anna's dog", (0, 4), False),
        ("東京都に住む", (0, 2), False),
        ("room 12b", (5, 7), False),
        ("methylbenzene", (0, 6), False),  # parts of words
        ("#visitKöln", (6, 10), False),
        ("we like this town: #visitKöln", (25, 29), False),
        ("Ankarada", (0, 6), False),
        ("Bonner", (0, 4), False),
    ],
)
def test_offsets_of_another_convention_are_told_from_parts_of_words(
    text: str, span: tuple[int, int], shifted: bool
) -> None:
    assert is_shifted(text, *span) is shifted


def test_the_account_of_a_swallowed_row_names_its_lines(bench: Workbench) -> None:
    lines = "".join(f"text {i},{'pn'[i % 2]}\n" for i in range(30))
    bench.texts(f'text,label\n{lines}"{lines}",p\n')
    entries = read_jsonl(bench.raw / "quarantine.jsonl")
    assert [entry["content"] for entry in entries[:2]] == ["text 0,p", "text 1,n"]
