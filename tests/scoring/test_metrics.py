from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn import metrics as sklearn_metrics
from tiny import LABELS, tiny_rows

from tasks.problems import load_problem
from tasks.scoring.behaviour import (
    AlteredRows,
    change_contractions,
    change_full_stop,
    invariance_rows,
    swap_letters,
    swap_names,
)
from tasks.scoring.classes import (
    classification_details,
    classification_metrics,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    resampled_classification_metrics,
)
from tasks.scoring.statistics.bootstrap import Resampling, difference_interval, metric_intervals
from tasks.scoring.statistics.draws import Draws
from tasks.scoring.statistics.rates import rate_interval
from tasks.scoring.tfidf_baseline import tfidf_logistic_regression

PROBLEM = load_problem("text-classification")


def random_outputs(
    rows: int, classes: int, seed: int, signal: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    references = draw.integers(0, classes, rows)
    outputs = draw.normal(size=(rows, classes)).astype(np.float32)
    outputs[np.arange(rows), references] += np.float32(signal)
    return outputs, references


def names(classes: int) -> list[str]:
    return [f"label {i}" for i in range(classes)]


@pytest.mark.parametrize(("rows", "classes"), [(500, 2), (400, 3), (60, 40)])
def test_metrics_agree_with_scikit_learn(rows: int, classes: int) -> None:
    outputs, references = random_outputs(rows, classes, seed=rows)
    metrics, predicted = classification_metrics(outputs, references), outputs.argmax(-1)
    probabilities = softmax(outputs.astype(np.float64), -1)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(references, predicted),
        "macro_f1": sklearn_metrics.f1_score(
            references, predicted, average="macro", zero_division=0
        ),
        "mcc": sklearn_metrics.matthews_corrcoef(references, predicted),
        "log_loss": sklearn_metrics.log_loss(references, probabilities, labels=range(classes)),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(("rows", "classes"), [(500, 2), (400, 3), (60, 40), (5, 3)])
def test_resampled_metrics_are_the_metrics_of_each_resample(rows: int, classes: int) -> None:
    outputs, references = random_outputs(rows, classes, seed=1)
    draws = np.random.default_rng(0).integers(0, rows, (20, rows))
    weights = np.stack([np.bincount(drawn, minlength=rows) for drawn in draws]).astype(np.float64)
    resampled = resampled_classification_metrics(outputs, references)(Draws(weights))
    for number, drawn in enumerate(draws):
        expected = classification_metrics(outputs[drawn], references[drawn])
        metrics = {name: values[number] for name, values in resampled.items()}
        assert metrics == pytest.approx(expected, abs=1e-12)


def test_resampled_metrics_are_the_metrics_of_the_drawn_rows() -> None:
    outputs, references = random_outputs(50, 3, seed=1)
    weights = np.random.default_rng(0).multinomial(50, np.full(50, 1 / 50), 10).astype(np.float64)
    drawn = [np.repeat(np.arange(50), counts) for counts in weights.astype(int)]
    metrics = [PROBLEM.scoring.metrics(outputs[rows], references[rows], LABELS) for rows in drawn]
    slow = {name: [values[name] for values in metrics] for name in metrics[0]}
    fast = PROBLEM.scoring.resampled_metrics(outputs, references, LABELS)(Draws(weights))
    assert set(slow) == set(fast) == set(PROBLEM.scoring.metric_signs)
    for name, values in slow.items():
        np.testing.assert_allclose(values, fast[name], atol=1e-12)


def outputs_of(confidences: list[float]) -> np.ndarray:
    """Two-class outputs that predict class 0 with these probabilities."""
    return np.log([[p, 1 - p] for p in confidences]).astype(np.float32)


def test_calibration_error_is_zero_where_confidence_is_accuracy() -> None:
    # 7 of 10 rows at 0.7 and 9 of 10 rows at 0.9 are right
    outputs = outputs_of([0.7] * 10 + [0.9] * 10)
    references = np.array([0] * 7 + [1] * 3 + [0] * 9 + [1])
    assert expected_calibration_error(outputs, references) == pytest.approx(0, abs=1e-6)


def test_calibration_error_of_a_case_by_hand() -> None:
    # bins: 0.9 twice, half right -> gap 0.4; 0.7 once, right -> gap 0.3; (2 * 0.4 + 1 * 0.3) / 3
    error = expected_calibration_error(outputs_of([0.9, 0.9, 0.7]), np.array([0, 1, 0]))
    assert error == pytest.approx(1.1 / 3, abs=1e-6)


def test_a_calibrated_model_has_little_calibration_error() -> None:
    draw = np.random.default_rng(0)
    outputs = (2 * draw.normal(size=(20_000, 3))).astype(np.float32)
    probabilities = softmax(outputs.astype(np.float64), -1)
    references = (probabilities.cumsum(-1) < draw.random((20_000, 1))).sum(-1).clip(max=2)
    assert expected_calibration_error(outputs, references) < 0.015
    assert fit_temperature(outputs, references) == pytest.approx(1, abs=0.03)
    assert fit_temperature(3 * outputs, references) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_temperature_scaling_keeps_labels_and_never_raises_the_loss(seed: int) -> None:
    outputs, references = random_outputs(200, 3, seed, signal=float(seed))
    temperature = fit_temperature(outputs, references)
    scaled = outputs / np.float32(temperature)
    assert (scaled.argmax(-1) == outputs.argmax(-1)).all()
    assert log_loss(scaled, references) <= log_loss(outputs, references) + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_a_temperature_is_the_likeliest_a_priori_near_one(seed: int) -> None:
    outputs, references = random_outputs(20, 3, seed, signal=2.0)
    exponents = np.linspace(np.log(0.25), np.log(20), 4001)
    losses = np.array([20 * log_loss(outputs / np.exp(e), references) for e in exponents])
    likeliest = exponents[(losses + exponents**2 / (2 * 0.5**2)).argmin()]
    assert np.log(fit_temperature(outputs, references)) == pytest.approx(likeliest, abs=2e-3)


def test_the_fewer_rows_the_nearer_a_temperature_is_to_one() -> None:
    outputs, references = random_outputs(10, 3, 1, signal=2.0)
    exponents = [
        abs(np.log(fit_temperature(np.tile(5 * outputs, (times, 1)), np.tile(references, times))))
        for times in (1, 10, 100)
    ]
    assert 0 < exponents[0] < exponents[1] < exponents[2]
    right = np.eye(2, dtype=np.float32)[:1] * 2  # a single row, predicted right
    assert 0.8 < fit_temperature(right, np.array([0])) < 1


def test_a_perfect_model_gets_a_temperature_too() -> None:
    references = np.array([0, 1, 2, 0])
    outputs = (20 * np.eye(3)[references]).astype(np.float32)
    assert 0 < fit_temperature(outputs, references) < np.inf


def test_shuffled_labels_score_at_chance() -> None:
    outputs, references = random_outputs(6000, 3, seed=0)
    metrics = classification_metrics(outputs, np.random.default_rng(1).permutation(references))
    assert metrics["accuracy"] == pytest.approx(1 / 3, abs=0.03)
    assert metrics["mcc"] == pytest.approx(0, abs=0.04)


def test_intervals_are_the_same_for_a_seed_and_for_any_order_of_rows() -> None:
    outputs, references = random_outputs(300, 3, seed=0)

    def intervals_of(outputs: np.ndarray, references: np.ndarray, seed: int = 3) -> Any:
        resampling = Resampling(200, 0.95, seed=seed)
        return metric_intervals(PROBLEM.scoring, outputs, references, LABELS, resampling)

    intervals = intervals_of(outputs, references)
    order = np.random.default_rng(0).permutation(300)
    assert intervals_of(outputs, references) == intervals
    assert intervals_of(outputs[order], references[order]) == intervals
    assert intervals_of(outputs, references, seed=4) != intervals
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in intervals.values())


