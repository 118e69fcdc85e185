"""Tables in every format, encoding and shape.

Each row must be kept with the right values, or set aside with a reason.
"""

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
from flows.workspaces.request import data_sources
from tasks.core.files import read_jsonl
from tasks.core.progress import silent
from tasks.data.quality.row_account import Account
from tasks.data.tables.label_lists import flat
from tasks.ingestion import read_sources
from tasks.params.ingestion import IngestParams
from tasks.params.schema import ValidateParams
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
    """The outcome of ingesting one file, and the table it was made from.

    form    description of the file, for people
    lines   line at which each of the table's rows begins
    broken  lines that are no rows
    rows    what ingest read
    aside   line -> reason of each row that was set aside
    """

    form: str
    table: Table
    lines: list[int]
    broken: list[int]
    rows: pa.Table
    aside: dict[int, str]


def campaign(quick: bool) -> list[Tally]:
    """Tables read, and splits recognized by file names."""
    count = QUICK if quick else TABLES
    swapped = [
        failure for seed in range(count) for failure in _name_splits(random.Random(seed), seed)
    ]
    what, wrong = "tables through ingest and validation", "a row is lost or changed without a word"
    return [
        Tally(what, count, wrong, try_tables(range(count))),
        Tally("splits told by names", count, "a file becomes another split", swapped),
    ]


def try_tables(seeds: Sequence[int]) -> list[str]:
    """Ingest one table a seed, validate each problem's tables together, and check every row."""
    failures: list[str] = []
    by_problem: dict[str, list[Ingested]] = {}
    for seed in seeds:
        try:
            file = _ingest(seed)
        except Exception as error:  # any exception counts as a failure
            failures.append(f"seed {seed}: {type(error).__name__}: {error}")
        else:
            by_problem.setdefault(file.table.problem, []).append(file)
    for problem, files in by_problem.items():
        for file, kept in zip(files, _validate(problem, files), strict=True):
            failures += _judge(file, kept)
    return failures


def make_table(draw: random.Random) -> Table:
    """A table of a random problem and shape."""
    notation = draw.choice(("list", "json", "python"))
    storages = ("str", "int", "float", "bool", "mixed")
    label_forms = ("list", "json", "python", "|", ";", ",", "flags")
    shapes = ("plain", "parts", "sharegpt", "text", "columns")
    makers = (
        lambda: sources.classified(draw, draw.choice(storages), draw.random() < 0.4),
        lambda: sources.several(draw, draw.choice(label_forms)),
        lambda: sources.talked(draw, draw.choice(shapes)),
        lambda: sources.tagged(draw, draw.choice(SCHEMES), draw.choice(("spans", notation))),
    )
    return draw.choice(makers)()


def formats_of(table: Table) -> tuple[str, ...]:
    """The formats that can hold the table."""
    is_mixed = table.nested and table.problem == "text-classification"
    has_broken_rows = any(row.wanted is None for row in table.rows)
    excluded = {"csv", "tsv"} if table.nested else set()
    if is_mixed or has_broken_rows:
        excluded.add("parquet")
    return tuple(name for name in FORMATS if name not in excluded)


def _ingest(seed: int) -> Ingested:
    draw = random.Random(seed)
    table = make_table(draw)
    file_format = draw.choice(formats_of(table))
    encoding, line_end = draw.choice(ENCODINGS), draw.choice(("\n", "\r\n"))
    with tempfile.TemporaryDirectory() as scratch:
        path, broken = Path(scratch) / f"rows.{file_format}", []
        lines = sources.write(path, [row.source for row in table.rows], encoding, line_end)
        if file_format in ("csv", "tsv") and draw.random() < 0.5:
            broken = sources.add_broken_lines(draw, path, encoding, line_end)
        rows, aside = ingested(Path(scratch), path, table, encoding)
    form = f"seed {seed} ({table.problem}, {file_format}, {encoding})"
    return Ingested(form, table, lines, broken, rows, aside)


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
    aside = {entry["line"]: entry["reason"] for entry in entries}
    return pq.read_table(root / "raw" / "rows.parquet"), aside


def _validate(problem: str, files: Sequence[Ingested]) -> list[dict[int, dict[str, Any]]]:
    """line -> row of each file after validation; adds the reasons to each file's `aside`.

    Only checks of single rows are on.
    """
    parts = load_problem(problem)
    numbers = [str(number) for number, file in enumerate(files) for _ in range(len(file.rows))]
    rows = pa.concat_tables([file.rows for file in files])
    rows = rows.set_column(0, "row", pa.array(range(len(rows)), pa.int64()))
    rows = rows.set_column(rows.column_names.index("_file"), "_file", pa.array(numbers))
    labels: list[str] = []
    if parts.rows.label_column:
        values = pc.unique(flat(rows[parts.rows.label_column])).to_pylist()
        labels = sorted({label for label in values if label})
    checks = {check.name for check in parts.rows.expectations(ValidateParams(), labels)}
    off = [name for name in OF_THE_WHOLE if name in checks | {"duplicates"}]
    validate = ValidateParams.model_validate({"min_rows": 1, "actions": dict.fromkeys(off, "off")})
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "raw").mkdir()
        pq.write_table(rows, root / "raw" / "rows.parquet")
        Account(len(rows), len(rows)).write(root / "raw")
        validate_rows(
            root / "raw",
            root / "valid",
            root / "report.json",
            root / "docs",
            problem=problem,
            labels=tuple(labels),
            validate=validate,
            report=silent,
        )
        for entry in read_jsonl(root / "valid" / "quarantine.jsonl"):
            files[int(entry["file"])].aside[entry["line"]] = entry["reason"]
        kept: list[dict[int, dict[str, Any]]] = [{} for _ in files]
        for row in pq.read_table(root / "valid" / "rows.parquet").to_pylist():
            kept[int(row["_file"])][row["_line"]] = row
    return kept


def _judge(file: Ingested, kept: dict[int, dict[str, Any]]) -> Iterator[str]:
    aside = dict(file.aside)
    for line, row in zip(file.lines, file.table.rows, strict=True):
        if wrong := _wrong(row, kept.pop(line, None), aside.pop(line, None)):
            yield f"{file.form}, line {line}: {wrong}"
    for line in file.broken:
        if not aside.pop(line, None):
            yield f"{file.form}: line {line}, which is no row, was not set aside"
    if kept or aside:
        yield f"{file.form}: rows that no source has: {[*kept, *aside]}"


def _wrong(row: Row, kept: dict[str, Any] | None, reason: str | None) -> str:
    """What is wrong with a row's outcome; '' if nothing is."""
    if row.wanted is None:
        if kept is None and reason:
            return ""
        return f"wanted to be set aside with a reason, came {kept or 'nothing'}"
    if kept is None:
        return f"wanted {row.wanted}, set aside: {reason}"
    values = {name: kept[name] for name in row.wanted}
    return "" if values == row.wanted else f"wanted {row.wanted}, came {values}"


def _name_splits(draw: random.Random, seed: int) -> Iterator[str]:
    named = {
        split: f"{draw.choice(('', 'reviews_', 'data/', 'my-'))}{draw.choice(names)}.csv"
        for split, names in NAMES.items()
    }
    files = draw.sample(sorted(named.values()), 3)
    splits = {source["split"]: source["url"] for source in data_sources(files, Path.cwd())}
    if splits != named:
        yield f"seed {seed}: {files} became {splits}"
