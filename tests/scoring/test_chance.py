"""The chance level that a model must beat to become the first champion."""

from __future__ import annotations

import numpy as np
import pytest
from floor_simulation import LABELS, draw_rows, refusals

from tasks.problems import load_problem
from tasks.scoring.statistics.bootstrap import Resampling
from tasks.scoring.statistics.chance import deal, difference_to_chance, is_constant, only_answer
from tasks.scoring.statistics.paired import PairedDifference

CLASSES = load_problem("text-classification")
RESAMPLING = Resampling(300, seed=1)


def test_a_constant_model_is_known_whatever_its_probabilities() -> None:
    scoring, decoding, rows = CLASSES.scoring, CLASSES.decoding, {"text": [""] * 50}
    outputs = np.stack([np.zeros(50), np.linspace(0.1, 5, 50)], 1).astype(np.float32)
    assert is_constant(scoring, outputs)
    assert only_answer(scoring, decoding, outputs, rows, LABELS) == "'positive'"
    outputs[31] = [3, 0]
    assert not is_constant(scoring, outputs)
    assert only_answer(scoring, decoding, outputs, rows, LABELS) == ""


def test_one_answer_of_tags_of_scores_and_of_several_labels_is_known() -> None:
    tags = np.full((3, 4, 3), np.nan, np.float32)  # rows of 2, 4 and 3 words
    for row, length in enumerate((2, 4, 3)):
        tags[row, :length] = [5, 1, 0]
    entities = load_problem("token-classification").scoring
    assert is_constant(entities, tags)
    tags[1, 2] = [0, 5, 1]
    assert not is_constant(entities, tags)
    scores = load_problem("text-pair-score").scoring
    assert is_constant(scores, np.full((9, 1), 0.3, np.float32))
    assert not is_constant(scores, np.linspace(0, 1, 9, dtype=np.float32)[:, None])
    multi_label = load_problem("multi-label-classification").scoring
    assert is_constant(multi_label, np.tile(np.float32([3, -3]), (9, 1)))


def test_dealing_keeps_every_output_and_the_shape_of_ragged_rows() -> None:
    ragged = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    ragged[0, 2:] = np.nan
    dealt = deal(ragged, np.random.default_rng(0).permutation(10))
    assert (np.isnan(dealt) == np.isnan(ragged)).all()
    assert sorted(dealt[np.isfinite(dealt)]) == sorted(ragged[np.isfinite(ragged)])


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy", "mcc"])
def test_what_knows_nothing_is_not_above_chance_and_what_knows_is(metric: str) -> None:
    draw = np.random.default_rng(2)
    perfect, references = draw_rows(draw, 600)

    def above_chance(outputs: np.ndarray) -> PairedDifference:
        scoring = CLASSES.scoring
        return difference_to_chance(scoring, metric, outputs, references, LABELS, RESAMPLING)

    knows = above_chance(perfect)
    assert knows.difference.low > 0.05
    assert above_chance(deal(perfect, draw.permutation(600))).difference.low < 0.02
    constant = above_chance(np.tile(np.float32([1, 0]), (600, 1)))
    assert constant.difference.value == pytest.approx(0, abs=1e-9)
    # for "mcc" both references are at about 0
    if metric == "accuracy":
        assert knows.against == "the most frequent class"
    if metric == "macro_f1":
        assert knows.against == "its own answers shuffled across rows"


def test_the_first_champions_gates_refuse_what_is_useless_and_let_through_what_is_good() -> None:
    """Rates of docs/gates.md at 100 rows: constants and guesses fail, few good models do."""
    assert refusals("constant", 100, 20, seed=1)["refused"] == 1
    assert refusals("guess", 100, 20, seed=2)["refused"] == 1
    assert refusals("good", 100, 40, seed=3)["refused"] <= 0.2
