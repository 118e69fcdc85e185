"""Whether more labelled rows would pay: what the last doubling of the training rows gained.

The head is solved on all rows and on each half of them, on the base model as it is, and the
validation rows judge. Gains shrink with each doubling, so the next one is expected to gain no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.reports.stage_reports import Interval, LearningCurveReport
from tasks.scoring.statistics.bootstrap import Resampling, difference_interval
from tasks.training.label_names import NAMED
from tasks.training.logistic import class_strength, solve_classes

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats, Indices
    from tasks.scoring.scorer import Scorer

LEAST_ROWS = 16  # labelled ones: below, a half says nothing
VALIDATION_ROWS = 1_000  # at most
RESAMPLES = 1_000


def learning_curve(
    training: tuple[Floats, Indices, Array],
    validation: tuple[Floats, Indices],
    scoring: Scorer,
    labels: tuple[str, ...],
    weights: Floats | None,
    seed: int,
) -> LearningCurveReport | None:
    """The curve; None with fewer than LEAST_ROWS labelled rows, or two a class.

    training    (vectors, classes, row numbers); rows numbered NAMED are in both halves
    validation  (vectors, classes)
    weights     (labels,) of the classes; None: equal
    One strength of regularization, chosen on a half, serves all heads: choosing takes most of the
    time.
    """
    vectors, classes, numbers = training
    labelled = np.flatnonzero(np.asarray(numbers) != NAMED)
    if len(labelled) < max(LEAST_ROWS, 2 * len(np.unique(classes))):
        return None
    named = np.flatnonzero(np.asarray(numbers) == NAMED)
    halves = [
        np.sort(np.concatenate([half, named]))
        for half in _halves(labelled, classes[labelled], seed)
    ]
    first = halves[0]
    strength = class_strength(vectors[first], classes[first], len(labels), weights, seed)
    held, references = validation

    def outputs(rows: Indices) -> Floats:
        head, biases = solve_classes(
            vectors[rows], classes[rows], len(labels), weights, seed, strength
        )
        scores: Floats = held @ head.T + biases
        return scores

    whole, *parts = map(outputs, (np.arange(len(vectors)), *halves))
    resampling = Resampling(RESAMPLES, seed=seed)
    gains = [
        difference_interval(scoring, (whole, part), references, labels, resampling)
        for part in parts
    ]
    full, *of_parts = (
        scoring.metrics(scores, references, labels)[scoring.metric] for scores in (whole, *parts)
    )
    half = sum(of_parts) / len(of_parts)
    gain: Interval = {
        "value": full - half,
        "low": min(gain["low"] for gain in gains),
        "high": max(gain["high"] for gain in gains),
    }
    return LearningCurveReport(
        rows=len(labelled), metric=scoring.metric, half=half, full=full, gain=gain
    )


def _halves(rows: Indices, classes: Indices, seed: int) -> tuple[Indices, Indices]:
    """The rows in two halves, each class in both as far as it has two rows."""
    order = np.random.default_rng(seed).permutation(len(rows))
    by_class = rows[order[np.argsort(classes[order], kind="stable")]]
    return by_class[::2], by_class[1::2]
