from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_reports import CHECK
from tiny import LABELS

from tasks.core.files import write_json
from tasks.core.progress import silent
from tasks.data.quality.row_account import Account, Loss
from tasks.data.tables.loaded import SPLITS
from tasks.encoding.token_files import TokensInfo
from tasks.problems import load_problem
from tasks.reporting import write_report
from tasks.reports.plots import (
    RecipePoint,
    confusion_figure,
    recipes_figure,
    slices_figure,
    to_svg,
)
from tasks.reports.stage_reports import Interval, SliceReport
from tasks.scoring.statistics.bootstrap import Resampling, metric_intervals

PROBLEM = load_problem("text-classification")
EVIL = '<script>alert("x")</script> <img src="https://example.org/x.png"> $math$ & "quotes" 很好'
LOSSES = (
    Loss("ingest", "3 fields, the header has 2", 120, ("a.csv line 4", EVIL)),
    Loss("validate", EVIL, 10),
    Loss("split", "alike", 2),
)


def findings(labels: tuple[str, ...] = LABELS) -> dict[str, Any]:
    """Small but complete reports of the earlier stages."""
    draw = np.random.default_rng(0)
    references = draw.integers(0, len(labels), 400)
    outputs = draw.normal(size=(400, len(labels))).astype(np.float32)
    outputs[np.arange(400), references] += 2
    resampling = Resampling(100, 0.95, 0)
    metrics = metric_intervals(PROBLEM.scoring, outputs, references, labels, resampling)
    details = PROBLEM.scoring.details(outputs, references, labels)
    scaled = PROBLEM.scoring.details(outputs / np.float32(0.5), references, labels)
    return {
        "validation": validation_report(),
        "split": split_report(labels),
        "training": training_report(metrics),
        "evaluation": evaluation_report(labels, metrics, details, scaled["reliability"]),
        "verification": verification_report(metrics),
    }


def validation_report() -> dict[str, Any]:
    check = {"name": "blank_text", "action": "quarantine", "success": False, "message": EVIL}
    domain = {"distinct": 2, "nulls": 0, "top": {EVIL: 3, "b": 2}}
    return {
        "rows_in": 510,
        "rows_out": 500,
        "quarantined": 10,
        "off": [],
        "checks": [CHECK | check | {"judged": 510, "unexpected": 10}],
        "profile": {"rows": 500, "columns": {"domain": domain}},
    }


def split_report(labels: tuple[str, ...]) -> dict[str, Any]:
    counts = {label: {"rows": 7 + i, "share": 0.1} for i, label in enumerate(labels)}
    return {
        "quarantined": 2,
        "warnings": [EVIL],
        "splits": {name: {"rows": 100, "share": 1 / 3, "asked": None} for name in SPLITS},
        "classes": {label: {"all": count} for label, count in counts.items()},
    }


def training_report(metrics: dict[str, Interval]) -> dict[str, Any]:
    values = {name: interval["value"] for name, interval in metrics.items()}
    return {
        "curve": [
            {"step": step, "epoch": step / 10, "loss": 1 / step, "learning_rate": 1e-4}
            for step in range(1, 11)
        ],
        "evaluations": [{"step": 10, "epoch": 1.0, **values}],
        "best_step": 10,
        "stopped_early": False,
        "steps": 10,
        "total_steps": 10,
        "accumulation": 1,
        "out_of_memory": [],
        "device": "cpu",
        "base_sha256": "",
        "base_files": {},
        "start": None,
        "method": "full",
        "seconds": 1.0,
        "seconds_per_epoch": None,
        "peak_memory_mb": None,
        "parameters": 1000,
        "trained_parameters": 900,
    }


