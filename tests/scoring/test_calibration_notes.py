"""Notes on temperature scaling: a temperature at its bound, or one that raises held-out loss."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.inference.calibration import Calibration
from tasks.problems import load_problem
from tasks.scoring.calibration_notes import calibration_notes
from tasks.scoring.classes import log_loss
from tasks.scoring.label_sets import binary_log_loss

CLASSES = load_problem("text-classification")
LABELS = ("a", "b")
RIGHT = np.asarray([[2.0, 0.0], [0.0, 2.0]] * 20, np.float32)  # predicts class 0, 1, 0, 1, ...
REFERENCES = np.asarray([0, 1] * 20)


def fitted(outputs: np.ndarray, references: np.ndarray) -> Calibration:
    return CLASSES.scoring.fit_calibration(outputs, references, LABELS, None)


def test_a_model_that_is_always_right_on_validation_ends_at_the_lower_bound() -> None:
    outputs, references = np.tile(RIGHT, (100, 1)), np.tile(REFERENCES, 100)
    calibration = fitted(outputs, references)
    assert calibration.temperature == pytest.approx(0.25, rel=1e-3)
    assert calibration_notes(CLASSES.scoring, outputs, references, calibration) == [
        "The temperature ended at its bound 0.25: "
        "the validation rows are predicted too well for it to be estimated."
    ]


def test_a_model_that_is_surely_wrong_on_validation_ends_at_the_upper_bound() -> None:
    calibration = fitted(10 * RIGHT, 1 - REFERENCES)
    assert calibration.temperature == pytest.approx(20, rel=1e-3)
    assert calibration_notes(CLASSES.scoring, 10 * RIGHT, 1 - REFERENCES, calibration) == [
        "The temperature ended at its bound 20: "
        "the validation rows are predicted too badly for it to be estimated."
    ]


def test_a_temperature_that_raises_the_loss_of_the_test_rows_is_told_with_both_losses() -> None:
    """Fitted on rows that are all right, used on rows of which one in five is wrong."""
    references = np.where(np.arange(40) % 5 == 0, 1 - REFERENCES, REFERENCES)
    calibration = Calibration(0.5)
    before, after = log_loss(RIGHT, references), log_loss(RIGHT / np.float32(0.5), references)
    assert after > before + 0.1
    assert calibration_notes(CLASSES.scoring, RIGHT, references, calibration) == [
        "Temperature scaling (temperature 0.5) raises the held-out log loss "
        f"from {before:.4f} to {after:.4f} on test."
    ]


def test_a_temperature_that_helps_and_none_at_all_are_not_worth_a_note() -> None:
    references = np.where(np.arange(40) % 5 == 0, 1 - REFERENCES, REFERENCES)
    calibration = fitted(3 * RIGHT, references)
    assert 0.25 < calibration.temperature < 20
    assert calibration_notes(CLASSES.scoring, 3 * RIGHT, references, calibration) == []
    assert calibration_notes(CLASSES.scoring, RIGHT, 1 - REFERENCES, Calibration()) == []


def test_a_bias_is_no_part_of_what_the_temperature_did() -> None:
    """Thresholds change decisions on purpose, and the likelihood of the labels with them."""
    references = np.where(np.arange(40) % 5 == 0, 1 - REFERENCES, REFERENCES)
    biased = Calibration(fitted(3 * RIGHT, references).temperature, (5.0, -5.0))
    assert calibration_notes(CLASSES.scoring, 3 * RIGHT, references, biased) == []


def test_several_labels_a_row_are_judged_by_the_loss_of_each_decision() -> None:
    problem = load_problem("multi-label-classification")
    outputs = np.asarray([[1.0, -1.0]] * 4, np.float32)
    references = np.asarray([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    before, after = binary_log_loss(outputs, references), binary_log_loss(outputs * 2, references)
    (note,) = calibration_notes(problem.scoring, outputs, references, Calibration(0.5))
    assert f"from {before:.4f} to {after:.4f} on test" in note


def test_tags_are_judged_word_by_word() -> None:
    problem = load_problem("token-classification")
    outputs, references = np.asarray([[[2.0, 0.0], [2.0, 0.0]]], np.float32), np.asarray([[0, 1]])
    words, tags = outputs[0], references[0]
    before, after = log_loss(words, tags), log_loss(words * 2, tags)
    (note,) = calibration_notes(problem.scoring, outputs, references, Calibration(0.5))
    assert f"from {before:.4f} to {after:.4f} on test" in note
