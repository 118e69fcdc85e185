"""Tables in every format, encoding and shape: each row is kept with the right values, or set aside with a reason."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.robustness import sources
from benchmarks.robustness.sources import FORMATS, SCHEMES, Row, Table
from benchmarks.robustness.tally import Tally
from flows.workspaces.creation import data_sources
from tasks.core.files import read_jsonl
from tasks.core.progress import silent
from tasks.data.quality.row_account import Account
from tasks.data.tables.label_lists import flat
from tasks.ingestion import read_sources
from tasks.params.schema import IngestParams, ValidateParams
from tasks.problems import load_problem
from tasks.validation import validate_rows

TABLES, QUICK = 600, 40
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "gb18030")
OF_THE_WHOLE = (
    "missing_class",
    "one_class",
    "rows_per_class",
    "conflicts",
    "duplicates",
    "class_share",
)
NAMES = {
    "train": ("train", "training", "train-00000-of-00002"),
    "validation": ("dev", "val", "valid"),
    "test": ("test", "eval"),
}


@dataclass
class Ingested:
    """What came of one file: its rows, the reasons of those set aside by line, and what should have come.

    form     for people: what the file was
    broken   lines that are no rows
    """

    form: str
    table: Table
    lines: list[int]
    broken: list[int]
    rows: pa.Table
    aside: dict[int, str]


def campaign(quick: bool) -> list[Tally]:
    """Tables read, and splits named."""
    count = QUICK if quick else TABLES
    swapped = [
        failure for seed in range(count) for failure in _name_splits(random.Random(seed), seed)
    ]
    return [
        Tally(
            "tables through ingest and validation",
            count,
            "a row is lost or changed without a word",
            try_tables(range(count)),
        ),
        Tally("splits told by names", count, "a file becomes another split", swapped),
    ]


def try_tables(seeds: Sequence[int]) -> list[str]:
    """Ingest a table a seed, validate those of one problem together, and hold every row against what it was made of."""
    failures: list[str] = []
    by_problem: dict[str, list[Ingested]] = {}
    for seed in seeds:
        try:
            one = _ingest(seed)
        except Exception as error:  # whatever comes is counted
            failures.append(f"seed {seed}: {type(error).__name__}: {error}")
        else:
            by_problem.setdefault(one.table.problem, []).append(one)
    for problem, tried in by_problem.items():
        kept = _validate(problem, tried)
        failures += [
            failure for one, rows in zip(tried, kept, strict=True) for failure in _judge(one, rows)
        ]
    return failures


def make_table(draw: random.Random) -> Table:
    """A table of one of the shapes."""
    written = draw.choice(("list", "json", "python"))
    return draw.choice((
        lambda: sources.classified(draw, draw.choice(("str", "int", "float", "bool", "mixed")), draw.random() < 0.4),
        lambda: sources.several(draw, draw.choice(("list", "json", "python", "|", ";", ",", "flags"))),
        lambda: sources.talked(draw, draw.choice(("plain", "parts", "sharegpt", "text", "columns"))),
        lambda: sources.tagged(draw, draw.choice(SCHEMES), draw.choice(("spans", written))),
    ))()  # fmt: skip


def formats_of(table: Table) -> tuple[str, ...]:
    """The formats that can hold the table."""
    mixed = (table.nested and table.problem in ("text-classification",)) or any(
        row.wanted is None for row in table.rows
    )
    return tuple(
        name
        for name in FORMATS
        if not (table.nested and name in ("csv", "tsv")) and not (name == "parquet" and mixed)
    )


def _ingest(seed: int) -> Ingested:
    draw = random.Random(seed)
    table = make_table(draw)
    kind, encoding, line_end = (
        draw.choice(formats_of(table)),
        draw.choice(ENCODINGS),
        draw.choice(("\n", "\r\n")),
    )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"rows.{kind}"
        lines = sources.write(path, [row.source for row in table.rows], encoding, line_end)
        broken = (
            sources.add_broken_lines(draw, path, encoding, line_end)
            if kind in ("csv", "tsv") and draw.random() < 0.5
            else []
        )
        rows, aside = ingested(Path(scratch), path, table, encoding)
    return Ingested(
        f"seed {seed} ({table.problem}, {kind}, {encoding})", table, lines, broken, rows, aside
    )


def ingested(
    root: Path, path: Path, table: Table, encoding: str
) -> tuple[pa.Table, dict[int, str]]:
    """(rows, line -> reason) of a file after ingest."""
    source = {"url": str(path), "encoding": "utf-8" if path.suffix == ".parquet" else encoding}
    ingest = IngestParams.model_validate({"sources": [source], **table.ingest})
    read_sources(
        root / "raw",
        problem=table.problem,
        ingest=ingest,
        root=root,
        cache=root / "cache",
        report=silent,
    )
    entries = read_jsonl(root / "raw" / "quarantine.jsonl")
    return pq.read_table(root / "raw" / "rows.parquet"), {
        entry["line"]: entry["reason"] for entry in entries
    }


def _validate(problem: str, tried: Sequence[Ingested]) -> list[dict[int, dict[str, Any]]]:
    """line -> row of each file after validation, whose reasons go to the file's own; it judges single rows alone."""
    kind = load_problem(problem)
    files = pa.array(
        [str(number) for number, one in enumerate(tried) for _ in range(len(one.rows))]
    )
    rows = pa.concat_tables([one.rows for one in tried])
    rows = rows.set_column(0, "row", pa.array(range(len(rows)), pa.int64()))
    rows = rows.set_column(rows.column_names.index("_file"), "_file", files)
    labels = (
        sorted(
            {label for label in pc.unique(flat(rows[kind.rows.label_column])).to_pylist() if label}
        )
        if kind.rows.label_column
        else []
    )
    known = {"duplicates"} | {
        check.name for check in kind.rows.expectations(ValidateParams(), labels)
    }
    validate = ValidateParams.model_validate(
        {"min_rows": 1, "actions": {name: "off" for name in OF_THE_WHOLE if name in known}}
    )
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "raw").mkdir()
        pq.write_table(rows, root / "raw" / "rows.parquet")
        Account(len(rows), len(rows)).write(root / "raw")
        validate_rows(
            root / "raw", root / "valid", root / "report.json", root / "docs",
            problem=problem, labels=tuple(labels), validate=validate, report=silent,
        )  # fmt: skip
        for entry in read_jsonl(root / "valid" / "quarantine.jsonl"):
            tried[int(entry["file"])].aside[entry["line"]] = entry["reason"]
        kept: list[dict[int, dict[str, Any]]] = [{} for _ in tried]
        for row in pq.read_table(root / "valid" / "rows.parquet").to_pylist():
            kept[int(row["_file"])][row["_line"]] = row
    return kept


