"""The reject threshold: tuned on validation rows, kept in the bundle, and reported.

The report shows its precision-recall curve.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported import MAX_LENGTH, Exported
from scipy.special import expit, logit, softmax
from sklearn import metrics as sklearn_metrics
from tiny import LABELS, tiny_rows

from tasks.core.errors import ParamsError
from tasks.core.files import read_json
from tasks.core.progress import silent
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import load_tokenizer, read_features
from tasks.evaluation import evaluate_checkpoint
from tasks.inference.bundle import open_bundle
from tasks.inference.predictor import Predictor
from tasks.params.schema import BaseModelParams, EvaluateParams, VerifyParams, parse
from tasks.problems import load_problem
from tasks.reports.stage_reports import EvaluationReport
from tasks.scoring.thresholds import CURVE_POINTS, best_threshold, describe_threshold
from tasks.verification import verify_candidates

PROBLEM = load_problem("text-classification")
OUT = "neutral"


def rows_out_of_scope(rows: int, seed: int, shy: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of a model that says the third of three labels too seldom."""
    draw = np.random.default_rng(seed)
    references = draw.integers(0, 3, rows)
    outputs = draw.normal(size=(rows, 3)).astype(np.float32)
    outputs[np.arange(rows), references] += np.float32(2.5)
    outputs[:, 2] -= np.float32(shy)
    return outputs, references


def f1_of(outputs: np.ndarray, references: np.ndarray) -> float:
    return float(sklearn_metrics.f1_score(references == 2, outputs.argmax(-1) == 2))


@pytest.mark.parametrize("rows", [10, 200])
def test_no_other_threshold_has_a_better_f1(rows: int) -> None:
    draw = np.random.default_rng(rows)
    actual = draw.random(rows) < 0.3
    scores = np.round(draw.normal(size=rows) + 2 * actual, 1).astype(np.float64)
    found = best_threshold(scores, actual)
    assert found is not None
    others = [
        sklearn_metrics.f1_score(actual, scores > other) for other in np.linspace(-5, 5, 1001)
    ]
    assert sklearn_metrics.f1_score(actual, scores > found) == pytest.approx(max(others))


@pytest.mark.parametrize("actual", [[True, True], [False, False]])
def test_rows_of_one_kind_tune_nothing(actual: list[bool]) -> None:
    assert best_threshold(np.asarray([0.1, 0.2]), np.asarray(actual)) is None
    outputs = np.asarray([[1, 0, 0], [0, 1, 0]], np.float32)
    calibration = PROBLEM.scoring.fit_calibration(
        outputs, np.asarray([2, 2] if actual[0] else [0, 1]), list("abc"), "c"
    )
    assert calibration.bias == (0, 0, 0)


def test_the_tuned_threshold_makes_argmax_reject_better_on_other_rows() -> None:
    validation, held_out = rows_out_of_scope(600, seed=0), rows_out_of_scope(600, seed=1)
    calibration = PROBLEM.scoring.fit_calibration(*validation, list("abc"), "c")
    assert calibration.bias[:2] == (0, 0)
    assert calibration.bias[2] > 0
    assert f1_of(calibration.apply(held_out[0]), held_out[1]) > f1_of(*held_out) + 0.1
    assert (
        calibration.apply(held_out[0]).argmax(-1) == calibration.decide(held_out[0]).argmax(-1)
    ).all()


def test_without_an_out_of_scope_label_nothing_is_biased() -> None:
    outputs, references = rows_out_of_scope(100, seed=0)
    calibration = PROBLEM.scoring.fit_calibration(outputs, references, list("abc"), None)
    assert calibration.bias == ()
    assert (
        PROBLEM.scoring.threshold_details(outputs, references, list("abc"), calibration, None) == {}
    )