def evaluation_report(
    labels: tuple[str, ...], metrics: dict[str, Any], details: Any, reliability: Any
) -> dict[str, Any]:
    example = {
        "before": {"text": EVIL},
        "after": {"text": EVIL.upper()},
        "prediction_before": {"label": labels[0]},
        "prediction_after": {"label": EVIL},
    }
    test = {"name": EVIL, "kind": "invariance", "rows": 10, "passed": 9, "pass_rate": 0.9}
    accuracy = {"accuracy": metrics["accuracy"]}
    gain = {"metric": "macro_f1", "value": 0.1, "low": 0.05, "high": 0.15}
    return {
        "split": "test",
        "metric": "macro_f1",
        "validation_metrics": {},
        "bias": [],
        "validation_thresholds": {},
        "rows": 400,
        "confidence": 0.95,
        "metrics": metrics,
        "temperature": 0.5,
        "details": details,
        "calibration_notes": ["The temperature ended at its bound", EVIL],
        "errors": [
            {
                "texts": {"text": f"misread {EVIL}"},
                "actual": EVIL,
                "predicted": labels[0],
                "confidence": 0.9,
                "slices": {"domain": EVIL},
                "file": "reviews.csv",
                "line": 41,
            }
        ],
        "calibrated": {
            "log_loss": {"before": 0.5, "after": 0.4},
            "details": {"reliability": reliability},
        },
        "slices": [
            {"column": column, "value": value, "rows": rows, "judged": rows > 10, "metrics": shown}
            for column, value, rows, shown in [
                ("domain", EVIL, 390, metrics),
                ("domain", "small", 10, {}),
                ("label", labels[0], 90, accuracy),
            ]
        ],
        "behaviour": [{**test, "one_answer": False, "examples": [example]}],
        "notes": ["98 test rows: intervals are wide."],
        "baseline": {"name": "plain", "metrics": metrics, "difference": gain},
        "answers": {
            "rows": 1,
            "max_new_tokens": 8,
            "metrics": {"before": {"chrf": 10.5}, "after": {"chrf": 20.5}},
            "prompts": [{"prompt": EVIL, "before": EVIL, "after": EVIL}],
            "examples": [],
        },
    }


def verification_report(metrics: dict[str, Any]) -> dict[str, Any]:
    speed = {"latency_ms_p50": 4.0, "latency_ms_p95": 5.0, "throughput": 180.0}
    measured = {
        "metric": 0.7,
        "metric_loss": 0.001,
        "agreement": 0.99,
        "max_probability_difference": 0.1,
        "size_bytes": 23e6,
        "speedup": {"value": 1.7, "low": 1.5, "high": 1.9},
        **speed,
    }
    unmeasured = dict.fromkeys(measured)
    later = {"recipe": "later", "verdict": "not examined", "reason": "int8 comes first"}
    return {
        "checkpoint": {"metric": 0.701, "size_bytes": 91e6, **speed},
        "metric": "macro_f1",
        "shipped": "int8",
        "reason": "int8 is accurate enough.",
        "notes": [EVIL, "slower than fp32"],
        "test_metrics": metrics,
        "temperature": 1.0,
        "bias": [],
        "rows": {},
        "threads": 1,
        "candidates": [
            {"recipe": "int8", "verdict": "ships", "reason": "accurate enough", **measured},
            {"recipe": "broken", "verdict": "failed", "reason": EVIL, **unmeasured},
            {**later, **unmeasured},
        ],
    }


