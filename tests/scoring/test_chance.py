"""What a model must beat before it may be the first champion."""

from __future__ import annotations

import numpy as np
import pytest
from floor_simulation import LABELS, draw_rows, refusals

from tasks.problems import load_problem
from tasks.scoring.statistics.bootstrap import Resampling
from tasks.scoring.statistics.chance import (
    deal,
    difference_to_chance,
    is_constant,
    only_answer,
)

CLASSES = load_problem("text-classification")
RESAMPLING = Resampling(300, seed=1)


def test_a_constant_model_is_known_whatever_its_probabilities() -> None:
    sure = np.stack([np.zeros(50), np.linspace(0.1, 5, 50)], 1).astype(np.float32)
    assert is_constant(CLASSES.scoring, sure)
    assert (
        only_answer(CLASSES.scoring, CLASSES.decoding, sure, {"text": [""] * 50}, LABELS)
        == "'positive'"
    )
    sure[31] = [3, 0]
    assert not is_constant(CLASSES.scoring, sure)
    assert only_answer(CLASSES.scoring, CLASSES.decoding, sure, {"text": [""] * 50}, LABELS) == ""


def test_one_answer_of_tags_of_scores_and_of_several_labels_is_known() -> None:
    tags = np.full((3, 4, 3), np.nan, np.float32)  # rows of 2, 4 and 3 words
    for row, length in enumerate((2, 4, 3)):
        tags[row, :length] = [5, 1, 0]
    entities = load_problem("token-classification").scoring
    assert is_constant(entities, tags)
    tags[1, 2] = [0, 5, 1]
    assert not is_constant(entities, tags)
    assert is_constant(load_problem("text-pair-score").scoring, np.full((9, 1), 0.3, np.float32))
    assert not is_constant(
        load_problem("text-pair-score").scoring, np.linspace(0, 1, 9, dtype=np.float32)[:, None]
    )
    assert is_constant(
        load_problem("multi-label-classification").scoring, np.asarray([[3, -3]] * 9, np.float32)
    )


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
    constant = np.asarray([[1, 0]] * 600, np.float32)
    knows = difference_to_chance(CLASSES.scoring, metric, perfect, references, LABELS, RESAMPLING)
    guesses = difference_to_chance(
        CLASSES.scoring,
        metric,
        deal(perfect, draw.permutation(600)),
        references,
        LABELS,
        RESAMPLING,
    )
    stuck = difference_to_chance(CLASSES.scoring, metric, constant, references, LABELS, RESAMPLING)
    assert knows.difference.low > 0.05
    assert guesses.difference.low < 0.02
    assert stuck.difference.value == pytest.approx(0, abs=1e-9)
    if metric != "mcc":  # where both have 0, give or take
        assert knows.against == (
            "the most frequent class"
            if metric == "accuracy"
            else "its own answers shuffled across rows"
        )


def test_the_first_champions_gates_refuse_what_is_useless_and_let_through_what_is_good() -> None:
    """The rates of docs/gates.md at 100 rows: no constant or guess passes, few good models fail."""
    assert refusals("constant", 100, 20, seed=1)["refused"] == 1
    assert refusals("guess", 100, 20, seed=2)["refused"] == 1
    assert refusals("good", 100, 40, seed=3)["refused"] <= 0.2