def _judge(one: Ingested, kept: dict[int, dict[str, Any]]) -> Iterator[str]:
    aside = dict(one.aside)
    for line, row in zip(one.lines, one.table.rows, strict=True):
        if wrong := _wrong(row, kept.pop(line, None), aside.pop(line, None)):
            yield f"{one.form}, line {line}: {wrong}"
    for line in one.broken:
        if not aside.pop(line, None):
            yield f"{one.form}: line {line}, which is no row, was not set aside"
    if kept or aside:
        yield f"{one.form}: rows that no source has: {[*kept, *aside]}"


def _wrong(row: Row, kept: dict[str, Any] | None, reason: str | None) -> str:
    """What is wrong with what became of a row; '' where it is right."""
    if row.wanted is None:
        return (
            ""
            if kept is None and reason
            else f"wanted to be set aside with a reason, came {kept or 'nothing'}"
        )
    if kept is None:
        return f"wanted {row.wanted}, set aside: {reason}"
    found = {name: kept[name] for name in row.wanted}
    return "" if found == row.wanted else f"wanted {row.wanted}, came {found}"


def _name_splits(draw: random.Random, seed: int) -> Iterator[str]:
    named = {
        split: f"{draw.choice(('', 'reviews_', 'data/', 'my-'))}{draw.choice(names)}.csv"
        for split, names in NAMES.items()
    }
    given = draw.sample(sorted(named.values()), 3)
    found = {source["split"]: source["url"] for source in data_sources(given, Path.cwd())}
    if found != named:
        yield f"seed {seed}: {given} became {found}"
