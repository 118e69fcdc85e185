"""Bootstrap intervals of a problem's metrics: rows are drawn with replacement, and all metrics see the same draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Doubles
from tasks.scoring.statistics.draws import Draws

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats
    from tasks.problems.base import Problem

Interval = dict[str, float]  # value, low, high

MAX_DRAWS = 4_000_000  # numbers of units in memory at a time
MAX_UNITS = 5_000  # what is more is drawn in random groups of nearly one size


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: `confidence` is the share of them that should hold the true value, in (0, 1)."""

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0


def metric_intervals(
    problem: Problem,
    outputs: Floats,
    references: Array,
    labels: Sequence[str],
    resampling: Resampling,
) -> dict[str, Interval]:
    """Each metric's value and percentile interval; the rows' order does not matter."""
    order = _canonical_order(references, outputs)
    outputs, references = outputs[order], references[order]
    values = problem.metrics(outputs, references, labels)
    resampled = problem.resampled_metrics(outputs, references, labels)

    def statistic(draws: Draws) -> Doubles:
        found = resampled(draws)
        return np.stack([found[name] for name in values])

    bounds = _bounds(
        statistic,
        np.asarray(list(values.values())),
        len(references),
        resampling,
        problem.clusters(references),
    )
    return {
        name: _interval(value, bound)
        for (name, value), bound in zip(values.items(), bounds, strict=True)
    }


def difference_interval(
    problem: Problem,
    pair: tuple[Floats, Floats],
    references: Array,
    labels: Sequence[str],
    resampling: Resampling,
) -> Interval:
    """First model's minus second's value of the problem's metric, with its paired interval."""
    order = _canonical_order(references, *pair)
    references = references[order]
    first, second = (outputs[order] for outputs in pair)
    name = problem.metric
    value = (
        problem.metrics(first, references, labels)[name]
        - problem.metrics(second, references, labels)[name]
    )
    ours, theirs = (
        problem.resampled_metrics(outputs, references, labels) for outputs in (first, second)
    )

    def statistic(draws: Draws) -> Doubles:
        return (ours(draws)[name] - theirs(draws)[name])[None]

    return _interval(
        value,
        _bounds(
            statistic,
            np.asarray([value]),
            len(references),
            resampling,
            problem.clusters(references),
        )[0],
    )


def resample(
    statistic: Callable[[Draws], Doubles],
    rows: int,
    resampling: Resampling,
    clusters: npt.NDArray[np.int64] | None = None,
) -> Doubles:
    """(m, r): m statistics of each resample.

    statistic  of some resamples' draws -> (m, r)
    clusters   (n,) numbers from 0: those are drawn in place of rows, with all their rows (Davison & Hinkley 1997, ch. 3.8)

    More than MAX_UNITS rows or clusters are put into as many random groups, which are drawn in their place: time and memory stop
    growing with the rows, and an interval's width has a further relative error of 1 / sqrt(2 MAX_UNITS), one percent (the random
    groups method, Wolter 2007, ch. 2).
    """
    from scipy.stats import bootstrap

    units, count = clusters, rows if clusters is None else int(clusters.max()) + 1
    if count > MAX_UNITS:
        groups = np.random.default_rng(resampling.seed).permutation(count) % MAX_UNITS
        units, count = groups if units is None else groups[units], MAX_UNITS

    def of_units(drawn: npt.NDArray[np.int64], axis: int) -> Doubles:
        drawn = np.atleast_2d(drawn)
        places = (drawn + count * np.arange(len(drawn))[:, None]).ravel()
        counts = np.bincount(places, minlength=drawn.size).reshape(drawn.shape)
        return statistic(Draws(counts.astype(np.float64), units))

    found: Doubles = bootstrap(
        (np.arange(count),), of_units, n_resamples=resampling.resamples, batch=max(1, MAX_DRAWS // count), vectorized=True,
        confidence_level=resampling.confidence, method="percentile", rng=np.random.default_rng(resampling.seed),
    ).bootstrap_distribution  # fmt: skip
    return found


def _bounds(
    statistic: Callable[[Draws], Doubles],
    values: Doubles,
    rows: int,
    resampling: Resampling,
    clusters: npt.NDArray[np.int64] | None,
) -> Doubles:
    """(m, 2): low and high of each of m statistics, by percentiles."""
    if rows < 2 or (clusters is not None and clusters.max() < 1):  # nothing to draw from
        return np.stack([values, values], 1)
    tail = (1 - resampling.confidence) / 2
    found: Doubles = np.quantile(
        resample(statistic, rows, resampling, clusters), (tail, 1 - tail), axis=1
    ).T
    return found


def _interval(value: float, bound: Doubles) -> Interval:
    # resampling raises a calibration error, sometimes so far that the value itself would fall outside
    return {"value": value, "low": min(value, float(bound[0])), "high": max(value, float(bound[1]))}


def _canonical_order(*columns: Array) -> npt.NDArray[np.intp]:
    keys = [b"".join(column[row].tobytes() for column in columns) for row in range(len(columns[0]))]
    return np.asarray(sorted(range(len(keys)), key=keys.__getitem__), np.intp)
