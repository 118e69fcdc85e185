"""Whether more labelled rows would pay: what the last doubling of the training rows gained.

The head is solved on all rows and on each half of them, on the base model as it is, and the
validation rows judge. Gains shrink with each doubling, so the next one is expected to gain no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tasks.reports.stage_reports import Interval, LearningCurveReport
from tasks.scoring.statistics.bootstrap import Resampling, difference_interval
from tasks.training.label_names import NAMED

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats, Indices
    from tasks.scoring.scorer import Scorer
    from tasks.training.logistic import Weights

LEAST_ROWS = 16  # labelled ones: below, a half says nothing
VALIDATION_ROWS = 1_000  # at most
RESAMPLES = 1_000


def learning_curve(
    solve: Callable[[Floats, Array], Weights],
    training: tuple[Floats, Indices, Array],
    validation: tuple[Floats, Indices],
    scoring: Scorer,
    labels: tuple[str, ...],
    seed: int,
) -> LearningCurveReport | None:
    """The curve; None with fewer than LEAST_ROWS labelled rows.

    solve       (vectors, classes) -> weights and biases of a head
    training    (vectors, classes, row numbers); rows numbered NAMED are in both halves
    validation  (vectors, classes)
    """
    vectors, classes, numbers = training
    labelled = np.flatnonzero(np.asarray(numbers) != NAMED)
    if len(labelled) < LEAST_ROWS:
        return None
    named = np.flatnonzero(np.asarray(numbers) == NAMED)
    held, references = validation

    def outputs(rows: Indices) -> Floats:
        weights, biases = solve(vectors[rows], classes[rows])
        scores: Floats = held @ weights.T + biases
        return scores

    whole = outputs(np.arange(len(vectors)))
    halves = [
        outputs(np.sort(np.concatenate([half, named])))
        for half in _halves(labelled, classes[labelled], seed)
    ]
    resampling = Resampling(RESAMPLES, seed=seed)
    gains = [
        difference_interval(scoring, (whole, half), references, labels, resampling)
        for half in halves
    ]
    full, *of_halves = (
        scoring.metrics(scores, references, labels)[scoring.metric] for scores in (whole, *halves)
    )
    half = sum(of_halves) / len(of_halves)
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