def test_an_interval_holds_the_true_value_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(150):
        draw = np.random.default_rng(seed)
        right = draw.random(200) < 0.8
        references = np.zeros(200, np.int64)
        outputs = np.where(right[:, None], [[1.0, 0.0]], [[0.0, 1.0]]).astype(np.float32)
        resampling = Resampling(300, 0.95, seed)
        intervals = metric_intervals(PROBLEM.scoring, outputs, references, LABELS[:2], resampling)
        held += intervals["accuracy"]["low"] <= 0.8 <= intervals["accuracy"]["high"]
    assert 0.88 <= held / 150 <= 0.995


def test_a_difference_is_zero_against_itself_and_paired_against_others() -> None:
    outputs, references = random_outputs(400, 3, seed=0)
    scoring, resampling = PROBLEM.scoring, Resampling(300, 0.95, 0)
    same = difference_interval(scoring, (outputs, outputs), references, LABELS, resampling)
    assert same == {"value": 0, "low": 0, "high": 0}
    worse = outputs.copy()
    worse[:40] = -worse[:40]
    paired = difference_interval(scoring, (outputs, worse), references, LABELS, resampling)
    assert 0 < paired["low"] < paired["value"] < paired["high"]
    # pairing removes the variance that both models share
    alone = metric_intervals(scoring, outputs, references, LABELS, resampling)["macro_f1"]
    assert paired["high"] - paired["low"] < alone["high"] - alone["low"]


def test_one_row_shows_nothing() -> None:
    outputs, references = random_outputs(1, 3, seed=0)
    resampling = Resampling(100, 0.95, 0)
    intervals = metric_intervals(PROBLEM.scoring, outputs, references, LABELS, resampling)
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in intervals.values())
    assert intervals["accuracy"]["high"] - intervals["accuracy"]["low"] == pytest.approx(0.975)


