"""Sources to rows: every record becomes a row or is quarantined, and values stay as written."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tasks.ingestion
from tasks.core.errors import DataError, ParamsError, PipelineError, SourceError
from tasks.core.files import read_json, read_jsonl, sha256_file
from tasks.core.progress import silent
from tasks.data.tables.csv_records import RecordReader
from tasks.ingestion import ingest_sources
from tasks.params.ingestion import IngestParams

LONG = "x" * 2**20


class Workbench:
    """A workspace's directory whose files can be ingested."""

    def __init__(self, root: Path) -> None:
        self.root, self.raw = root, root / "data" / "raw"

    def write(self, name: str, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        (self.root / name).write_bytes(data)

    def ingest(
        self, *sources: str | dict[str, Any], raw: Path | None = None, **params: Any
    ) -> list[dict[str, Any]]:
        """Ingest the sources, each an address or params; return the rows."""
        entries = [{"url": source} if isinstance(source, str) else source for source in sources]
        values = {"sources": entries, "max_quarantined_share": 1, **params}
        raw = raw or self.raw
        ingest_sources(
            raw,
            problem="text-classification",
            ingest=IngestParams.model_validate(values),
            root=self.root,
            cache=self.root / "cache",
            report=silent,
        )
        rows: list[dict[str, Any]] = pq.read_table(raw / "rows.parquet").to_pylist()
        assert [row["row"] for row in rows] == list(range(len(rows)))
        return rows

    def texts(
        self, content: str | bytes, name: str = "rows.csv", **source: Any
    ) -> list[tuple[Any, ...]]:
        """Write and ingest a file; return each row's text, label and line."""
        self.write(name, content)
        rows = self.ingest({"url": name, **source})
        return [(row["text"], row["label"], row["_line"]) for row in rows]

    def quarantine(self) -> list[tuple[int, str]]:
        entries = read_jsonl(self.raw / "quarantine.jsonl")
        return [(entry["line"], entry["reason"]) for entry in entries]


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


GOOD_CSV = {
    "simple": ("text,label\na,p\n", [("a", "p", 2)]),
    "crlf": ("text,label\r\na,p\r\n", [("a", "p", 2)]),
    "no last line end": ("text,label\na,p", [("a", "p", 2)]),
    "comma in quotes": ('text,label\n"Anytown, WW",08123\n', [("Anytown, WW", "08123", 2)]),
    "empty": ('text,label\n"",""\n2,\n', [("", "", 2), ("2", "", 3)]),
    "empty, crlf": ('text,label\r\n"",""\r\n2,3\r\n', [("", "", 2), ("2", "3", 3)]),
    "escaped quotes": (
        'text,label\n"ha ""ha"" ha",1\n3,4\n',
        [('ha "ha" ha', "1", 2), ("3", "4", 3)],
    ),
    "json": (
        'label,text\n1,"{""type"": ""Point"", ""at"": [102.0, 0.5]}"\n',
        [('{"type": "Point", "at": [102.0, 0.5]}', "1", 2)],
    ),
    "quotes amid a field": (
        "text,label\n37\ufffd36'37.8\"N 121\ufffd2'17.9\"W,Modesto\n",
        [("37\ufffd36'37.8\"N 121\ufffd2'17.9\"W", "Modesto", 2)],
    ),
    "newlines": (
        'text,label\n1,2\n"Once upon \na time",5\n7,8\n',
        [("1", "2", 2), ("Once upon \na time", "5", 3), ("7", "8", 5)],
    ),
    "newlines, crlf": (
        'text,label\r\n"Once upon \r\na time",5\r\n7,8\r\n',
        [("Once upon \r\na time", "5", 2), ("7", "8", 4)],
    ),
    "quotes and newlines": (
        'text,label\n"ha \n""ha"" \nha",1\n3,4\n',
        [('ha \n"ha" \nha', "1", 2), ("3", "4", 5)],
    ),
    "utf8": (
        "text,label\nʤ,p\n😀 שלום\u2028مرحبا,n\n",
        [("ʤ", "p", 2), ("😀 שלום\u2028مرحبا", "n", 3)],
    ),
    "blanks around quotes": ('text,label\n "a", "p" \nb , n\n', [("a", "p", 2), ("b ", " n", 3)]),
    "blank lines": ("\ntext,label\n\na,p\n\n\nb,n\n\n", [("a", "p", 4), ("b", "n", 7)]),
    "lone carriage return": ("text,label\na\rb,p\nc,n\n", [("a\rb", "p", 2), ("c", "n", 3)]),
    "old mac": ("text,label\ra,p\rb,n\r", [("a", "p", 2), ("b", "n", 3)]),
    "mixed line ends": ("text,label\r\na,p\nb,n\r\n", [("a", "p", 2), ("b", "n", 3)]),
    "nul": (
        "text,label\na\0b,p\n" + "longer than that,n\n" * 2,
        [("a\0b", "p", 2), ("longer than that", "n", 3), ("longer than that", "n", 4)],
    ),
    "semicolons": ("text;label\na, b;p\n", [("a, b", "p", 2)]),
    "header of two lines": ('text,"la\nbel",label\na,x,p\n', [("a", "p", 3)]),
    "as written": (
        "text,label\n1.50,01\nNULL,NA\ntrue,1e5\n",
        [("1.50", "01", 2), ("NULL", "NA", 3), ("true", "1e5", 4)],
    ),
    "a megabyte": (f'text,label\n{LONG},p\n"{LONG}",n\n', [(LONG, "p", 2), (LONG, "n", 3)]),
}


@pytest.mark.parametrize("case", GOOD_CSV)
def test_csv_corner_cases_come_as_written(case: str, bench: Workbench) -> None:
    content, expected = GOOD_CSV[case]
    assert bench.texts(content) == expected
    assert bench.quarantine() == []


def test_all_corner_cases_are_there() -> None:
    assert len(GOOD_CSV) == 23


@pytest.mark.parametrize(
    ("content", "rows", "quarantine"),
    [
        ("a,p\nb\nc,n\n", [2, 4], [(3, "1 fields, the header has 2")]),
        ("a,p\nb,c,n\nc,n\n", [2, 4], [(3, "3 fields, the header has 2")]),
        ('a,p\n"b,n\nc,n\nd,p\n', [2, 4, 5], [(3, "a quoted field is not closed")]),
        ('a,p\n"b"x,n\nc,n\n', [2, 4], [(3, "text follows the closing quote of a field: '\"x,n'")]),
        (
            '"b,n\nc,n\n"d\nd",p\n',
            [3, 4],
            [(2, "text follows the closing quote of a field: '\"d'")],
        ),
        ('a,p\n"two\nlines",n,3\nc,n\n', [2, 5], [(3, "3 fields, the header has 2")]),
    ],
)
def test_malformed_records_are_set_aside_and_cost_no_others(
    content: str, rows: list[int], quarantine: list[tuple[int, str]], bench: Workbench
) -> None:
    assert [line for *_, line in bench.texts("text,label\n" + content)] == rows
    assert bench.quarantine() == quarantine
    [source] = read_json(bench.raw / "sources.json")["sources"]
    assert source["files"][0]["records"] == len(rows) + len(quarantine)


def test_records_in_are_rows_and_quarantined_for_any_text(bench: Workbench) -> None:
    draw = random.Random(0)
    for _ in range(25):
        lines = [
            "".join(draw.choices('ab,,"  \r', k=draw.randint(0, 9)))
            for _ in range(draw.randint(1, 30))
        ]
        content = "text,label\ngood,row\n" + "\n".join(lines)
        rows = bench.texts(content)
        # every line is blank, part of one row, or part of one quarantined record
        spans = {line: (text + label).count("\n") + 1 for text, label, line in rows}
        for entry in read_jsonl(bench.raw / "quarantine.jsonl"):
            assert entry["line"] not in spans
            spans[entry["line"]] = entry["content"].count("\n") + 1
        covered = [n for line, span in spans.items() for n in range(line, line + span)]
        filled = [n for n, line in enumerate(content.split("\n"), 1) if line.strip("\r") and n > 1]
        assert len(covered) == len(set(covered))
        assert set(filled) <= set(covered)


def test_what_needs_more_memory_than_is_planned_gets_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = "".join(f"{'long text ' * 50}{i},p\n" for i in range(20_000))
    bench.write("rows.csv", "text,label\n" + records)
    expected = bench.ingest("rows.csv")
    limits: list[str | None] = []
    original = tasks.ingestion._database

    def open_database(path: Path, memory: str | None) -> Any:
        limits.append(memory)
        return original(path, memory)

    monkeypatch.setattr(tasks.ingestion, "_database", open_database)
    monkeypatch.setattr(tasks.ingestion, "MEMORY", "1MB")
    assert bench.ingest("rows.csv") == expected
    assert limits == ["1MB", None]


def test_quick_and_careful_reading_agree(bench: Workbench) -> None:
    draw = random.Random(1)
    for _ in range(25):
        rows = [
            ("".join(draw.choices('ab ,"\n;é', k=draw.randint(0, 6))), draw.choice("pn"))
            for _ in range(draw.randint(1, 20))
        ]
        lines = ['"{}",{}\n'.format(text.replace('"', '""'), label) for text, label in rows]
        content = "text,label\n" + "".join(lines)
        texts = bench.texts(content)
        careful = list(RecordReader(io.StringIO(content, newline="\n"), ",", '"'))[1:]
        assert [(text, label) for text, label, _ in texts] == rows
        assert [line for *_, line in texts] == [record.line for record in careful]


def test_without_quoting_quotes_are_plain_characters(bench: Workbench) -> None:
    content = 'label\ttext\r\np\t"quoted\r\nn\tit\'s "5\r\n'
    assert bench.texts(content, "rows.tsv", quote="") == [('"quoted', "p", 2), ("it's \"5", "n", 3)]


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-8"),
        ("utf-32", "utf-8"),
        ("latin-1", "latin-1"),
        ("cp1252", "cp1252"),
        ("utf-16-le", "utf-16-le"),
        ("gb18030", "gb18030"),
    ],
)
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_encodings_are_honoured(encoding: str, declared: str, name: str, bench: Workbench) -> None:
    content = "text,label\ncafé,p\n" if name == "rows.csv" else '{"text": "café", "label": "p"}\n'
    [(text, label, _)] = bench.texts(content.encode(encoding), name, encoding=declared)
    assert (text, label) == ("café", "p")


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (gzip.compress(b"text,label\na,b\n", mtime=0), "gzip"),
        (b"PK\x03\x04\x14\0", "zip"),
        (b"PAR1\x15\x04", "Parquet"),
    ],
)
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_what_is_no_text_is_told_by_what_it_is(
    head: bytes, says: str, name: str, bench: Workbench
) -> None:
    with pytest.raises(DataError, match=f"{name}: its content is .*{says}") as error:
        bench.texts(head, name)
    assert error.value.remedy


