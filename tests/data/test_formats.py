"""Excel files, zipped files, delimiters and encodings: read right, or told by what sets them."""

from __future__ import annotations

import datetime
import gzip
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import local
from test_ingestion import Workbench

from tasks.core import foreign
from tasks.core.errors import DataError, ParamsError, SourceError
from tasks.data.tables.row_files import read_batches
from tasks.params.ingestion import IngestParams
from tasks.params.schema import source_of_options
from tasks.problems import load_problem


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


def book(path: Path, **sheets: Sequence[Sequence[Any]]) -> Path:
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for title, rows in sheets.items():
        sheet = workbook.create_sheet(title)
        for row in rows:
            sheet.append(row)
    workbook.save(path)
    return path


def test_a_sheet_keeps_its_values_and_row_numbers(bench: Workbench) -> None:
    day = datetime.datetime(2026, 11, 30, 12, 30)
    rows: list[list[Any]] = [[], ["text", "label", "when", None], ["good", 1, day, None], []]
    rows += [["007", 2.0, None, "a note"], ["bad", True, None], ["=1+1", "x"], ["err", "#N/A"]]
    book(bench.root / "a.xlsx", data=rows, empty=[])
    kept = bench.ingest("a.xlsx", keep=["when", "column4"])
    assert [(row["text"], row["label"], row["_line"]) for row in kept] == [
        ("good", "1", 3), ("007", "2", 5), ("bad", "true", 6), (None, "x", 7), ("err", None, 8),
    ]  # fmt: skip
    assert [row["when"] for row in kept] == ["2026-11-30T12:30:00", None, None, None, None]
    assert [row["column4"] for row in kept] == [None, "a note", None, None, None]


def test_a_sheet_is_named_where_there_are_several(bench: Workbench) -> None:
    rows = [["text", "label"], ["good", "p"]]
    path = book(bench.root / "a.xlsx", first=rows, second=[["text", "label"], ["other", "n"]])
    with pytest.raises(DataError, match=r"2 visible sheets .*: first, second") as caught:
        bench.ingest("a.xlsx")
    assert "-S ingest.sources.0.sheet=first" in caught.value.remedy
    assert bench.ingest({"url": "a.xlsx", "sheet": "second"})[0]["text"] == "other"
    with pytest.raises(DataError, match=r"no sheet 'third'. Its sheets: first, second"):
        bench.ingest({"url": "a.xlsx", "sheet": "third"})
    workbook = openpyxl.load_workbook(path)
    workbook["second"].sheet_state = "hidden"
    workbook.save(path)
    assert bench.ingest("a.xlsx")[0]["text"] == "good"


def test_predictions_read_excel_files(bench: Workbench) -> None:
    path = book(bench.root / "a.xlsx", data=[["id", "text"], [2**53, "one"], [None, 7]])
    row_format = load_problem("text-classification").rows
    [batch] = read_batches(local(path), ["text"], row_format)
    assert batch.inputs.to_pylist() == [{"text": "one"}, {"text": "7"}]
    assert batch.values() == [{"id": 2**53, "text": "one"}, {"id": None, "text": 7}]


def test_a_declared_size_that_is_too_small_loses_no_row(bench: Workbench) -> None:
    rows = [["text", "label"], *(["word", "p"] for _ in range(50))]
    path = book(bench.root / "a.xlsx", data=rows)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    [name] = [name for name in members if "sheet1.xml" in name]
    assert b'ref="A1:B51"' in members[name]
    members[name] = members[name].replace(b'ref="A1:B51"', b'ref="A1:A10"')
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    assert len(bench.ingest("a.xlsx")) == 50


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "xlsx"])
def test_a_zipped_file_is_read_as_what_it_is(kind: str, bench: Workbench) -> None:
    inner = bench.root / f"inner.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"text": ["good"], "label": ["p"]}), inner)
    elif kind == "xlsx":
        book(inner, data=[["text", "label"], ["good", "p"]])
    else:
        content = b"text,label\ngood,p\n"
        inner.write_bytes(gzip.compress(content) if kind == "csv.gz" else content)
    with zipfile.ZipFile(bench.root / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, f"folder/{inner.name}")
        archive.writestr(f"__MACOSX/folder/._{inner.name}", b"\0")
    assert [row["text"] for row in bench.ingest("a.zip")] == ["good"]
    row_format = load_problem("text-classification").rows
    [batch] = read_batches(local(bench.root / "a.zip"), ["text"], row_format)
    assert batch.inputs.to_pylist() == [{"text": "good"}]


