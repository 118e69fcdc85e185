from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import LABELS, make_tokenizer, tiny_rows

from tasks.core.errors import ParamsError, TrainingError
from tasks.core.files import read_json
from tasks.core.progress import silent
from tasks.core.seeds import seed_everything
from tasks.data.tables.loaded import SPLITS
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import TokensInfo, load_tokenizer
from tasks.evaluation import evaluate_checkpoint
from tasks.params.schema import BaseModelParams, EvaluateParams, parse
from tasks.problems import load_problem
from tasks.scoring.slices import MAX_VALUES, slice_rows

PROBLEM = load_problem("text-classification")
QUICK: dict[str, Any] = {"bootstrap_resamples": 100, "slices": ["domain"]}
OWN = {
    "rows": 30,
    "minimum_functionality": [
        {"name": "plain praise", "label": "positive", "texts": ["good and great", "a lovely day"]}
    ],
    "directional": [
        {"name": "adding praise", "append": " great", "label": "positive", "expect": "not_lower"}
    ],
}


def write_data(root: Path, rows: dict[str, dict[str, list[str]]]) -> None:
    """`splits` and `tokens` as the split and tokenize stages write them."""
    splits, tokens = root / "splits", root / "tokens"
    make_tokenizer(tokens / "tokenizer", max_length=32)
    tokenizer = load_tokenizer(tokens / "tokenizer", 32)
    splits.mkdir()
    for split, columns in rows.items():
        numbers = list(range(len(columns["text"])))
        pq.write_table(pa.table({"row": numbers, **columns}), splits / f"{split}.parquet")
        features = encode_rows(PROBLEM.encoding, tokenizer, columns, LABELS)
        table = pa.table({"row": numbers, **features})
        with (
            pa.OSFile(str(tokens / f"{split}.arrow"), "wb") as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)
    counts = {split: len(columns["text"]) for split, columns in rows.items()}
    TokensInfo(32, 0, counts, dict.fromkeys(counts, 0.0)).write(tokens)


def write_checkpoint(root: Path, base: Path, bias: Sequence[float] | None = None) -> None:
    """A model of random weights; a large `bias` makes it always predict the same label."""
    seed_everything(0)
    model = PROBLEM.objective.load_model(base, LABELS)
    if bias is not None:
        biases = model.get_parameter("classifier.bias").data
        biases[:] = biases.new_tensor(bias)
    model.save_pretrained(root / "checkpoint")


def evaluate(root: Path, **params: Any) -> Any:
    evaluate_checkpoint(
        root / "splits",
        root / "tokens",
        root / "checkpoint",
        root / "evaluation.json",
        problem=PROBLEM.name,
        labels=LABELS,
        out_of_scope=None,
        base_model=BaseModelParams(path="./unread"),
        evaluate=EvaluateParams.model_validate({**QUICK, **params}),
        seed=1,
        device="cpu",
        root=root,
        cache=root,
        report=silent,
    )
    return read_json(root / "evaluation.json")