def test_wrong_encoding_names_line_byte_and_remedy(bench: Workbench) -> None:
    with pytest.raises(DataError) as error:
        bench.texts("text,label\nok,p\ncafé,p\n".encode("cp1252"))
    assert "rows.csv, line 3: byte 0xe9 is not utf-8; 1 of 3 lines" in error.value.message
    assert "encoding=cp1252" in error.value.remedy
    with pytest.raises(DataError, match="UTF-16"):
        bench.texts("text,label\nok,p\n".encode("utf-16-le"))


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_few_undecodable_lines_are_set_aside(name: str, bench: Workbench) -> None:
    line = b"fine,p\n" if name == "rows.csv" else b'{"text": "fine", "label": "p"}\n'
    bad = line.replace(b"fine", b"caf\xe9")
    head, count = (b"text,label\n", 300) if name == "rows.csv" else (line, 301)
    assert len(bench.texts(head + line * 150 + bad + line * 150, name)) == count
    [(number, reason)] = bench.quarantine()
    assert number == 152
    assert "0xe9" in reason


def test_jsonl_records_are_objects_with_types_of_their_own(bench: Workbench) -> None:
    content = (
        '{"text": "a\\u0000b\\ud83d\\ude00", "label": 1}\n\n[1]\n{"text": "b", "label": 1\n'
        '{"label": "x", "text": 2.50}\r\n{"text": "c"}\n'
    )
    assert bench.texts(content, "rows.jsonl") == [
        ("a\0b😀", "1", 1),
        ("2.5", "x", 5),
        ("c", None, 6),
    ]
    assert bench.quarantine() == [(3, "not a JSON object"), (4, "not valid JSON")]
    content = (
        '{"text": "a", "score": 2, "tags": ["x", "y"]}\n{"text": "b", "score": -1, "tags": []}\n'
    )
    bench.write("scored.jsonl", content)
    query = "SELECT text, CASE WHEN score > 0 THEN 'p' ELSE 'n' END AS label, tags FROM data"
    rows = bench.ingest("scored.jsonl", query=query)
    assert [(row["label"], row["tags"]) for row in rows] == [("p", ["x", "y"]), ("n", [])]


