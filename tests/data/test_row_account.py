"""Rows set aside: each is counted and reported with its reason; too many of them stop the run."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny import LABELS, tiny_rows

from tasks.core.errors import DataError
from tasks.core.files import read_json, read_jsonl
from tasks.core.progress import silent
from tasks.data.quality.row_account import Account, Loss, Losses
from tasks.data.tables.mending import mend_text
from tasks.ingestion import ingest_sources
from tasks.params.ingestion import IngestParams
from tasks.params.schema import SplitParams, ValidateParams, set_value
from tasks.splitting import split_rows
from tasks.validation import validate_rows

PROBLEM = "text-classification"
# each string is one record; an unclosed quote affects only its own line
ODD = {
    "read": [
        'a "quoted" room,positive', '"a room, a view",negative', "a caf\u00e9,neutral",
        "it\x92s fine,positive",
    ],
    "unread": [
        "a room, a view,positive", "no label at all", '"never closed,positive', '"a"b,negative',
    ],
    "unfit": [
        ",positive", "   ,negative", "a bell \x07,neutral", "no label,", "a \x81 room,positive",
        "donâ\x80\x99t,neutral",
    ],
}  # fmt: skip


def prepare(root: Path, names: list[str], *, splits: tuple[str, ...] = (), **values: Any) -> None:
    """Ingest, validate and split the files."""
    sources: list[dict[str, str]] = [{"url": name} for name in names]
    if splits:
        for source, split in zip(sources, splits, strict=True):
            source["split"] = split
    ingest(root, root / "raw", sources, **values)
    finish(root)


def ingest(root: Path, raw: Path, sources: list[dict[str, str]], **values: Any) -> None:
    params = IngestParams.model_validate({"sources": sources} | values)
    cache = root / "cache"
    ingest_sources(raw, problem=PROBLEM, ingest=params, root=root, cache=cache, report=silent)


def finish(
    root: Path, validate: ValidateParams | None = None, split: SplitParams | None = None
) -> None:
    """Validate and split the ingested rows."""
    validate, split = validate or ValidateParams(), split or SplitParams()
    raw, valid, splits = root / "raw", root / "valid", root / "splits"
    common: dict[str, Any] = {"problem": PROBLEM, "labels": LABELS, "report": silent}
    validate_rows(raw, valid, root / "validation.json", root / "docs", validate=validate, **common)
    split_rows(valid, splits, split=split, **common)


def write(path: Path, records: list[str]) -> None:
    path.write_text("\n".join(["text,label", *records, ""]), encoding="utf-8")


def good(count: int, seed: int = 0) -> list[str]:
    rows = tiny_rows(count, seed=seed)
    return [f"{text},{label}" for text, label in zip(rows["text"], rows["label"], strict=True)]


@pytest.mark.parametrize(
    ("seed", "splits"), [(0, ()), (1, ()), (2, ("train", "validation", "test"))]
)
def test_rows_held_are_rows_used_and_rows_set_aside(
    seed: int, splits: tuple[str, ...], tmp_path: Path
) -> None:
    draw = random.Random(seed)
    counts = dict.fromkeys(ODD, 0)
    names, held = [f"{i}.csv" for i in range(len(splits) or draw.randint(1, 3))], 0
    for i, name in enumerate(names):
        records = good(120, seed=10 * seed + i)
        for _ in range(draw.randint(0, 30)):
            outcome = draw.choice([*ODD])
            counts[outcome] += 1
            records.insert(draw.randint(0, len(records)), draw.choice(ODD[outcome]))
        write(tmp_path / name, records)
        held += len(records)
    prepare(tmp_path, names, splits=splits, max_quarantined_share=1)
    account = Account.read(tmp_path / "splits").plain()
    stages = {"raw": "ingest", "valid": "validate", "splits": "split"}
    aside = {name: read_jsonl(tmp_path / name / "quarantine.jsonl") for name in stages}
    files = [tmp_path / "splits" / f"{name}.parquet" for name in ("train", "validation", "test")]
    used = sum(len(pq.read_table(file)) for file in files)
    assert (account["records"], account["held"], account["used"]) == (held, held, used)
    assert account["set_aside"] == sum(map(len, aside.values())) == held - used
    assert (len(aside["raw"]), len(aside["valid"])) == (counts["unread"], counts["unfit"])
    for directory, stage in stages.items():
        lost = sum(loss["rows"] for loss in account["losses"] if loss["stage"] == stage)
        assert lost == len(aside[directory])
    reported = read_json(tmp_path / "validation.json")["account"]
    assert Account.of(reported) == Account.read(tmp_path / "valid")


def test_nothing_lost_is_told_as_nothing_lost(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", good(120))
    write(tmp_path / "b.csv", [])
    prepare(tmp_path, ["a.csv", "b.csv"])
    assert Account.read(tmp_path / "valid") == Account(120, 120)
    assert Account(120, 120).lines() == ["Rows: the sources hold 120; none was set aside."]


def test_too_many_losses_stop_the_run_and_its_remedy_lets_it_pass(tmp_path: Path) -> None:
    records = good(280)
    for i in range(120):
        records.insert(2 * i + 1, "a room, a view,positive")
    write(tmp_path / "reviews.csv", records)
    with pytest.raises(DataError) as stopped:
        prepare(tmp_path, ["reviews.csv"])
    assert stopped.value.message.splitlines() == [
        "ingest: too many records cannot be read.",
        "Rows: the sources hold 400; 120 were set aside, 280 are left:",
        "  120: 3 fields, the header has 2"
        " (reviews.csv line 3, reviews.csv line 5, reviews.csv line 7, ...)",
        "  120 of 400 records are 30.00%; ingest.max_quarantined_share allows 1.00%",
    ]
    # kept for inspection
    assert len(read_jsonl(tmp_path / "raw" / "quarantine.jsonl")) == 120
    values: dict[str, Any] = {"ingest": {}}
    command = re.search("`ratchet train -S (.*)`", stopped.value.remedy)
    assert command
    set_value(values, command[1])
    prepare(tmp_path, ["reviews.csv"], **values["ingest"])
    assert read_json(tmp_path / "validation.json")["account"]["held"] == 400


@pytest.mark.parametrize(("bad", "stops"), [(2, False), (3, True)])
def test_the_limit_itself_is_allowed(bad: int, stops: bool, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", good(200 - bad) + ["one field"] * bad)
    sources = [{"url": "a.csv"}]
    if stops:
        with pytest.raises(DataError, match=r"3 of 200 records are 1\.50%"):
            ingest(tmp_path, tmp_path / "raw", sources)
    else:
        ingest(tmp_path, tmp_path / "raw", sources)
    ingest(tmp_path, tmp_path / "warned", sources, on_too_many="warn")
    assert bool(Account.read(tmp_path / "warned").warning) == stops


def test_a_query_is_told_apart_from_losses(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [*good(150), "one field"])
    query = "SELECT text, label, _file, _line FROM data WHERE _line <= 101"
    prepare(tmp_path, ["a.csv"], query=query)
    account = Account.read(tmp_path / "valid")
    assert (account.records, account.held, account.set_aside, account.used) == (151, 101, 1, 100)
    line = "Rows: ingest.query turns 151 records into 101; 1 was set aside, 100 are left:"
    assert account.lines()[0] == line


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("it\x92s \x93fine\x94 \x96 really\x85", "it\u2019s \u201cfine\u201d \u2013 really\u2026"),
        ("\x80 20 for a caf\u00e9", "\u20ac 20 for a caf\u00e9"),
        ("\u4e2d\u6587 and it\x92s", "\u4e2d\u6587 and it\u2019s"),
        ("a \x81 has no meaning, so \x92 may have none", None),
        ("don\u00e2\x80\x99t: UTF-8", None),  # three bytes of one character
        ("a \u00c3\x96 may be two letters or one", None),
        ("plain caf\u00e9", None),
        ("a bell \x07", None),
    ],
)
def test_windows_1252_is_mended_where_that_is_certain(text: str, mended: str | None) -> None:
    assert mend_text(text) == (mended or text)


def test_mended_rows_are_used_and_counted_in_every_format(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [*good(100), "it\x92s fine,positive"])
    record = json.dumps({"text": "fine \x96 or not", "label": "negative"})
    (tmp_path / "b.jsonl").write_text(record + "\n", encoding="utf-8")
    (tmp_path / "c.csv").write_bytes("text,label\nso it went\x85,neutral\n".encode("latin-1"))
    sources = [{"url": "a.csv"}, {"url": "b.jsonl"}, {"url": "c.csv", "encoding": "latin-1"}]
    ingest(tmp_path, tmp_path / "raw", sources)
    texts = pq.read_table(tmp_path / "raw" / "rows.parquet")["text"].to_pylist()
    assert texts[100:] == ["it\u2019s fine", "fine \u2013 or not", "so it went\u2026"]
    account = Account.read(tmp_path / "raw")
    assert account.mended
    assert (account.held, account.set_aside, account.mended.rows) == (103, 0, 3)
    assert account.mended.places == ("a.csv line 102", "b.jsonl line 1", "c.csv line 2")
    assert account.lines()[1].startswith("  mended 3: ")


def test_a_failing_check_comes_after_what_was_set_aside(tmp_path: Path) -> None:
    kept = [record for record in good(200) if not record.endswith("neutral")]
    write(tmp_path / "a.csv", [*kept, *(f"a \x07 {i},neutral" for i in range(90)), "one field"])
    with pytest.raises(DataError) as failed:
        prepare(tmp_path, ["a.csv"])
    message = failed.value.message
    line = len(kept) + 2
    parts = [
        f"Rows: the sources hold {len(kept) + 91}; 91 were set aside, {len(kept)} are left:",
        f"  1: 1 fields, the header has 2 (a.csv line {line + 90})",
        "  90: the text has control characters"
        f" (a.csv line {line}, a.csv line {line + 1}, a.csv line {line + 2}, ...)",
        "missing_class",
    ]
    offsets = [message.index(part) for part in parts]
    assert offsets == sorted(offsets)


def test_a_split_without_rows_comes_after_what_was_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", good(60) + ["a bell \x07,neutral"] * 9)
    ingest(tmp_path, tmp_path / "raw", [{"url": "a.csv"}])
    with pytest.raises(DataError) as failed:
        finish(tmp_path, ValidateParams(min_rows_per_class=1), SplitParams(test=0.0))
    first, reason, *_, last = failed.value.message.splitlines()
    assert first.startswith("Rows: the sources hold 69; ")
    assert reason.startswith("  9: the text has control characters")
    assert last.startswith("no rows for test: ")


def test_reasons_of_one_kind_are_told_together() -> None:
    losses = Losses("ingest")
    byte = "byte 0xe9 at character {} is not of the file's encoding"
    quote = "text follows the closing quote of a field: '{}'"
    reasons = [(line, (byte if line < 6 else quote).format(line)) for line in range(1, 8)]
    entries = [{"reason": reason, "file": "a.csv", "line": line} for line, reason in reasons]
    assert list(losses.watch(entries)) == entries
    bytes_in = ("a.csv line 1", "a.csv line 2", "a.csv line 3")
    quotes_in = ("a.csv line 6", "a.csv line 7")
    assert losses.found() == [
        Loss("ingest", "byte 0xe9 is not of the file's encoding", 5, bytes_in),
        Loss("ingest", "text follows the closing quote of a field", 2, quotes_in),
    ]
