"""Multi-label classification: metrics, thresholds, and lists of labels in the data stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import expit
from sklearn import metrics as sklearn_metrics
from tiny import tiny_rows

from tasks.core.errors import DataError
from tasks.core.files import read_json, read_jsonl
from tasks.core.progress import silent
from tasks.inference.calibration import Calibration
from tasks.ingestion import read_sources
from tasks.params.ingestion import IngestParams
from tasks.params.schema import EvaluateParams, ValidateParams
from tasks.problems import load_problem
from tasks.scoring.label_sets import (
    PRIOR,
    binary_log_loss,
    multi_label_metrics,
    resampled_multi_label_metrics,
    tune_thresholds,
)
from tasks.scoring.statistics.draws import Draws
from tasks.splitting import split_rows
from tasks.training.networks.architecture import untrained_parameters
from tasks.validation import validate_rows

NAME = "multi-label-classification"
PROBLEM = load_problem(NAME)


def random_rows(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    references = (draw.random((rows, classes)) < draw.uniform(0.05, 0.5, classes)).astype(
        np.float32
    )
    outputs = (draw.normal(size=(rows, classes)) + 2 * references - 1).astype(np.float32)
    return np.round(outputs, 1), references  # rounded: some are equal


@pytest.mark.parametrize(("rows", "classes"), [(400, 5), (30, 20), (3, 2)])
def test_metrics_agree_with_scikit_learn(rows: int, classes: int) -> None:
    outputs, references = random_rows(rows, classes, seed=rows)
    found, given, actual = multi_label_metrics(outputs, references), outputs > 0, references > 0.5
    occur, positive = np.flatnonzero((given | actual).any(0)), np.flatnonzero(actual.any(0))
    assert found["micro_f1"] == pytest.approx(
        sklearn_metrics.f1_score(actual, given, average="micro", zero_division=0)
    )
    assert found["macro_f1"] == pytest.approx(
        sklearn_metrics.f1_score(actual, given, average="macro", labels=occur, zero_division=0)
    )
    assert found["subset_accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(actual, given))
    assert found["hamming_loss"] == pytest.approx(sklearn_metrics.hamming_loss(actual, given))
    mean = sklearn_metrics.average_precision_score(
        actual[:, positive], outputs[:, positive], average="macro"
    )
    assert found["mean_average_precision"] == pytest.approx(mean)


def test_resampled_metrics_are_the_metrics_of_each_resample() -> None:
    outputs, references = random_rows(40, 6, seed=1)
    draws = np.random.default_rng(0).integers(0, 40, (20, 40))
    weights = np.stack([np.bincount(drawn, minlength=40) for drawn in draws]).astype(np.float64)
    found = resampled_multi_label_metrics(outputs, references)(Draws(weights))
    for number, drawn in enumerate(draws):
        alone = multi_label_metrics(outputs[drawn], references[drawn])
        assert {name: values[number] for name, values in found.items()} == pytest.approx(
            alone, abs=1e-12
        )


def test_rows_without_any_label_have_metrics_too() -> None:
    nothing = np.zeros((4, 3), np.float32)
    assert multi_label_metrics(nothing - 1, nothing) == {
        "mean_average_precision": 0, "macro_f1": 0, "micro_f1": 0, "subset_accuracy": 1,
        "hamming_loss": 0,
    }  # fmt: skip


def test_tuned_thresholds_raise_macro_f1_where_a_label_is_shy() -> None:
    outputs, references = random_rows(600, 4, seed=3)
    outputs -= np.asarray(
        [3.0, 1.0, 0.0, -2.0], np.float32
    )  # as labels are that a model is too sure or too unsure of
    tuned = outputs + np.asarray(tune_thresholds(outputs, references), np.float32)
    assert (
        multi_label_metrics(tuned, references)["macro_f1"]
        > multi_label_metrics(outputs, references)["macro_f1"] + 0.1
    )


def test_a_label_with_few_rows_takes_its_threshold_from_all_labels() -> None:
    outputs, references = random_rows(300, 4, seed=4)
    references[:, 2] = 0
    without = tune_thresholds(outputs, references)
    references[7, 2], outputs[7, 2] = 1, 9
    with_one = tune_thresholds(outputs, references)
    assert abs(with_one[2] - without[2]) < abs(without[2] - -9) / (PRIOR + 1) + 0.2
    assert without[2] == pytest.approx(
        tune_thresholds(outputs.reshape(-1, 1), np.where(references == 1, 1, 0).reshape(-1, 1))[0],
        abs=0.5,
    )


def test_no_label_at_all_leaves_the_thresholds_at_a_half() -> None:
    nothing = np.zeros((5, 3), np.float32)
    assert tune_thresholds(nothing, nothing) == (0, 0, 0)


def test_calibration_decides_by_thresholds_and_shows_probabilities_without_them() -> None:
    labels = ["a", "b"]
    calibration = Calibration(2.0, (1.5, -1.5))
    (found,) = PROBLEM.decoding.decode(
        np.asarray([[-1.0, 1.0]], np.float32), {}, labels, calibration
    )
    assert found["labels"] == ["a"]
    assert found["scores"] == pytest.approx({"a": expit(-0.5), "b": expit(0.5)})
    assert PROBLEM.decoding.describe(found) == f"a {expit(-0.5):.3f}"
    assert PROBLEM.decoding.predicted_labels(found) == ["a"]
    details = PROBLEM.scoring.threshold_details(
        np.asarray([[-1.0, 1.0]], np.float32), np.asarray([[1.0, 0.0]]), labels, calibration, None
    )
    assert [entry["threshold"] for entry in details["per_label"]] == pytest.approx(
        [expit(-1.5), expit(1.5)]
    )
    assert [entry["f1"] for entry in details["per_label"]] == [1.0, 0.0]


def test_the_fitted_temperature_lowers_the_loss_and_thresholds_the_f1s_of_validation() -> None:
    outputs, references = random_rows(500, 5, seed=5)
    calibration = PROBLEM.scoring.fit_calibration(outputs * 6, references, list("abcde"), None)
    assert calibration.temperature > 2
    before, after = (
        binary_log_loss(outputs * 6, references),
        binary_log_loss(outputs * 6 / calibration.temperature, references),
    )
    assert after < before
    assert (calibration.decide(outputs * 6) > 0).tolist() == (
        calibration.apply(outputs * 6) > 0
    ).tolist()


@pytest.mark.parametrize("weights", [None, np.asarray([1, 3, 0.5], np.float32)])
def test_a_new_head_starts_from_how_frequent_labels_are(base_dir: Path, weights: Any) -> None:
    """There no constant lowers the loss any more; a head that the base model has is left alone."""
    references = np.asarray([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]] * 50, np.float32)
    train = pa.table({"references": references.tolist()})
    model = PROBLEM.objective.load_model(base_dir, ("a", "b", "c"))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    PROBLEM.objective.start_head(untrained_parameters(model, base_dir), train, weights)
    changed = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    (bias,) = changed.values()
    settled = bias.detach().clone()
    logits = bias.detach().repeat(len(references), 1).requires_grad_(True)
    class_weights = None if weights is None else torch.from_numpy(weights)
    PROBLEM.objective.losses["default"](
        logits, torch.from_numpy(references), label_smoothing=0, class_weights=class_weights
    ).backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.sum(0).numpy(), 0, atol=5e-3)
    PROBLEM.objective.start_head({}, train, weights)
    assert torch.equal(bias, settled)


def test_what_a_model_never_learnt_it_never_gives() -> None:
    found = PROBLEM.scoring.align_labels(
        np.asarray([[5.0, -5.0]], np.float32), ["b", "c"], ["a", "b", "c"]
    )
    assert (found > 0).tolist() == [[False, True, False]]
    assert found[0, 0] < -10


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled(count: int = 60) -> list[dict[str, Any]]:
    texts = tiny_rows(count)["text"]
    return [
        {"text": text, "labels": [["a"], ["a", "b"], []][row % 3]} for row, text in enumerate(texts)
    ]


def ingest(root: Path, source: Path) -> Path:
    params = IngestParams.model_validate({"sources": [{"url": str(source)}]})
    read_sources(
        root / "raw", problem=NAME, ingest=params, root=root, cache=root / "cache", report=silent
    )
    return root / "raw"


def validate(root: Path, raw: Path, labels: tuple[str, ...] = ("a", "b"), **values: Any) -> Path:
    validate_rows(
        raw, root / "valid", root / "validation.json", root / "docs",
        problem=NAME, labels=labels, validate=ValidateParams.model_validate(values), report=silent,
    )  # fmt: skip
    return root / "valid"


def test_lists_may_be_written_as_texts(tmp_path: Path) -> None:
    cells = ["a|b", " a | b ", '"[""a"", ""b""]"', "a", "", "[]", "[a"]
    (tmp_path / "rows.csv").write_text(
        "text,labels\n" + "".join(f"text {i},{cell}\n" for i, cell in enumerate(cells)),
        encoding="utf-8",
    )
    raw = ingest(tmp_path, tmp_path / "rows.csv")
    assert pq.read_table(raw / "rows.parquet")["labels"].to_pylist() == [
        ["a", "b"],
        ["a", "b"],
        ["a", "b"],
        ["a"],
        [],
        [],
    ]
    [aside] = read_jsonl(raw / "quarantine.jsonl")
    assert (aside["line"], aside["reason"]) == (8, "labels: not a list: [a")


def test_rows_may_have_no_label_but_must_have_a_list(tmp_path: Path) -> None:
    rows = labelled()
    rows[4]["labels"] = None
    valid = validate(tmp_path, ingest(tmp_path, jsonl(tmp_path / "rows.jsonl", rows)))
    assert len(pq.read_table(valid / "rows.parquet")) == 59
    assert [entry["check"] for entry in read_jsonl(valid / "quarantine.jsonl")] == ["null_label"]


def test_unknown_labels_stop_the_run_and_are_named(tmp_path: Path) -> None:
    rows = labelled()
    rows[4]["labels"] = ["a", "bb"]
    raw = ingest(tmp_path, jsonl(tmp_path / "rows.jsonl", rows))
    with pytest.raises(
        DataError,
        match=r"unknown_label: 1 of 60 rows .*: 'bb' \(rows.jsonl line 5\) Did you mean 'b'",
    ):
        validate(tmp_path, raw)


def test_a_class_with_no_row_is_an_error_that_names_it(tmp_path: Path) -> None:
    raw = ingest(tmp_path, jsonl(tmp_path / "rows.jsonl", labelled()))
    with pytest.raises(
        DataError, match=r"missing_class: labels of params.yaml have no rows: 'c', 'd'"
    ):
        validate(tmp_path, raw, labels=("a", "b", "c", "d"))


def test_rare_labels_and_conflicts_are_counted_label_by_label(tmp_path: Path) -> None:
    rows = [
        *labelled(),
        {"text": "one good film", "labels": ["c", "a"]},
        {"text": "One good film", "labels": ["a"]},
    ]
    raw = ingest(tmp_path, jsonl(tmp_path / "rows.jsonl", rows))
    valid = validate(tmp_path, raw, labels=("a", "b", "c"), actions={"rows_per_class": "warn"})
    checks = {check["name"]: check for check in read_json(tmp_path / "validation.json")["checks"]}
    assert checks["rows_per_class"]["unexpected"] == 1
    assert checks["conflicts"]["unexpected"] == 2
    assert len(pq.read_table(valid / "rows.parquet")) == 62


def test_splits_count_each_label(tmp_path: Path) -> None:
    from tasks.params.schema import SplitParams

    valid = validate(tmp_path, ingest(tmp_path, jsonl(tmp_path / "rows.jsonl", labelled(120))))
    split = SplitParams(validation=0.3, test=0.3, near_duplicate_similarity=1)
    split_rows(
        valid, tmp_path / "splits", problem=NAME, labels=("a", "b"), split=split, report=silent
    )
    assert {
        label: found["all"]["rows"]
        for label, found in read_json(tmp_path / "splits" / "split.json")["classes"].items()
    } == {
        "a": 80, "b": 40,
    }  # fmt: skip


def test_a_text_stays_what_it_was_if_half_of_its_labels_do() -> None:
    rows: dict[str, list[Any]] = {"text": ["Where is my card now?"], "labels": [["a", "b"]]}
    test = PROBLEM.scoring.behaviour_tests(rows, ("a", "b", "c"), EvaluateParams(), seed=0)[0]
    before = np.asarray(
        [[1, 1, -1], [1, 1, -1], [1, 1, -1], [-1, -1, -1], [-1, -1, -1]], np.float32
    )
    after = np.asarray([[1, 1, -1], [1, -1, -1], [1, -1, 1], [-1, -1, -1], [1, -1, -1]], np.float32)
    assert test.passes(after, before).tolist() == [True, True, False, True, False]