def test_parquet_keeps_kept_columns_and_numbers_rows(bench: Workbench) -> None:
    table = pa.table(
        {"text": ["a", "b"], "label": [1, 0], "score": [0.5, 1.5], "when": [None, "x"]}
    )
    pq.write_table(table, bench.root / "rows.parquet")
    rows = bench.ingest("rows.parquet", keep=["score"])
    assert rows == [
        {"row": 0, "text": "a", "label": "1", "score": 0.5, "_file": "rows.parquet", "_line": 1},
        {"row": 1, "text": "b", "label": "0", "score": 1.5, "_file": "rows.parquet", "_line": 2},
    ]
    bench.write("bad.parquet", b"PAR1 not really PAR1")
    with pytest.raises(DataError, match=r"bad\.parquet: not a readable Parquet file"):
        bench.ingest("bad.parquet")


def test_files_are_stacked_in_order_and_by_name(bench: Workbench) -> None:
    bench.write("a.csv", "text,label\na,p\n")
    bench.write("b.csv", "label,text\nn,b\n")
    bench.write("c.jsonl", '{"label": "n", "text": "c"}\n')
    rows = bench.ingest("*.csv", "c.jsonl")
    assert [(row["text"], row["label"], row["_file"]) for row in rows] == [
        ("a", "p", "a.csv"),
        ("b", "n", "b.csv"),
        ("c", "n", "c.jsonl"),
    ]


