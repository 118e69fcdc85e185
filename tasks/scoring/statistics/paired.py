"""Two models on the same rows: how far apart they are, and whether that is more than chance.

The rows are what was sampled, so every comparison is paired: both models see the same draws of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.arrays import Bools, Doubles
from tasks.scoring.statistics.bootstrap import Resampling, resample
from tasks.scoring.statistics.draws import Draws

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats
    from tasks.problems.base import Problem


@dataclass(frozen=True)
class Difference:
    """First model minus second.

    low, high       bootstrap percentile interval
    p_value         two-sided, of no difference
    standard_error  of `value`, from the same resamples
    """

    first: float
    second: float
    value: float
    low: float
    high: float
    p_value: float
    standard_error: float

    def lower_bound(self, level: float, least_error: float = 0.0) -> float:
        """What the difference exceeds with one-sided confidence 1 - level.

        least_error   of `error_under`, below which the standard error is not believed
        Of the normal approximation with the bootstrap's standard error (Efron & Tibshirani 1993, ch. 12.5): the levels of
        later looks are too small for a percentile of any affordable number of resamples.
        """
        from scipy.stats import norm

        return float(self.value - norm.isf(level) * max(self.standard_error, least_error))


@dataclass(frozen=True)
class PairedDifference:
    """The challenger's difference of the metric to another model, both on the same test rows.

    against          the other, in words
    discordant_rows  rows that only one of the two is right on
    """

    against: str
    difference: Difference
    discordant_rows: int


def metric_differences(
    problem: Problem,
    pair: tuple[Floats, Floats],
    references: Array,
    labels: Sequence[str],
    resampling: Resampling,
) -> dict[str, Difference]:
    """Every metric's difference; `pair` holds both models' outputs of the same rows, columns in the order of `labels`."""
    first, second = (problem.metrics(outputs, references, labels) for outputs in pair)
    ours, theirs = (problem.resampled_metrics(outputs, references, labels) for outputs in pair)

    def statistic(draws: Draws) -> Doubles:
        found, other = ours(draws), theirs(draws)
        return np.stack([found[name] - other[name] for name in first])

    drawn = resample(statistic, len(references), resampling, problem.clusters(references))
    return {
        name: describe_difference(first[name], second[name], drawn[i], resampling.confidence)
        for i, name in enumerate(first)
    }


def accuracy_difference(first: Bools, second: Bools, resampling: Resampling) -> Difference:
    """Of the share of rows that are right, with the p-value of `mcnemar`.

    Rows count only by which of the two is right on them, so a resample of rows is one draw of a multinomial.
    """
    rows, (only_first, only_second) = len(first), discordant(first, second)
    shares = np.asarray([only_first, only_second, rows - only_first - only_second]) / rows
    counts = np.random.default_rng(resampling.seed).multinomial(
        rows, shares, size=resampling.resamples
    )
    drawn = (counts[:, 0] - counts[:, 1]) / rows
    found = describe_difference(
        float(first.mean()), float(second.mean()), drawn, resampling.confidence
    )
    return Difference(**{**vars(found), "p_value": mcnemar(only_first, only_second)})


def discordant(first: Bools, second: Bools) -> tuple[int, int]:
    """(rows that only the first has right, rows that only the second has right)."""
    return int((first & ~second).sum()), int((~first & second).sum())


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test: of rows that one model alone has right, either is as likely to be the one."""
    from scipy.stats import binomtest

    both = only_first + only_second
    return float(binomtest(only_first, both).pvalue) if both else 1.0


def say_p(p_value: float) -> str:
    """With four digits; what those cannot tell from 0 is no 0."""
    return f"{p_value:.4f}" if p_value >= 0.00005 else "<0.0001"


def error_under(difference: float, discordant_rows: int, rows: int) -> float:
    """Standard error of a difference of shares if it were truly `difference`, given how many rows the two are apart on.

    A score test's variance (Tango 1998): rows on which the models happen to agree must not make the bound certain, as the
    bootstrap's error does, which is 0 where no row is discordant.
    """
    share = max(discordant_rows / rows, abs(difference))
    return float(np.sqrt(max(share - difference**2, 0) / rows))


def fall_p_value(only_first: int, only_second: int) -> float:
    """One-sided p-value of the same test, against the first model being worse."""
    from scipy.stats import binomtest

    both = only_first + only_second
    return float(binomtest(only_first, both, alternative="less").pvalue) if both else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979): below a level, the level holds for all of them together."""
    count, order = len(p_values), np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, np.float64)[order] * (count - np.arange(count))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(p) for p in adjusted]


def describe_difference(
    first: float, second: float, drawn: Doubles, confidence: float
) -> Difference:
    """First minus second, with what its bootstrap resamples `drawn`, (r,), say of it."""
    low, high = np.quantile(drawn, ((1 - confidence) / 2, (1 + confidence) / 2))
    # plus one: the rows as they are count as a draw, so that no p-value is 0 (Davison & Hinkley 1997, ch. 4.2)
    tails = [
        (1 + int((drawn <= 0).sum())) / (len(drawn) + 1),
        (1 + int((drawn >= 0).sum())) / (len(drawn) + 1),
    ]
    value, error = first - second, float(drawn.std(ddof=1))
    return Difference(
        first,
        second,
        value,
        min(value, float(low)),
        max(value, float(high)),
        min(1.0, 2 * min(tails)),
        error,
    )
