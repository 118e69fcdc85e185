"""Paired comparison of two models: how large their difference is, and whether it is significant.

The rows are the sample, so every comparison is paired: both models see the same resamples of rows.
McNemar's exact test is scipy's binomial test and Holm's correction one line of numpy, not worth
statsmodels as a dependency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.arrays import Bools, Doubles
from tasks.scoring.statistics.bootstrap import Resampling, resample
from tasks.scoring.statistics.draws import Draws

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats
    from tasks.scoring.scorer import Scorer


@dataclass(frozen=True)
class Difference:
    """First model minus second.

    low, high       bootstrap percentile interval
    p_value         two-sided, for the null hypothesis of no difference
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
        """Lower confidence bound of the difference, one-sided with confidence 1 - level.

        least_error  floor of the standard error, from `null_standard_error`
        Normal approximation with the bootstrap's standard error (Efron & Tibshirani 1993, ch.
        12.5): the levels of later looks are too small for percentiles of any affordable number of
        resamples.
        """
        from scipy.stats import norm

        return float(self.value - norm.isf(level) * max(self.standard_error, least_error))

    def p_above(self, least: float, least_error: float = 0.0) -> float:
        """One-sided p-value for the null hypothesis that the difference is at most `least`.

        It is below a level exactly where that level's `lower_bound` is above `least`.
        """
        from scipy.stats import norm

        error = max(self.standard_error, least_error)
        if not error:
            return 0.0 if self.value > least else 1.0
        return float(norm.sf((self.value - least) / error))


@dataclass(frozen=True)
class PairedDifference:
    """The challenger's metric minus another model's, both on the same test rows.

    against          the other model, in words
    discordant_rows  number of rows that only one of the two has right
    """

    against: str
    difference: Difference
    discordant_rows: int


def metric_differences(
    scorer: Scorer,
    pair: tuple[Floats, Floats],
    references: Array,
    labels: Sequence[str],
    resampling: Resampling,
) -> dict[str, Difference]:
    """Every metric's difference.

    pair  both models' outputs of the same rows, columns in the order of `labels`
    """
    first, second = (scorer.metrics(outputs, references, labels) for outputs in pair)
    resampled = [scorer.resampled_metrics(outputs, references, labels) for outputs in pair]

    def statistic(draws: Draws) -> Doubles:
        minuend, subtrahend = (metrics(draws) for metrics in resampled)
        return np.stack([minuend[name] - subtrahend[name] for name in first])

    drawn = resample(statistic, len(references), resampling, scorer.clusters(references))
    return {
        name: describe_difference(first[name], second[name], drawn[i], resampling.confidence)
        for i, name in enumerate(first)
    }


def accuracy_difference(first: Bools, second: Bools, resampling: Resampling) -> Difference:
    """Difference of the shares of right rows, with the p-value of `mcnemar`.

    Only which of the two is right matters, so a resample of rows is one draw of a multinomial.
    """
    rows, (only_first, only_second) = len(first), discordant(first, second)
    shares = np.asarray([only_first, only_second, rows - only_first - only_second]) / rows
    counts = np.random.default_rng(resampling.seed).multinomial(
        rows, shares, size=resampling.resamples
    )
    drawn = (counts[:, 0] - counts[:, 1]) / rows
    difference = describe_difference(
        float(first.mean()), float(second.mean()), drawn, resampling.confidence
    )
    return replace(difference, p_value=mcnemar(only_first, only_second))


def discordant(first: Bools, second: Bools) -> tuple[int, int]:
    """(number of rows that only the first has right, number that only the second has right)."""
    return int((first & ~second).sum()), int((~first & second).sum())


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test.

    Null hypothesis: a row that only one model has right is equally likely to be either model's.
    """
    from scipy.stats import binomtest

    total = only_first + only_second
    return float(binomtest(only_first, total).pvalue) if total else 1.0


def format_p_value(p_value: float) -> str:
    """A p-value with four decimals; one that would round to 0 is shown as <0.0001."""
    return f"{p_value:.4f}" if p_value >= 0.00005 else "<0.0001"


def null_standard_error(difference: float, discordant_rows: int, rows: int) -> float:
    """Standard error of a difference of shares under the null hypothesis that it is `difference`.

    Variance of the score test (Tango 1998). The bootstrap's standard error is 0 if no row is
    discordant; models that happen to agree on all rows must not make the bound certain.
    """
    share = max(discordant_rows / rows, abs(difference))
    return float(np.sqrt(max(share - difference**2, 0) / rows))


def mcnemar_less(only_first: int, only_second: int) -> float:
    """One-sided p-value of McNemar's exact test; the alternative: the first model is worse."""
    from scipy.stats import binomtest

    total = only_first + only_second
    return float(binomtest(only_first, total, alternative="less").pvalue) if total else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm's method (1979), which controls the familywise error rate."""
    count, order = len(p_values), np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, np.float64)[order] * (count - np.arange(count))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(p) for p in adjusted]


def describe_difference(
    first: float, second: float, drawn: Doubles, confidence: float
) -> Difference:
    """First minus second, with interval, p-value and error from its resamples `drawn`, (r,)."""
    low, high = np.quantile(drawn, ((1 - confidence) / 2, (1 + confidence) / 2))
    # plus one: the observed rows count as a resample, so that no p-value is 0 (Davison & Hinkley
    # 1997, ch. 4.2)
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