def test_given_splits_are_kept(bench: Workbench) -> None:
    for split in ("train", "validation", "test"):
        bench.write(f"{split}.csv", f"text,label\n{split} text,p\n")
    sources = [{"url": f"{split}.csv", "split": split} for split in ("train", "validation", "test")]
    assert [row["split"] for row in bench.ingest(*sources)] == ["train", "validation", "test"]
    queried = bench.ingest(*sources, query="SELECT text, label, split FROM data")
    assert [row["split"] for row in queried] == ["train", "validation", "test"]
    with pytest.raises(ParamsError, match="split"):
        bench.ingest(*sources, query="SELECT text, label FROM data")


def test_columns_are_renamed_as_told(bench: Workbench) -> None:
    bench.write("rows.csv", 'Sentence,"the ""class""",x\na,p,1\n')
    columns = {"text": "Sentence", "label": 'the "class"'}
    [row] = bench.ingest("rows.csv", columns=columns, keep=["x"])
    assert (row["text"], row["label"], row["x"]) == ("a", "p", "1")
    with pytest.raises(DataError) as error:
        bench.ingest("rows.csv", columns={"text": "Sentense", "label": "x"})
    reason = "rows.csv: there is no column 'Sentense'. Did you mean 'Sentence'?"
    assert reason in error.value.message
    assert "'the \"class\"'" in error.value.message
    with pytest.raises(ParamsError, match="no column 'txt'"):
        bench.ingest("rows.csv", columns={"txt": "Sentence"})