@pytest.fixture(scope="module")
def workspace(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    counts = {"train": 90, "validation": 60, "test": 60}
    write_data(root, {split: tiny_rows(counts[split], i) for i, split in enumerate(SPLITS)})
    write_checkpoint(root, base_dir)
    return root


@pytest.fixture(scope="module")
def evaluation(workspace: Path) -> Any:
    return evaluate(workspace, behaviour=OWN)


def test_it_holds_everything(evaluation: Any) -> None:
    assert set(evaluation) == {
        "split", "rows", "metric", "confidence", "metrics", "validation_metrics", "temperature",
        "bias", "details", "calibrated", "slices", "validation_thresholds", "behaviour",
        "baseline", "answers", "notes", "calibration_notes", "errors",
    }  # fmt: skip
    assert evaluation["rows"] == 60
    assert set(evaluation["metrics"]) == set(PROBLEM.scoring.metric_signs)
    assert set(evaluation["validation_metrics"]) == set(PROBLEM.scoring.metric_signs)
    for interval in evaluation["metrics"].values():
        assert interval["low"] <= interval["value"] <= interval["high"]
    assert set(evaluation["calibrated"]) == {"log_loss", "ece", "details"}
    assert set(evaluation["calibrated"]["details"]) <= {"reliability"}
    json.dumps(evaluation, allow_nan=False)


def test_errors_are_rows_that_are_wrong_the_surest_first(evaluation: Any, workspace: Path) -> None:
    table = pq.read_table(workspace / "splits" / "test.parquet").to_pydict()
    labels = dict(zip(table["text"], table["label"], strict=True))
    domains = dict(zip(table["text"], table["domain"], strict=True))
    errors = evaluation["errors"]
    wrong = sum(row["rows"] for row in evaluation["details"]["confusions"])
    assert 0 < len(errors) <= wrong
    assert [error["confidence"] for error in errors] == sorted(
        (error["confidence"] for error in errors), reverse=True
    )
    for error in errors:
        [text] = error["texts"].values()
        assert error["actual"] == labels[text]
        assert error["predicted"].split()[0] != error["actual"]
        assert error["slices"] == {"domain": domains[text]}
    actual = [error["actual"] for error in errors]
    assert max(map(actual.count, actual)) <= 3


def test_a_model_of_random_weights_loses_against_the_baseline(evaluation: Any) -> None:
    baseline = evaluation["baseline"]
    assert baseline["metrics"]["accuracy"]["value"] > 0.8
    assert baseline["difference"]["metric"] == "macro_f1"
    assert baseline["difference"]["high"] < 0


def test_every_row_is_in_one_slice_of_each_column(evaluation: Any) -> None:
    columns = {part["column"] for part in evaluation["slices"]}
    assert columns == {"domain", "label", "length (tokens)"}
    for column in columns:
        assert sum(part["rows"] for part in evaluation["slices"] if part["column"] == column) == 60
    labels = [part for part in evaluation["slices"] if part["column"] == "label"]
    assert [part["value"] for part in labels] == list(LABELS)
    assert all(set(part["metrics"]) <= {"accuracy", "log_loss"} for part in labels)
    for part in evaluation["slices"]:
        assert part["judged"] == (part["rows"] >= 20) == bool(part["metrics"])


def test_behaviour_keeps_what_failed(evaluation: Any) -> None:
    tests = {test["name"]: test for test in evaluation["behaviour"]}
    kinds = {test["kind"] for test in tests.values()}
    assert kinds == {"invariance", "directional", "minimum-functionality"}
    assert tests["plain praise"]["rows"] == 2
    assert tests["adding praise"]["rows"] == 30
    for test in tests.values():
        assert test["pass_rate"] == pytest.approx(test["passed"] / test["rows"])
        assert len(test["examples"]) == min(5, test["rows"] - test["passed"])
        for example in test["examples"]:
            assert set(example["prediction_after"]) == {"label", "score"}
            if test["kind"] == "invariance":
                assert example["before"]["text"] != example["after"]["text"]
                assert example["prediction_before"]["label"] != example["prediction_after"]["label"]
    # the tokenizer lower-cases
    assert tests["upper case"]["pass_rate"] == 1


def test_it_is_the_same_twice_and_for_any_order_of_rows(
    workspace: Path, evaluation: Any, base_dir: Path, tmp_path: Path
) -> None:
    assert evaluate(workspace, behaviour=OWN) == evaluation
    files = {split: workspace / "splits" / f"{split}.parquet" for split in SPLITS}
    rows = {
        split: pq.read_table(file).drop_columns("row").to_pydict() for split, file in files.items()
    }
    order = np.random.default_rng(0).permutation(60)
    rows["test"] = {name: [values[i] for i in order] for name, values in rows["test"].items()}
    write_data(tmp_path, rows)
    write_checkpoint(tmp_path, base_dir)
    shuffled = evaluate(tmp_path, behaviour=OWN)
    for name, interval in evaluation["metrics"].items():
        assert shuffled["metrics"][name] == pytest.approx(interval, abs=1e-5)

    def slices(report: Any) -> list[tuple[Any, ...]]:
        return [(part["column"], part["value"], part["rows"]) for part in report["slices"]]

    def passed(report: Any) -> list[tuple[Any, ...]]:
        return [(test["name"], test["passed"]) for test in report["behaviour"]]

    assert slices(shuffled) == slices(evaluation)
    assert [error["texts"] for error in shuffled["errors"]] == [
        error["texts"] for error in evaluation["errors"]
    ]
    assert passed(shuffled) == passed(evaluation)


def test_a_model_that_always_says_the_same_is_invariant(
    workspace: Path, base_dir: Path, tmp_path: Path
) -> None:
    write_data(tmp_path, {split: tiny_rows(40, seed) for seed, split in enumerate(SPLITS)})
    write_checkpoint(tmp_path, base_dir, bias=[0, 0, 100])
    evaluation = evaluate(tmp_path, baseline=False, behaviour=OWN)
    assert {test["pass_rate"] for test in evaluation["behaviour"]} == {1.0}
    assert evaluation["baseline"] is None
    assert evaluation["metrics"]["mcc"] == {"value": 0, "low": 0, "high": 0}


def test_weights_that_are_not_numbers_stop_it(
    workspace: Path, base_dir: Path, tmp_path: Path
) -> None:
    write_data(tmp_path, {split: tiny_rows(20, seed) for seed, split in enumerate(SPLITS)})
    write_checkpoint(tmp_path, base_dir, bias=[0, 0, float("nan")])
    with pytest.raises(TrainingError, match="not finite"):
        evaluate(tmp_path)
    assert not (tmp_path / "evaluation.json").exists()


def test_unknown_slice_columns_are_all_named(workspace: Path) -> None:
    message = r"no column 'domian'. Did you mean 'domain'\? no column 'x'"
    with pytest.raises(ParamsError, match=message) as caught:
        evaluate(workspace, slices=["domian", "x"])
    assert "ingest.keep" in caught.value.remedy


def test_unknown_labels_of_behavioural_tests_are_all_named(workspace: Path) -> None:
    wrong = {
        "minimum_functionality": [{"name": "a", "label": "postive", "texts": ["x"]}],
        "directional": [{"name": "b", "append": " x", "label": "neutrl", "expect": "not_lower"}],
    }
    with pytest.raises(ParamsError) as caught:
        evaluate(workspace, behaviour=wrong)
    praise = "minimum_functionality.0.label: 'postive' is not a label. Did you mean 'positive'?"
    assert praise in caught.value.message
    assert "directional.0.label: 'neutrl'" in caught.value.message


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (
            {"minimum_functionality": [{"name": "a", "label": "b", "texts": []}]},
            "minimum_functionality.0.texts",
        ),
        (
            {"directional": [{"name": "a", "label": "b", "expect": "not_lower"}]},
            "give `append` or `prepend`",
        ),
        (
            {"directional": [{"name": "a", "label": "b", "append": "x", "expect": "up"}]},
            "not_lower",
        ),
        ({"colour": 1}, "evaluate.behaviour.colour: unknown key"),
    ],
)
def test_a_wrong_behaviour_section_says_where(behaviour: dict[str, Any], says: str) -> None:
    values = {
        "problem": "text-classification",
        "model_name": "m",
        "base_model": {"path": "./base"},
        "ingest": {"sources": [{"url": "a.csv"}]},
        "evaluate": {"behaviour": behaviour},
    }
    with pytest.raises(ParamsError, match="1 value is wrong") as caught:
        parse(values)
    assert says in caught.value.message


def test_slices_hold_missing_values_and_many_values() -> None:
    parts = slice_rows("source", ["a", None, "b", float("nan"), "a"])
    rows = {part.value: list(part.rows) for part in parts}
    assert list(rows.items()) == [("(none)", [1, 3]), ("a", [0, 4]), ("b", [2])]
    many = slice_rows("id", [f"{i:04}" for i in range(1000)])
    assert len(many) == MAX_VALUES + 1
    assert many[-1].value == "(800 other values)"
    assert sorted(np.concatenate([part.rows for part in many])) == list(range(1000))


def test_many_numbers_are_sliced_by_quartile() -> None:
    parts = slice_rows("rating", [i / 100 for i in range(100)])
    assert [(part.value, len(part.rows)) for part in parts] == [
        ("0 to 0.24", 25),
        ("0.25 to 0.49", 25),
        ("0.5 to 0.74", 25),
        ("0.75 to 0.99", 25),
    ]
    assert [part.value for part in slice_rows("stars", [5, 1, 5])] == ["1", "5"]