def test_an_archive_of_several_files_is_told(bench: Workbench) -> None:
    with zipfile.ZipFile(bench.root / "a.zip", "w") as archive:
        archive.writestr("a.csv", "text,label\n")
        archive.writestr("b.csv", "text,label\n")
    with pytest.raises(DataError, match=r"archive of 2 files; wanted one. Files: a.csv, b.csv"):
        bench.ingest("a.zip")


def test_what_unpacks_out_of_proportion_is_refused(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "FREE", 2**20)
    content = b"text,label\n" + b"good,p\n" * 2**19
    bench.write("bomb.csv.gz", gzip.compress(content))
    with zipfile.ZipFile(bench.root / "bomb.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.csv", content)
    path = book(bench.root / "bomb.xlsx", data=[["text", "label"], ["good", "p"]])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/media/a.png", b"\0" * 2**23)
    for name in ("bomb.csv.gz", "bomb.csv.zip", "bomb.xlsx"):
        with pytest.raises(SourceError, match="unpacks to more than 200 times its size"):
            bench.ingest(name)


@pytest.mark.parametrize("delimiter", [";", "|", "\t", "¦", "\x01"])
def test_a_delimiter_is_used_as_told(delimiter: str, bench: Workbench) -> None:
    text = "a, b; c | d".replace(delimiter, "")
    rows = [delimiter.join(("text", "label")), *(delimiter.join((text, "p")) for _ in range(3))]
    texts = bench.texts("\n".join(rows) + "\n", delimiter=delimiter)
    assert texts == [(text, "p", line) for line in (2, 3, 4)]


def test_a_delimiter_may_be_written_as_a_shell_can() -> None:
    assert source_of_options("a.csv", {"delimiter": r"\t"}).delimiter == "\t"
    for wrong in ("", ";;", '"', "\n"):
        with pytest.raises(ParamsError, match="--delimiter: wanted one character"):
            source_of_options("a.csv", {"delimiter": wrong})


@pytest.mark.parametrize("encoding", ["idna", "undefined", "punycode", "hex", "rot13", "no", "\0"])
def test_what_decodes_no_file_is_no_encoding(encoding: str) -> None:
    with pytest.raises(ParamsError, match="--encoding: no such encoding of text files"):
        source_of_options("a.csv", {"encoding": encoding})


def test_utf_16_is_read_with_and_without_its_mark(bench: Workbench) -> None:
    for encoding in ("utf-16", "utf_16", "utf-16-le"):
        content = "text,label\nnaïve,p\n".encode(encoding)
        assert bench.texts(content, encoding=encoding) == [("naïve", "p", 2)]
    content = "text,label\nnaïve,p\n".encode("utf-16-be")
    with pytest.raises(DataError, match="utf-16 without a byte order mark") as caught:
        bench.texts(content, encoding="utf_16")
    assert "encoding=utf-16-le" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "content", "option"),
    [
        ("a.txt", b"text,label\n", "format=csv"),
        ("a.csv", b"text,label\n" + b"\xe9,p\n" * 9, "encoding=cp1252"),
        ("a.csv", "text,label\na,p\n".encode("utf-16-be"), "encoding=utf-16-le"),
        ("a.jsonl", b'[{"text": "a"}]', "format=json"),
        ("a.json", b"[1, 2", "format=jsonl"),
    ],
)
def test_a_remedy_is_an_option_of_the_command_or_a_key(
    name: str, content: bytes, option: str, bench: Workbench
) -> None:
    """In `init` there is no params.yaml yet; a training has no option --encoding."""
    with pytest.raises((DataError, SourceError)) as of_params:
        bench.texts(content, name)
    assert f"Add: -S ingest.sources.0.{option}" in of_params.value.remedy
    key, _, value = option.partition("=")
    source = source_of_options(str(bench.root / name), {})
    row_format = load_problem("text-classification").rows
    with pytest.raises((DataError, SourceError)) as of_options:
        list(read_batches(source, ["text"], row_format))
    assert f"Add: --{key} {value}" in of_options.value.remedy
    for error in (of_params, of_options):
        assert "params.yaml" not in str(error.value)
    with pytest.raises((DataError, SourceError)) as of_neither:
        list(read_batches(local(bench.root / name), ["text"], row_format))
    assert "-S" not in str(of_neither.value)
    assert f"--{key}" not in str(of_neither.value)


def test_sources_know_their_number() -> None:
    sources = [{"url": "a.csv"}, {"url": "b.csv"}]
    ingest = IngestParams.model_validate({"sources": sources})
    assert "ingest.sources.1.url" in ingest.sources[1].where()
