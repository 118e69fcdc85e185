"""Bootstrap intervals of a problem's metrics; all metrics see the same resamples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Doubles
from tasks.reports.stage_reports import Interval
from tasks.scoring.statistics.draws import Draws

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats
    from tasks.scoring.scorer import Scorer

MAX_DRAWS = 4_000_000  # drawn unit indices in memory at a time
MAX_UNITS = 5_000  # more units than this are drawn in random groups of nearly equal size


@dataclass(frozen=True)
class Resampling:
    """Bootstrap settings.

    confidence  level of the intervals, in (0, 1)
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0


def metric_intervals(
    scorer: Scorer,
    outputs: Floats,
    references: Array,
    labels: Sequence[str],
    resampling: Resampling,
) -> dict[str, Interval]:
    """Each metric's value and interval, independent of the order of the rows.

    Percentile intervals, widened where resampling cannot vary: see `_allow_for_unseen`.
    """
    order = _canonical_order(references, outputs)
    outputs, references = outputs[order], references[order]
    values = scorer.metrics(outputs, references, labels)
    resampled = scorer.resampled_metrics(outputs, references, labels)

    def statistic(draws: Draws) -> Doubles:
        metrics = resampled(draws)
        return np.stack([metrics[name] for name in values])

    clusters = scorer.clusters(references)
    bounds = _bounds(
        statistic, np.asarray(list(values.values())), len(references), resampling, clusters
    )
    intervals = {
        name: _interval(value, bound)
        for (name, value), bound in zip(values.items(), bounds, strict=True)
    }
    units = len(references) if clusters is None else int(clusters.max()) + 1
    correct = scorer.correct(outputs, references)
    if correct.all() or not correct.any():
        _allow_for_unseen(intervals, units, resampling.confidence, all_right=bool(correct.all()))
    return intervals


def _allow_for_unseen(
    intervals: dict[str, Interval], units: int, confidence: float, *, all_right: bool
) -> None:
    """Widen the intervals of a model that got all rows right, or all wrong.

    Every resample of such rows is the same, so that few rows would seem to prove perfection. They
    leave an error rate possible of at most that whose chance to show none is half of what
    `confidence` leaves (Clopper & Pearson 1934). The calibration error of a model without errors
    is its lack of confidence, which such a rate would justify.

    units  rows, or clusters of dependent rows
    """
    unseen = 1 - ((1 - confidence) / 2) ** (1 / units)
    for name, interval in intervals.items():
        if interval["value"] == 1:
            interval["low"] = min(interval["low"], 1 - unseen)
        elif interval["value"] == 0:
            interval["high"] = max(interval["high"], unseen)
        elif name == "ece" and all_right:
            interval["low"] = min(interval["low"], max(0.0, interval["value"] - unseen))


def difference_interval(
    scorer: Scorer,
    pair: tuple[Floats, Floats],
    references: Array,
    labels: Sequence[str],
    resampling: Resampling,
) -> Interval:
    """The problem's metric of the first model minus the second's, with its paired interval."""
    order = _canonical_order(references, *pair)
    references = references[order]
    pair = pair[0][order], pair[1][order]
    name = scorer.metric
    first, second = (scorer.metrics(outputs, references, labels)[name] for outputs in pair)
    value = first - second
    first_of, second_of = (
        scorer.resampled_metrics(outputs, references, labels) for outputs in pair
    )

    def statistic(draws: Draws) -> Doubles:
        return (first_of(draws)[name] - second_of(draws)[name])[None]

    clusters = scorer.clusters(references)
    bounds = _bounds(statistic, np.asarray([value]), len(references), resampling, clusters)
    return _interval(value, bounds[0])


def resample(
    statistic: Callable[[Draws], Doubles],
    rows: int,
    resampling: Resampling,
    clusters: npt.NDArray[np.int64] | None = None,
) -> Doubles:
    """m statistics of each resample, (m, r).

    statistic  draws of some resamples -> (m, r)
    clusters   (n,) numbered from 0: whole clusters are drawn instead of rows (Davison & Hinkley
               1997, ch. 3.8)

    More than MAX_UNITS rows or clusters are first assigned to MAX_UNITS random groups, and groups
    are drawn instead. Time and memory then stop growing with the rows, at the price of a further
    relative error of the interval's width of 1 / sqrt(2 MAX_UNITS), one percent (the random groups
    method, Wolter 2007, ch. 2).
    """
    from scipy.stats import bootstrap

    units, count = clusters, rows if clusters is None else int(clusters.max()) + 1
    if count > MAX_UNITS:
        groups = np.random.default_rng(resampling.seed).permutation(count) % MAX_UNITS
        units, count = groups if units is None else groups[units], MAX_UNITS

    def of_units(drawn: npt.NDArray[np.int64], axis: int) -> Doubles:
        drawn = np.atleast_2d(drawn)
        cells = (drawn + count * np.arange(len(drawn))[:, None]).ravel()
        counts = np.bincount(cells, minlength=drawn.size).reshape(drawn.shape)
        return statistic(Draws(counts.astype(np.float64), units))

    distribution: Doubles = bootstrap(
        (np.arange(count),), of_units, n_resamples=resampling.resamples,
        batch=max(1, MAX_DRAWS // count), vectorized=True,
        confidence_level=resampling.confidence, method="percentile",
        rng=np.random.default_rng(resampling.seed),
    ).bootstrap_distribution  # fmt: skip
    return distribution


def _bounds(
    statistic: Callable[[Draws], Doubles],
    values: Doubles,
    rows: int,
    resampling: Resampling,
    clusters: npt.NDArray[np.int64] | None,
) -> Doubles:
    """Percentile bounds of m statistics, (m, 2): low and high."""
    if rows < 2 or (clusters is not None and clusters.max() < 1):  # a single unit cannot vary
        return np.stack([values, values], 1)
    tail = (1 - resampling.confidence) / 2
    distribution = resample(statistic, rows, resampling, clusters)
    bounds: Doubles = np.quantile(distribution, (tail, 1 - tail), axis=1).T
    return bounds


def _interval(value: float, bound: Doubles) -> Interval:
    # resampling biases a calibration error upwards, at times so far that its value would fall below
    # the interval
    return {"value": value, "low": min(value, float(bound[0])), "high": max(value, float(bound[1]))}


def _canonical_order(*columns: Array) -> npt.NDArray[np.intp]:
    keys = [b"".join(column[row].tobytes() for column in columns) for row in range(len(columns[0]))]
    return np.asarray(sorted(range(len(keys)), key=keys.__getitem__), np.intp)