def write_page(root: Path, reports: dict[str, Any], labels: tuple[str, ...] = LABELS) -> str:
    """Write the reports and the page; return the page."""
    root.mkdir(exist_ok=True)
    splits, tokens, page = root / "splits", root / "tokens", root / "report.html"
    for name in ("validation", "training", "evaluation", "verification"):
        write_json(root / f"{name}.json", reports[name])
    write_json(splits / "split.json", reports["split"])
    Account(630, 630, LOSSES, Loss("ingest", "mended words", 7), "too many").write(splits)
    TokensInfo(16, 0, {"train": 3}, {"train": 0.1}).write(tokens)
    table = pa.table({"input_ids": pa.array([[1, 2], [1] * 16, [3]], pa.list_(pa.int32()))})
    with (
        pa.OSFile(str(tokens / "train.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)
    write_report(
        root / "validation.json",
        splits,
        tokens,
        root / "training.json",
        root / "evaluation.json",
        root / "verification.json",
        page,
        problem=PROBLEM.name,
        labels=labels,
        model_name="reviews",
        report=silent,
    )
    return page.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Tags, links, alternative texts and unclosed elements of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.alts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("div", "figure", "table", "details", "p", "ul", "section", "svg"):
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.links.append(value or "")
            if name == "aria-label" and ("role", "img") in attributes:
                self.alts.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("div", "figure", "table", "details", "p", "ul", "section", "svg"):
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(tmp_path_factory.mktemp("report"), findings())


def test_the_page_shows_the_errors_to_read(text: str) -> None:
    assert "Errors to read" in text
    assert "misread " in text
    assert "reviews.csv:41" in text


def test_the_page_loads_nothing_from_elsewhere(text: str) -> None:
    page = Page(text)
    assert page.links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert {"script", "link", "iframe", "img", "object"}.isdisjoint(page.tags)
    assert not re.search(r"url\((?!#|&quot;#|\"#)", text)
    assert "@import" not in text


def test_texts_stay_texts(text: str) -> None:
    assert "<script" not in text.lower()
    assert "&lt;script&gt;" in text
    assert "$math$" in text
    assert Page(text).open == []


def test_every_plot_says_in_words_what_it_shows(text: str) -> None:
    page = Page(text)
    assert page.tags.count("svg") == len(page.alts) == page.tags.count("figure") == 8
    assert all(len(alt) > 20 for alt in page.alts)


def test_it_shows_what_shipped_with_its_intervals(text: str) -> None:
    macro_f1 = findings()["verification"]["test_metrics"]["macro_f1"]
    assert f"{macro_f1['value']:.3f} ({macro_f1['low']:.3f}–{macro_f1['high']:.3f})" in text
    for part in (
        "int8 is accurate enough.",
        "slower than fp32",
        "ended at its bound",
        "later: int8 comes first",
        "few rows",
        "+0.100",
        "quarantine",
        "90.0%",
        "23.0 MB",
        "cut at 16",
    ):
        assert part in text


def test_it_counts_rows_from_what_the_sources_held(text: str) -> None:
    for part in (
        "<b>630</b>",
        "<b>132</b>",
        "<b>498</b>",
        "3 fields, the header has 2",
        "a.csv line 4",
        "mended words",
        "too many",
    ):
        assert part in text


def test_the_same_findings_make_the_same_bytes(text: str, tmp_path: Path) -> None:
    assert write_page(tmp_path / "again", findings()) == text


def test_parts_that_may_be_absent_may_be_absent(tmp_path: Path) -> None:
    reports = findings()
    reports["evaluation"] |= {"baseline": None, "slices": [], "behaviour": [], "answers": None}
    reports["training"] |= {"curve": [], "evaluations": []}
    reports["validation"] |= {"checks": [], "profile": {"columns": {}}}
    del reports["split"]["classes"]
    page = Page(write_page(tmp_path / "sparse", reports))
    assert page.tags.count("svg") == 4
    assert page.open == []


def test_parts_that_must_be_there_must_be_there(tmp_path: Path) -> None:
    reports = findings()
    del reports["verification"]["shipped"]
    with pytest.raises(LookupError, match="shipped"):
        write_page(tmp_path / "wrong", reports)


def test_many_labels_fit(tmp_path: Path) -> None:
    labels = tuple(f"label {i} {EVIL}" for i in range(151))
    text = write_page(tmp_path / "many", findings(labels), labels)
    assert len(text) < 1_000_000
    assert "<script" not in text.lower()


@pytest.mark.parametrize("count", [2, 3, 12, 13, 40, 41])
def test_a_confusion_matrix_of_any_size_can_be_drawn(count: int) -> None:
    confusion = np.random.default_rng(0).integers(0, 9, (count, count))
    svg = to_svg(confusion_figure(confusion, [f"l{i}" for i in range(count)]))
    assert svg.startswith("<svg")
    assert "http" not in svg
    assert ("l1<" in svg) == (count <= 40)
    assert "currentColor" in svg


def test_slices_beyond_the_room_show_the_lowest() -> None:
    parts = [
        SliceReport(
            column="column",
            value=f"v{i:02}",
            rows=9,
            metrics={"accuracy": {"value": i / 99, "low": 0, "high": 1}},
            judged=True,
        )
        for i in range(90)
    ]
    svg = to_svg(slices_figure("column", parts, "accuracy", None))
    assert "lowest 25 of 90" in svg
    assert "v24 " in svg
    assert "v25 " not in svg


def test_one_recipe_alone_can_be_drawn() -> None:
    point = RecipePoint("fp32", 0.5, 3.0, 1_000_000, ships=True)
    assert "fp32, 1 MB (ships)" in to_svg(recipes_figure([point], "macro_f1"))
