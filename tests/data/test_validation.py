"""Validation: quarantined rows, checks that stop the run, and that no row is lost."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import LABELS, tiny_rows

from tasks.core.errors import DataError, ParamsError
from tasks.core.files import read_json, read_jsonl
from tasks.core.progress import silent
from tasks.data.quality.row_account import Account
from tasks.params.schema import ValidateParams
from tasks.validation import validate_rows

COUNT = 90


def table(changes: Mapping[int, Mapping[str, Any]] | None = None, count: int = COUNT) -> pa.Table:
    """Good rows, some of them changed: row -> column -> value."""
    rows: dict[str, list[Any]] = {name: list(values) for name, values in tiny_rows(count).items()}
    for row, values in (changes or {}).items():
        for name, value in values.items():
            rows[name][row] = value
    columns = {name: pa.array(values, pa.string()) for name, values in rows.items()}
    origins = {
        "_file": pa.array(["reviews.csv"] * count),
        "_line": pa.array(range(2, count + 2), pa.int64()),
    }
    return pa.table({"row": pa.array(range(count), pa.int64())} | columns | origins)


class Run:
    """The outputs of one validation."""

    def __init__(
        self,
        root: Path,
        rows: pa.Table,
        labels: tuple[str, ...] = LABELS,
        row_group: int = 1_000_000,
        problem: str = "text-classification",
        account: Account | None = None,
        **values: Any,
    ) -> None:
        self.rows = rows
        self.valid, self.docs = root / "valid", root / "reports" / "data_docs"
        self.report_file = root / "reports" / "validation.json"
        raw = root / "raw"
        raw.mkdir(parents=True)
        pq.write_table(rows, raw / "rows.parquet", row_group_size=row_group)
        (account or Account(len(rows), len(rows))).write(raw)
        validate = ValidateParams.model_validate(values)
        outputs = (self.valid, self.report_file, self.docs)
        validate_rows(
            raw, *outputs, problem=problem, labels=labels, validate=validate, report=silent
        )
        self.aside: list[dict[str, Any]] = read_jsonl(self.valid / "quarantine.jsonl")
        self.page = (self.docs / "index.html").read_text(encoding="utf-8")

    @property
    def report(self) -> Any:
        return read_json(self.report_file)

    def check(self, name: str) -> Any:
        return next(check for check in self.report["checks"] if check["name"] == name)

    @property
    def kept(self) -> pa.Table:
        return pq.read_table(self.valid / "rows.parquet")


def test_good_rows_pass_untouched(tmp_path: Path) -> None:
    run = Run(tmp_path, table(), script="Latin")
    assert run.kept.equals(run.rows)
    assert run.aside == []
    assert all(check["success"] and check["unexpected"] == 0 for check in run.report["checks"])
    assert [check["name"] for check in run.report["checks"]] == [
        "rows", "duplicates", "null_text", "blank_text", "length", "control_characters",
        "encoding_damage", "personal_data", "script", "null_label", "unknown_label", "conflicts",
        "rows_per_class", "missing_class", "one_class", "label_variants", "class_share",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "values"),
    [
        ("null_text", {"text": None}),
        ("blank_text", {"text": ""}),
        ("blank_text", {"text": " \t\u200b\u3000\r\n"}),
        ("length", {"text": "too long " * 60}),
        ("control_characters", {"text": "a NUL \x00 in it"}),
        ("control_characters", {"text": "an escape \x1b in it"}),
        ("control_characters", {"text": "a C1 control \x92 in it"}),
        ("null_label", {"label": None}),
        ("null_label", {"label": "  "}),
    ],
)
def test_unfit_rows_are_set_aside_with_the_reason(
    check: str, values: dict[str, Any], tmp_path: Path
) -> None:
    run = Run(tmp_path, table({7: values}), max_length=500)
    [entry] = run.aside
    expected = {"row": 7, "file": "reviews.csv", "line": 9, "check": check}
    assert {name: entry[name] for name in expected} == expected
    assert entry["reason"]
    assert entry["values"].items() >= values.items()
    assert 7 not in run.kept["row"].to_pylist()
    assert run.check(check)["unexpected"] == 1
    assert run.check(check)["examples"][0]["line"] == 9


@pytest.mark.parametrize(
    ("check", "values"),
    [
        ("encoding_damage", {"text": "the soup was trÃ¨s good"}),
        ("encoding_damage", {"text": "a lost \ufffd character"}),
        ("script", {"text": "это совсем другой язык"}),
        ("personal_data", {"text": "write to jane.doe@example.org about the room"}),
        ("personal_data", {"text": "call +44 20 7946 0018 for a table"}),
        ("personal_data", {"text": "paid with 4111 1111 1111 1111"}),
    ],
)
def test_doubtful_rows_stay_with_a_warning(
    check: str, values: dict[str, Any], tmp_path: Path
) -> None:
    run = Run(tmp_path, table({7: values}), script="Latin")
    assert run.aside == []
    failed = [(c["name"], c["unexpected"]) for c in run.report["checks"] if not c["success"]]
    assert failed == [(check, 1)]


@pytest.mark.parametrize(
    "text",
    [
        "tab\tand\r\nlines",
        "emoji 🤦🏼‍♂️ ❤️",
        "שלום עולם",
        "naïve café – “quotes”",
        "x",
        "Ünïcöde ½ €5",
    ],
)
def test_odd_but_sound_texts_pass(text: str, tmp_path: Path) -> None:
    run = Run(tmp_path, table({3: {"text": text}}))
    assert all(check["success"] for check in run.report["checks"])


@pytest.mark.parametrize("seed", range(6))
def test_rows_in_are_rows_out_and_rows_set_aside(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    texts = [
        None, "", " ", "same text", "Same, TEXT!", "\x00", "y" * 900, "tel. (212) 566-8082",
        "Ã©tÃ©", "中文", "<b>bold</b>", "\ud7ff",
    ]  # fmt: skip
    labels = [None, "", *LABELS]
    spoiled = {
        row: {"text": draw.choice(texts), "label": draw.choice(labels)}
        for row in draw.sample(range(200), draw.randint(0, 120))
    }
    doubtful = ("duplicates", "conflicts", "script", "personal_data", "rows_per_class")
    actions = {name: draw.choice(["quarantine", "warn"]) for name in doubtful}
    unfit = ["null_text", "length", "control_characters", "null_label"]
    actions |= dict.fromkeys(draw.sample(unfit, 2), "warn")
    run = Run(tmp_path, table(spoiled, 200), script="Latin", max_length=500, actions=actions)
    kept, aside = run.kept["row"].to_pylist(), [entry["row"] for entry in run.aside]
    assert sorted(kept + aside) == list(range(200))
    assert run.kept.equals(run.rows.take(pa.array(kept)))
    counts = [run.report[key] for key in ("rows_in", "rows_out", "quarantined")]
    assert counts == [200, len(kept), len(aside)]
    by_row = {row["row"]: row for row in run.rows.to_pylist()}
    for entry in run.aside:
        row = by_row[entry["row"]]
        assert entry["values"] == {name: row[name] for name in ("text", "label", "domain")}


def test_copies_and_conflicts_are_counted_and_can_be_set_aside(tmp_path: Path) -> None:
    rows = table(
        {
            4: {"text": "A warm room.", "label": "positive"},
            5: {"text": "a WARM room", "label": "positive"},
            6: {"text": "á warm room!", "label": "negative"},
        }
    )
    run = Run(tmp_path / "warn", rows, max_duplicate_share=0.01, max_conflict_share=0.01)
    assert (run.check("duplicates")["unexpected"], run.check("conflicts")["unexpected"]) == (2, 3)
    assert not run.check("duplicates")["success"]
    assert run.check("duplicates")["examples"][0]["found"] == 4
    assert Run(tmp_path / "few", rows).check("duplicates")["success"]
    aside = Run(tmp_path / "aside", rows, actions={"duplicates": "quarantine"}).aside
    assert [entry["row"] for entry in aside] == [5, 6]


def test_every_failed_check_is_in_one_error_with_its_rows(tmp_path: Path) -> None:
    changes: dict[int, dict[str, Any]] = {
        10: {"label": "neutrl"},
        11: {"label": "neutrl"},
        40: {"label": "angry"},
        50: {"text": None},
    }
    with pytest.raises(DataError) as error:
        Run(tmp_path, table(changes), min_rows=500)
    message = error.value.message
    assert "unknown_label: 3 of 90 rows" in message
    assert "'neutrl' (reviews.csv line 12, reviews.csv line 13) Did you mean 'neutral'?" in message
    assert "'angry' (reviews.csv line 42)" in message
    assert "rows: there are fewer than 500 rows (validate.min_rows): 89" in message
    assert "the sources hold 90; 1 was set aside, 89 are left" in message
    assert "validate.actions" in error.value.remedy
    # the rows and the report are kept where the message says
    failed = read_jsonl(tmp_path / "valid" / "failed.jsonl")
    assert {entry["row"] for entry in failed} == {10, 11, 40}
    checks = read_json(tmp_path / "reports" / "validation.json")["checks"]
    assert not next(check for check in checks if check["name"] == "unknown_label")["success"]


def test_one_class_only_stops_the_run(tmp_path: Path) -> None:
    rows = table({row: {"label": "positive"} for row in range(COUNT)})
    one_class = "one_class: two classes or more are needed to tell apart: 1"
    missing = "missing_class: labels of params.yaml have no rows: 'negative', 'neutral'"
    with pytest.raises(DataError, match=one_class) as error:
        Run(tmp_path, rows)
    assert missing in error.value.message


def test_labels_that_differ_by_case_or_blanks_are_told(tmp_path: Path) -> None:
    labels = tiny_rows(COUNT)["label"]
    variants = [row for row, label in enumerate(labels) if label == "neutral" and row % 2]
    rows = table({row: {"label": "Neutral "} for row in variants})
    run = Run(tmp_path / "told", rows, (*LABELS, "Neutral "), min_rows_per_class=1)
    check = run.check("label_variants")
    assert (check["success"], check["action"]) == (False, "warn")
    assert check["unexpected"] == labels.count("neutral")
    assert Run(tmp_path / "none", table()).check("label_variants")["success"]


def test_a_rare_class_stops_the_run_and_a_common_one_warns(tmp_path: Path) -> None:
    labels = ["neutral"] * 3 + ["positive"] * 17 + ["negative"] * (COUNT - 20)
    rows = table({row: {"label": label} for row, label in enumerate(labels)})
    with pytest.raises(DataError, match="rows_per_class: 3 of 90 rows"):
        Run(tmp_path / "few", rows)
    run = Run(tmp_path / "warn", rows, min_rows_per_class=2, max_class_share=0.5)
    failed = [check["name"] for check in run.report["checks"] if not check["success"]]
    assert failed == ["class_share"]
    assert "0.7778" in run.check("class_share")["message"]


def test_when_every_row_is_set_aside_the_run_stops(tmp_path: Path) -> None:
    reason = r"90: the text has fewer than 5000 [^\n]*\(validate.min_length, max_length\)"
    with pytest.raises(DataError, match=rf"{reason}[^~]*no row is left: all 90 were set aside"):
        Run(tmp_path, table(), min_length=5000)


def expectation(name: str, **kwargs: str | float) -> dict[str, Any]:
    """`validate` with one expectation of a column."""
    entry: dict[str, Any] = {"type": f"expect_column_{name}"}
    return {"expectations": [entry | ({"kwargs": kwargs} if kwargs else {})]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"actions": {"duplicate": "warn"}}, "no check 'duplicate'. Did you mean 'duplicates'"),
        ({"actions": {"rows": "quarantine"}}, "rows concerns the table as a whole"),
        ({"script": "Latn"}, "no Unicode script is called 'Latn'. Did you mean 'Latin'"),
        (expectation("values_to_be_nul"), "Did you mean 'expect_column_values_to_be_null'"),
        (expectation("values_to_be_null", colum="text"), "Did you mean 'column'"),
        (expectation("values_to_be_null", column="txt"), "cannot be computed"),
        (expectation("values_to_be_null", column="text", mostly=7), "mostly"),
    ],
)
def test_wrong_params_are_named(values: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as error:
        Run(tmp_path, table(), **values)
    assert expected in error.value.message
    assert error.value.remedy


def test_without_labels_params_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="labels: empty"):
        Run(tmp_path, table(), labels=())


def test_expectations_of_the_users_own_are_judged(tmp_path: Path) -> None:
    own = [
        {
            "type": "expect_column_values_to_not_match_regex",
            "kwargs": {"column": "text", "regex": "(forbidden|secret)"},
            "action": "quarantine",
        },
        {
            "type": "expect_column_values_to_be_in_set",
            "kwargs": {"column": "domain", "value_set": ["films"]},
            "action": "warn",
        },
        {"type": "expect_table_column_count_to_equal", "kwargs": {"value": 99}, "action": "off"},
        {
            "type": "expect_column_mean_to_be_between",
            "kwargs": {"column": "text.characters", "max_value": 1},
            "action": "warn",
        },
    ]
    run = Run(tmp_path, table({8: {"text": "a forbidden word"}}), expectations=own)
    assert [entry["row"] for entry in run.aside] == [8]
    assert 0 < run.check("expectations.1")["unexpected"] < COUNT
    assert not run.check("expectations.3")["success"]
    assert run.check("expectations.3")["observed"] > 1


def test_actions_can_be_changed_and_checks_turned_off(tmp_path: Path) -> None:
    rows = table({7: {"text": "a NUL \x00"}, 8: {"label": "new"}})
    run = Run(tmp_path, rows, actions={"control_characters": "off", "unknown_label": "quarantine"})
    assert [entry["row"] for entry in run.aside] == [8]
    assert run.report["off"] == ["control_characters"]
    actions = {"control_characters": "error", "unknown_label": "warn"}
    with pytest.raises(DataError, match="control_characters: 1 of 90 rows"):
        Run(tmp_path / "error", rows, actions=actions)


def test_reports_are_the_same_every_time_and_show_no_personal_data(tmp_path: Path) -> None:
    spoiled = {
        3: {"text": "mail jane.doe@example.org or call (212) 566-8082 \x07"},
        4: {"text": "<script>alert(1)</script> \x00 &"},
        5: {"domain": "jane.doe@example.org"},
        6: {"label": "<script>x</script>"},
    }
    own = [
        {
            "type": "expect_column_values_to_not_match_regex",
            "kwargs": {"column": "text", "regex": "a"},
            "action": "warn",
        }
    ]
    actions = {"control_characters": "warn", "unknown_label": "warn"}
    runs = [
        Run(tmp_path / name, table(spoiled), expectations=own, actions=actions)
        for name in ("first", "second")
    ]
    assert runs[0].report_file.read_bytes() == runs[1].report_file.read_bytes()
    assert runs[0].page == runs[1].page
    for shown in (runs[0].page, runs[0].report_file.read_text(encoding="utf-8")):
        assert "jane.doe" not in shown
        assert "566-8082" not in shown
        assert not any(ord(c) < 32 and c not in "\n\r\t" for c in shown)
    assert "<script" not in runs[0].page
    assert "&lt;script" in runs[0].page
    assert 'src="http' not in runs[0].page
    assert "<link" not in runs[0].page


def test_the_profile_counts_the_rows_that_stay(tmp_path: Path) -> None:
    run = Run(tmp_path, table({7: {"text": None}, 8: {"domain": None}}))
    profile = run.report["profile"]
    assert profile["rows"] == COUNT - 1
    assert sum(profile["labels"].values()) == COUNT - 1
    assert profile["files"] == {"reviews.csv": COUNT - 1}
    assert sum(profile["lengths"]["text"]["counts"]) == COUNT - 1
    assert len(profile["lengths"]["text"]["edges"]) == len(profile["lengths"]["text"]["counts"]) + 1
    assert profile["columns"]["domain"]["nulls"] == 1


def test_a_megabyte_of_text_is_set_aside_quickly(tmp_path: Path) -> None:
    texts = [
        "a" * 1_000_000 + " call 212 566 8082",
        "1 " * 500_000,
        "x@" * 500_000,
        "é" * 1_000_000,
    ]
    run = Run(tmp_path, table({i: {"text": text} for i, text in enumerate(texts)}))
    assert [entry["row"] for entry in run.aside] == [0, 1, 2, 3]


def test_the_stage_needs_no_environment_and_says_nothing(tmp_path: Path) -> None:
    """In a process without our settings: nothing on the terminal, no analytics configured."""
    (tmp_path / "raw").mkdir()
    pq.write_table(table(), tmp_path / "raw" / "rows.parquet")
    Account(COUNT, COUNT).write(tmp_path / "raw")
    code = f"""\
import sys
from pathlib import Path
from tasks.core.progress import silent
from tasks.params.schema import ValidateParams
from tasks.validation import validate_rows

root = Path(sys.argv[1])
validate_rows(
    root / "raw", root / "valid", root / "v.json", root / "docs",
    problem="text-classification", labels={LABELS!r}, validate=ValidateParams(), report=silent,
)
heavy = ("torch", "transformers", "mlflow", "prefect")
print(sorted(name for name in sys.modules if name in heavy))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={"PATH": "", "HOME": str(tmp_path)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))["rows_out"] == COUNT
