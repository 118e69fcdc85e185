"""Chance level that a model must beat: its own answers shuffled, and the most frequent class.

A model whose answers ignore the rows scores the same when the answers are shuffled across rows
(a permutation test, Ojala & Garriga 2010). That holds for every metric, and for every problem whose
outputs stand for rows or tokens by themselves.
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
    from tasks.inference.decoder import Decoder
    from tasks.scoring.scorer import Scorer

DEALS = 20  # random permutations whose mean score is the chance level
CONSTANT = 10.0  # logit of the class that a constant model predicts


def deal(outputs: Floats, order: npt.NDArray[np.intp]) -> Floats:
    """Permute the outputs over rows or tokens: position i gets the output of position order[i].

    Absent tokens (NaN) stay where they are and are not counted as positions.
    """
    dealt, present = outputs.copy(), np.isfinite(outputs).all(-1)
    dealt[present] = outputs[present][order]
    return dealt


def is_constant(scorer: Scorer, outputs: Floats) -> bool:
    """Whether every row (or token) gets the same answer; False for fewer than two."""
    count = int(np.isfinite(outputs).all(-1).sum())
    if count < 2:
        return False
    shifted = deal(outputs, np.roll(np.arange(count), 1))
    return scorer.agreement(outputs, shifted)[0] == 1.0


def only_answer(
    scorer: Scorer,
    decoder: Decoder,
    outputs: Floats,
    rows: Columns,
    labels: Sequence[str],
) -> str:
    """The answer that the model gives to every row, in words.

    outputs  on which tuned thresholds already decide (`Calibration.decide`)
    Empty if the answers differ, or if the model guesses tokens.
    """
    if scorer.baseline_is_base or not is_constant(scorer, outputs):
        return ""
    first = {name: [values[0]] for name, values in rows.items()}
    prediction = decoder.decode(outputs[:1], first, labels, Calibration())[0]
    names = decoder.predicted_labels(prediction)
    return f"'{', '.join(names)}'" if names else "the same"


def difference_to_chance(
    scorer: Scorer,
    metric: str,
    outputs: Floats,
    references: Array,
    labels: Sequence[str],
    resampling: Resampling,
) -> PairedDifference:
    """The model minus chance: the most frequent class or its own answers shuffled.

    The shuffled answers score the mean of DEALS permutations; the higher of the two counts.
    """
    draw, count = np.random.default_rng(resampling.seed), int(np.isfinite(outputs).all(-1).sum())
    dealt = [deal(outputs, draw.permutation(count)) for _ in range(DEALS)]
    model, *permutations = (
        scorer.resampled_metrics(variant, references, labels) for variant in (outputs, *dealt)
    )

    def both(draws: Draws) -> Doubles:
        chances = [permutation(draws)[metric] for permutation in permutations]
        return np.stack([model(draws)[metric], np.mean(chances, axis=0)])

    value, chance = both(Draws.once(len(references)))[:, 0].tolist()
    constant = _most_frequent(scorer, outputs, references, labels)
    if constant is not None and scorer.metrics(constant, references, labels)[metric] > chance:
        pair = outputs, constant
        differences = metric_differences(scorer, pair, references, labels, resampling)
        apart = _discordant_rows(scorer, outputs, constant, references)
        return PairedDifference("the most frequent class", differences[metric], apart)
    (drawn,) = resample(
        lambda draws: -np.diff(both(draws), axis=0),
        len(references),
        resampling,
        scorer.clusters(references),
    )
    difference = describe_difference(value, chance, drawn, resampling.confidence)
    apart = _discordant_rows(scorer, outputs, dealt[0], references)
    return PairedDifference("its own answers shuffled across rows", difference, apart)


def _most_frequent(
    scorer: Scorer, outputs: Floats, references: Array, labels: Sequence[str]
) -> Floats | None:
    """Outputs that always predict the most frequent class; None if the outputs are not classes."""
    if outputs.ndim != 2 or outputs.shape[1] != len(labels):
        return None
    constants = [
        np.tile(np.float32(CONSTANT) * np.eye(len(labels), dtype=np.float32)[i], (len(outputs), 1))
        for i in range(len(labels))
    ]
    return max(constants, key=lambda constant: scorer.correct(constant, references).sum())


def _discordant_rows(scorer: Scorer, outputs: Floats, others: Floats, references: Array) -> int:
    return sum(discordant(scorer.correct(outputs, references), scorer.correct(others, references)))
