"""The least that a model must beat: its own answers given to the wrong rows, and the one answer that is right most often.

A model whose answers have nothing to do with the rows scores the same when they are dealt to other rows (a permutation test,
Ojala & Garriga 2010). That holds for every metric and every problem whose outputs stand for rows or tokens by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.arrays import Doubles
from tasks.inference.calibration import Calibration
from tasks.scoring.statistics.bootstrap import Resampling, resample
from tasks.scoring.statistics.draws import Draws
from tasks.scoring.statistics.paired import (
    PairedDifference,
    describe_difference,
    discordant,
    metric_differences,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from tasks.core.arrays import Array, Columns, Floats
    from tasks.problems.base import Problem

DEALS = 20  # random deals that chance is the mean of
CONSTANT = 10.0  # logit of the one class that a constant model answers


def deal(outputs: Floats, order: npt.NDArray[np.intp]) -> Floats:
    """The same outputs, each at another row or token: what stands at place i comes from place order[i]; absent tokens (NaN) stay."""
    dealt, there = outputs.copy(), np.isfinite(outputs).all(-1)
    dealt[there] = outputs[there][order]
    return dealt


def gives_one_answer(problem: Problem, outputs: Floats) -> bool:
    """Whether every row (or token) gets the same answer; outputs of two rows or more."""
    places = int(np.isfinite(outputs).all(-1).sum())
    return (
        places > 1
        and problem.agreement(outputs, deal(outputs, np.roll(np.arange(places), 1)))[0] == 1.0
    )


def only_answer(problem: Problem, outputs: Floats, rows: Columns, labels: Sequence[str]) -> str:
    """What the model says to every row, in words; empty where it says more than one thing, or guesses tokens.

    outputs  with the decisions that tuned thresholds make of them
    """
    if problem.baseline_is_base or not gives_one_answer(problem, outputs):
        return ""
    first = {name: [values[0]] for name, values in rows.items()}
    said = problem.predicted_labels(problem.decode(outputs[:1], first, labels, Calibration())[0])
    return f"'{', '.join(said)}'" if said else "the same"


def difference_to_chance(
    problem: Problem,
    metric: str,
    outputs: Floats,
    references: Array,
    labels: Sequence[str],
    resampling: Resampling,
) -> PairedDifference:
    """The model against the mean of DEALS random deals of its own outputs, or the most frequent class where that scores higher."""
    draw, places = np.random.default_rng(resampling.seed), int(np.isfinite(outputs).all(-1).sum())
    dealt = [deal(outputs, draw.permutation(places)) for _ in range(DEALS)]
    ours, *theirs = (
        problem.resampled_metrics(one, references, labels) for one in (outputs, *dealt)
    )

    def both(draws: Draws) -> Doubles:
        return np.stack(
            [ours(draws)[metric], np.mean([other(draws)[metric] for other in theirs], axis=0)]
        )

    value, chance = both(Draws.once(len(references)))[:, 0].tolist()
    constant = _most_frequent(problem, outputs, references, labels)
    if constant is not None and problem.metrics(constant, references, labels)[metric] > chance:
        found = metric_differences(problem, (outputs, constant), references, labels, resampling)[
            metric
        ]
        return PairedDifference(
            "the most frequent class", found, _apart(problem, outputs, constant, references)
        )
    (drawn,) = resample(
        lambda draws: -np.diff(both(draws), axis=0),
        len(references),
        resampling,
        problem.clusters(references),
    )
    found = describe_difference(value, chance, drawn, resampling.confidence)
    return PairedDifference(
        "its own answers dealt at random", found, _apart(problem, outputs, dealt[0], references)
    )


def _most_frequent(
    problem: Problem, outputs: Floats, references: Array, labels: Sequence[str]
) -> Floats | None:
    """Outputs that always name the class that is right most often; None where outputs are no classes."""
    if outputs.ndim != 2 or outputs.shape[1] != len(labels):
        return None
    constants = [
        np.tile(np.float32(CONSTANT) * np.eye(len(labels), dtype=np.float32)[i], (len(outputs), 1))
        for i in range(len(labels))
    ]
    return max(constants, key=lambda constant: problem.right(constant, references).sum())


def _apart(problem: Problem, outputs: Floats, others: Floats, references: Array) -> int:
    return sum(discordant(problem.right(outputs, references), problem.right(others, references)))