def test_query_maps_and_orders_rows(bench: Workbench) -> None:
    bench.write("rows.tsv", "id\tsentiment\ttext\n1\t-1.5\tbad\n2\t0.1\tso so\n3\t2\tgood\n")
    query = (
        "SELECT text, CASE WHEN CAST(sentiment AS DOUBLE) < -0.5 THEN 'negative' "
        "WHEN CAST(sentiment AS DOUBLE) > 0.5 THEN 'positive' ELSE 'neutral' END AS label, "
        "regexp_extract(_file, '([a-z]+)', 1) AS domain, _file, _line FROM data -- a comment"
    )
    rows = bench.ingest({"url": "rows.tsv", "quote": ""}, query=query)
    assert [(row["label"], row["domain"], row["_line"]) for row in rows] == [
        ("negative", "rows", 2),
        ("neutral", "rows", 3),
        ("positive", "rows", 4),
    ]
    rows = bench.ingest("rows.tsv", query="SELECT text, id AS label FROM data ORDER BY id DESC;")
    assert [row["label"] for row in rows] == ["3", "2", "1"]


def test_rows_that_a_cast_fails_on_are_set_aside(bench: Workbench) -> None:
    records = "".join(f"t{i},{'none' if i in (3, 70) else i}\n" for i in range(100))
    bench.write("rows.csv", "text,score\n" + records)
    query = "SELECT text, CAST(score AS INT) % 2 AS label, _file, _line FROM data"
    assert len(bench.ingest("rows.csv", query=query)) == 98
    aside = read_jsonl(bench.raw / "quarantine.jsonl")
    assert [entry["line"] for entry in aside] == [5, 72]
    assert [entry["content"] for entry in aside] == ["t3 | none", "t70 | none"]


def test_a_cast_that_fails_on_no_single_row_is_told(bench: Workbench) -> None:
    bench.write("rows.csv", "text,score\n" + "".join(f"t{i},9\n" for i in range(100)))
    query = "SELECT text, (SELECT CAST(sum(score::INT) AS TINYINT) FROM data) AS label FROM data"
    with pytest.raises(ParamsError, match=r"ingest\.query") as caught:
        bench.ingest("rows.csv", query=query)
    assert "TRY_CAST" in caught.value.remedy


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT txt AS text, label FROM data", "data (text, label, _file, _line)"),
        ("SELECT text, label FROM rows", "rows"),
        ("SELECT text FROM data", "also needs label"),
        ("SELECT text, label FROM data WHERE text > 1", "an explicit cast is required"),
        ("SELEC text", "ingest.query:"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("DROP TABLE data", "one SELECT"),
        ("SELECT text, label, 1 AS row FROM data", "'row' is reserved"),
        ("SELECT content AS text, 'x' AS label FROM read_text('/etc/hostname')", "disabled"),
        ("SELECT text, label FROM 'https://127.0.0.1/x.csv'", "ingest.query:"),
        ("SELECT text, label FROM loaded", "ingest.query:"),
    ],
)
def test_wrong_query_is_explained_on_one_line(query: str, said: str, bench: Workbench) -> None:
    bench.write("rows.csv", "text,label\na,p\n")
    with pytest.raises(PipelineError) as error:
        bench.ingest("rows.csv", query=query)
    assert said in error.value.message
    assert "\n" not in error.value.message
    assert "LINE 1" not in error.value.message


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "a", "label": "p"},\n {"text": "b\\nc", "label": "q"}]',
        '{"x": {"text": "a", "label": "p"}, "y": {"text": "b\\nc", "label": "q"}}',
    ],
)
def test_a_json_file_may_hold_all_rows_in_one_value(content: str, bench: Workbench) -> None:
    assert bench.texts(content, "rows.json", format="json") == [("a", "p", 1), ("b\nc", "q", 2)]
    if content.startswith("{"):
        source = {"url": "rows.json", "format": "json"}
        rows = bench.ingest(source, query="SELECT text, label, _key FROM data")
        assert [row["_key"] for row in rows] == ["x", "y"]