@pytest.mark.parametrize("rows", [26, 98, 2000])
def test_rows_without_an_error_do_not_prove_perfection(rows: int) -> None:
    """The exact interval of a share; a calibration error is no larger than such errors explain."""
    references = np.arange(rows) % 3
    outputs = np.full((rows, 3), 0, np.float32)
    outputs[np.arange(rows), references] = 2.5  # says 0.86
    for made, right in ((references, True), ((references + 1) % 3, False)):
        intervals = metric_intervals(PROBLEM.scoring, outputs, made, LABELS, Resampling(200))
        exact = rate_interval(1.0 if right else 0.0, rows)
        for name in ("accuracy", "macro_f1"):
            found = intervals[name]
            assert (found["low"], found["high"]) == pytest.approx(exact)
    intervals = metric_intervals(PROBLEM.scoring, outputs, references, LABELS, Resampling(200))
    found, unseen = intervals["ece"], 1 - rate_interval(1.0, rows)[0]
    assert found["low"] == pytest.approx(max(0, found["value"] - unseen), abs=1e-6)
    assert (found["low"] < 0.1) == (rows == 26)  # few rows do not show that 0.14 is above 0.1


def test_details_add_up() -> None:
    outputs, references = random_outputs(300, 5, seed=0)
    details = classification_details(outputs, references, names(5))
    confusion = np.asarray(details["confusion"])
    assert confusion.sum() == sum(entry["support"] for entry in details["per_class"]) == 300
    assert sum(entry["rows"] for entry in details["reliability"]) == 300
    wrong = 300 - np.trace(confusion)
    assert sum(entry["rows"] for entry in details["confusions"]) == wrong
    assert details["confusions"] == sorted(details["confusions"], key=lambda entry: -entry["rows"])


def test_the_baseline_learns_words_and_characters() -> None:
    rows, held_out = tiny_rows(300, seed=1), tiny_rows(100, seed=2)
    references = [LABELS.index(label) for label in rows["label"]]
    expected = [LABELS.index(label) for label in held_out["label"]]
    for separator in (" ", ""):
        texts = [text.replace(" ", separator) for text in rows["text"]]
        held_out_texts = [text.replace(" ", separator) for text in held_out["text"]]
        outputs = tfidf_logistic_regression(texts, references, held_out_texts, 3, seed=0)
        assert outputs is not None
        assert (outputs.argmax(-1) == expected).mean() > 0.9
        np.testing.assert_allclose(log_softmax(outputs, -1), outputs, atol=1e-4)


def test_the_baseline_does_without_a_label_it_never_saw() -> None:
    texts, references = ["good", "bad", "good", "bad"], [0, 2, 0, 2]
    outputs = tfidf_logistic_regression(texts, references, ["good", ":-)"], 3, seed=0)
    assert outputs is not None
    assert outputs.argmax(-1)[0] == 0
    assert np.isfinite(outputs).all()
    assert (outputs[:, 1] < -40).all()
    assert tfidf_logistic_regression(["good", "fine"], [0, 0], ["good"], 3, seed=0) is None


def test_changes_are_small_and_the_same_every_time() -> None:
    draw = random.Random(0)
    text = "Mary did not like the film, but Paul did."
    assert sorted(swap_letters(text, draw)) == sorted(text) != list(text)
    swapped = swap_names(text, draw)
    assert "Mary" not in swapped
    assert "Paul" not in swapped
    assert swapped.endswith(" did.")
    assert change_contractions(text, draw) == "Mary didn't like the film, but Paul did."
    assert change_contractions("I’m sure it CAN'T", draw) == "I am sure it CANNOT"
    assert change_full_stop("It was. ", draw) == "It was"
    assert change_full_stop("Wait...", draw) == "Wait..."
    for unchanged in ("a bc def", "我们很高兴认识你", ""):
        assert swap_letters(unchanged, draw) == unchanged


def test_altered_rows_rest_on_the_rows_alone() -> None:
    texts = [*tiny_rows(60)["text"], "Anna likes it", "Zork likes it", "Bork likes it"]

    def alter(texts: list[str]) -> list[AlteredRows]:
        return invariance_rows({"text": texts}, ["text"], ["Zork", "Bork", "Gork"], 20, seed=1)

    alterations = alter(texts)
    assert alter(texts[::-1] + texts[:5]) == alterations
    for altered in alterations:
        assert 0 < len(altered.before["text"]) <= 20
        pairs = zip(altered.before["text"], altered.after["text"], strict=True)
        assert all(before != after for before, after in pairs)
    other_names = next(altered for altered in alterations if altered.name == "other names")
    assert len(other_names.before["text"]) == 3


def test_a_text_that_many_rows_share_is_altered_in_each_of_them() -> None:
    questions = ["Does somebody like it?", "Is it broken already?"] * 30
    rows = {"text_a": tiny_rows(60)["text"], "text_b": questions}
    alterations = invariance_rows(rows, ["text_a", "text_b"], [], 40, seed=0)
    typos = next(altered for altered in alterations if altered.name == "one typo (text_b)")
    assert len(typos.before["text_b"]) == 40
    assert len(set(typos.after["text_b"])) > 10
    assert typos.before["text_a"] == typos.after["text_a"]
