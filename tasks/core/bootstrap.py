"""Bootstrap intervals of a problem's metrics: rows are drawn with replacement, and all metrics see the same draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tasks.problems.base import Array, Floats, Problem

Doubles = npt.NDArray[np.float64]
Interval = dict[str, float]  # value, low, high

MAX_DRAWS = 4_000_000  # row numbers in memory at a time


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: `confidence` is the share of them that should hold the true value, in (0, 1)."""

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0


def metric_intervals(
    problem: Problem, outputs: Floats, references: Array, labels: Sequence[str], resampling: Resampling
) -> dict[str, Interval]:
    """Each metric's value and percentile interval; the rows' order does not matter."""
    order = _canonical_order(references, outputs)
    outputs, references = outputs[order], references[order]
    values = problem.metrics(outputs, references, labels)

    def statistic(weights: Doubles) -> Doubles:
        found = problem.resampled_metrics(outputs, references, labels, weights)
        return np.stack([found[name] for name in values])

    bounds = _bounds(statistic, np.asarray(list(values.values())), len(references), resampling, problem.clusters(references))
    return {name: _interval(value, bound) for (name, value), bound in zip(values.items(), bounds, strict=True)}


def difference_interval(
    problem: Problem, pair: tuple[Floats, Floats], references: Array, labels: Sequence[str], resampling: Resampling
) -> Interval:
    """First model's minus second's value of the problem's metric, with its paired interval."""
    order = _canonical_order(references, *pair)
    references = references[order]
    first, second = (outputs[order] for outputs in pair)
    name = problem.metric
    value = problem.metrics(first, references, labels)[name] - problem.metrics(second, references, labels)[name]

    def statistic(weights: Doubles) -> Doubles:
        ours, theirs = (problem.resampled_metrics(outputs, references, labels, weights)[name] for outputs in (first, second))
        return (ours - theirs)[None]

    return _interval(value, _bounds(statistic, np.asarray([value]), len(references), resampling, problem.clusters(references))[0])


def resample(
    statistic: Callable[[Doubles], Doubles], rows: int, resampling: Resampling, clusters: npt.NDArray[np.int64] | None = None
) -> Doubles:
    """(m, r): m statistics of each resample.

    statistic  (r, n) weights of rows, how often each was drawn -> (m, r)
    clusters   (n,) numbers from 0: those are drawn in place of rows, with all their rows (Davison & Hinkley 1997, ch. 3.8)
    """
    if clusters is not None:
        return resample(lambda weights: statistic(weights[:, clusters]), int(clusters.max()) + 1, resampling)
    from scipy.stats import bootstrap

    def of_rows(drawn: npt.NDArray[np.int64], axis: int) -> Doubles:
        drawn = np.atleast_2d(drawn)
        places = drawn + rows * np.arange(len(drawn))[:, None]
        return statistic(np.bincount(places.ravel(), minlength=len(drawn) * rows).reshape(len(drawn), rows).astype(np.float64))

    found: Doubles = bootstrap(
        (np.arange(rows),), of_rows, n_resamples=resampling.resamples, batch=max(1, MAX_DRAWS // rows), vectorized=True,
        confidence_level=resampling.confidence, method="percentile", rng=np.random.default_rng(resampling.seed),
    ).bootstrap_distribution  # fmt: skip
    return found


def _bounds(
    statistic: Callable[[Doubles], Doubles], values: Doubles, rows: int, resampling: Resampling, clusters: npt.NDArray[np.int64] | None
) -> Doubles:
    """(m, 2): low and high of each of m statistics, by percentiles."""
    if rows < 2 or (clusters is not None and clusters.max() < 1):  # nothing to draw from
        return np.stack([values, values], 1)
    tail = (1 - resampling.confidence) / 2
    found: Doubles = np.quantile(resample(statistic, rows, resampling, clusters), (tail, 1 - tail), axis=1).T
    return found


def _interval(value: float, bound: Doubles) -> Interval:
    # resampling raises a calibration error, sometimes so far that the value itself would fall outside
    return {"value": value, "low": min(value, float(bound[0])), "high": max(value, float(bound[1]))}


def _canonical_order(*columns: Array) -> npt.NDArray[np.intp]:
    keys = [b"".join(column[row].tobytes() for column in columns) for row in range(len(columns[0]))]
    return np.asarray(sorted(range(len(keys)), key=keys.__getitem__), np.intp)