@pytest.mark.parametrize("content", ['"text"', '{"x": 1}', '[{"text": "a"'])
def test_a_json_file_without_rows_is_explained(content: str, bench: Workbench) -> None:
    bench.write("rows.json", content)
    with pytest.raises(DataError, match=r"rows\.json"):
        bench.ingest({"url": "rows.json", "format": "json"})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", "", "empty"),
        ("rows.csv", "\n\n", "empty"),
        ("rows.csv", "text,label\n", "no rows"),
        ("rows.jsonl", "", "empty"),
        ("rows.jsonl", '[\n{"text": "a", "label": "p"}\n]\n', "a JSON array"),
        ("rows.jsonl", "text,label\na,p\n", "none of its 2 records"),
        ("rows.csv", "text,label\na\nb\n", "none of its 2 records"),
        ("rows.dat", "text,label\na,p\n", "format"),
        ("rows.jsonl", '{"text": ["a"], "label": "p"}\n', "wanted text"),
    ],
)
def test_unfit_files_are_explained_and_leave_nothing(
    name: str, content: str, said: str, bench: Workbench
) -> None:
    bench.write(name, content)
    with pytest.raises((DataError, SourceError), match=re.escape(said)) as error:
        bench.ingest(name)
    assert error.value.remedy
    assert name in error.value.message or said in ("no rows", "wanted text")
    assert not bench.raw.exists()
    assert list(bench.raw.parent.iterdir() if bench.raw.parent.exists() else []) == []


def test_missing_file_leaves_nothing(bench: Workbench) -> None:
    with pytest.raises(SourceError, match="no such file"):
        bench.ingest("none.csv")
    assert list(bench.root.iterdir()) == []


def test_same_sources_make_same_bytes_and_name_no_machine_paths(bench: Workbench) -> None:
    records = "".join(f"t{i},p\n" for i in range(70_000))
    bench.write("rows.csv", f"text,label\n{records}broken\n")
    names = ["account.json", "quarantine.jsonl", "rows.parquet", "sources.json"]
    digests = []
    for name in ("one", "two"):
        bench.ingest("rows.csv", raw=bench.root / name)
        files = sorted((bench.root / name).iterdir())
        assert [file.name for file in files] == names
        assert str(bench.root).encode() not in b"".join(file.read_bytes() for file in files)
        digests.append([sha256_file(file) for file in files])
    assert digests[0] == digests[1]
    about = json.loads((bench.root / "one" / "sources.json").read_text())
    assert about["rows"] == 70_000
    csv = bench.root / "rows.csv"
    assert about["sources"][0]["files"][0] == {
        "name": "rows.csv",
        "sha256": sha256_file(csv),
        "bytes": csv.stat().st_size,
        "records": 70_001,
        "quarantined": 1,
    }


def test_a_query_that_fails_on_most_rows_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.data.tables.queries._MAX_CULPRITS", 3)
    bench = Workbench(tmp_path)
    bench.write("a.csv", "text,label\n" + "word,a\n" * 9)
    with pytest.raises(DataError, match="more than 3 of 9 rows") as told:
        bench.ingest("a.csv", query="SELECT CAST(text AS INTEGER) AS text, label FROM data")
    assert "TRY_CAST" in told.value.remedy