def test_the_curve_is_scikit_learn_s_and_the_point_is_what_argmax_does() -> None:
    outputs, references = rows_out_of_scope(900, seed=2)
    calibration = PROBLEM.scoring.fit_calibration(outputs, references, list("abc"), "c")
    found = PROBLEM.scoring.threshold_details(outputs, references, list("abc"), calibration, "c")[
        "out_of_scope"
    ]
    probabilities = softmax(outputs.astype(np.float64) / calibration.temperature, -1)
    against_best_other = probabilities[:, 2] / (probabilities[:, 2] + probabilities[:, :2].max(1))
    actual, said = references == 2, calibration.apply(outputs).argmax(-1) == 2
    assert found["label"] == "c"
    assert found["average_precision"] == pytest.approx(
        sklearn_metrics.average_precision_score(actual, against_best_other)
    )
    assert found["threshold"] == pytest.approx(expit(-calibration.bias[2]))
    assert (against_best_other > found["threshold"]).tolist() == said.tolist()
    assert found["precision"] == pytest.approx(sklearn_metrics.precision_score(actual, said))
    assert found["recall"] == pytest.approx(sklearn_metrics.recall_score(actual, said))
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(actual, said))
    assert 0.5 * CURVE_POINTS < len(found["curve"]) <= CURVE_POINTS
    for point in found["curve"][:: len(found["curve"]) // 7]:
        above = against_best_other >= point["threshold"] - 1e-9
        assert point["precision"] == pytest.approx(sklearn_metrics.precision_score(actual, above))
        assert point["recall"] == pytest.approx(sklearn_metrics.recall_score(actual, above))


def test_a_curve_of_few_rows_is_whole() -> None:
    scores, actual = np.asarray([-1.0, 0.0, 1.0]), np.asarray([False, True, True])
    found = describe_threshold(scores, actual, -0.5)
    assert found is not None
    assert [point["recall"] for point in found["curve"]] == [1.0, 1.0, 0.5]
    assert [logit(point["threshold"]) for point in found["curve"]] == pytest.approx(
        [-1.0, 0.0, 1.0]
    )
    assert (found["precision"], found["recall"], found["positives"]) == (1.0, 1.0, 2)


def test_an_out_of_scope_label_is_one_of_the_labels() -> None:
    values = {
        "problem": "text-classification", "model_name": "m", "labels": ["a", "b"],
        "out_of_scope": "oos", "base_model": {"path": "./base"},
        "ingest": {"sources": [{"url": "rows.csv"}]},
    }  # fmt: skip
    with pytest.raises(ParamsError, match="'oos', which is not one of `labels`"):
        parse(values)


def test_the_evaluation_holds_the_curve_of_validation_and_of_test(
    exported: Exported, tmp_path: Path
) -> None:
    (tmp_path / "splits").mkdir()
    for split in ("train", "test"):
        rows = tiny_rows(200, seed=4)
        pq.write_table(
            pa.table({"row": list(range(200)), **rows}), tmp_path / "splits" / f"{split}.parquet"
        )
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    for path in exported.tokens.iterdir():
        (tokens / path.name).symlink_to(path)
    (tokens / "test.arrow").unlink()
    features = encode_rows(
        PROBLEM.encoding,
        load_tokenizer(exported.tokens / "tokenizer", MAX_LENGTH),
        tiny_rows(200, seed=4),
        LABELS,
    )
    table = pa.table({"row": pa.array(range(200), pa.int64()), **features})
    with (
        pa.OSFile(str(tokens / "test.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)
    quick = EvaluateParams.model_validate({"bootstrap_resamples": 100, "behaviour": {"rows": 5}})
    evaluate_checkpoint(
        tmp_path / "splits", tokens, exported.checkpoint, tmp_path / "evaluation.json",
        problem=PROBLEM.name, labels=LABELS, out_of_scope=OUT,
        base_model=BaseModelParams(path="./unread"), evaluate=quick,
        seed=1, device="cpu", root=tmp_path, cache=tmp_path, report=silent,
    )  # fmt: skip
    evaluation = read_json(tmp_path / "evaluation.json")
    threshold = float(expit(-evaluation["bias"][LABELS.index(OUT)]))
    for found in (
        evaluation["validation_thresholds"]["out_of_scope"],
        evaluation["details"]["out_of_scope"],
    ):
        assert found["threshold"] == pytest.approx(threshold)
        assert found["f1"] > 0.9
        assert found["curve"]
    assert "Out-of-scope: precision and recall" in PROBLEM.figures(
        EvaluationReport.read(tmp_path / "evaluation.json")
    )


def test_the_shipped_bundle_rejects_by_the_threshold(exported: Exported, tmp_path: Path) -> None:
    verify_candidates(
        exported.tokens, exported.checkpoint, exported.candidates, tmp_path / "bundle",
        tmp_path / "report.json", tmp_path / "metrics.json", problem=PROBLEM.name, labels=LABELS,
        out_of_scope=OUT, verify=VerifyParams(timing_rows=16), seed=0, report=silent,
    )  # fmt: skip
    predictor = Predictor(open_bundle(tmp_path / "bundle"), PROBLEM)
    calibration = predictor.info.settings.calibration
    assert list(calibration.bias) == read_json(tmp_path / "report.json")["bias"]
    features = read_features(exported.tokens / "validation.arrow")
    outputs = predictor.outputs_of_features(features)
    calibrated = PROBLEM.scoring.fit_calibration(
        outputs, PROBLEM.encoding.references(features), LABELS, OUT
    )
    assert calibration.bias == pytest.approx(calibrated.bias)
    rows = tiny_rows(20, seed=9)
    said = [row["label"] for row in predictor.predict({"text": rows["text"]})]
    assert said == [LABELS[best] for best in calibration.apply(predictor.outputs(rows)).argmax(-1)]
    assert OUT in said
