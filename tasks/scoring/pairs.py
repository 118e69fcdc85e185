"""Metrics of scored text pairs: regression, and ranking of the rows within a query.

References are (n, 2) float64: the right score, and the number of the query that the row belongs to.
A query counts in the ranking metrics if its rows have different scores. Of equal outputs the worse
row is ranked first, so that a model with constant outputs gains nothing by it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Bools, Doubles
from tasks.scoring.statistics.draws import Draws, Resampled

Outputs = npt.NDArray[np.float32]

SCORE, QUERY = 0, 1
CUT = 10  # rank cutoff of NDCG
ANCHORS = 256  # rows to compare a row with if its query has no row of another score
METRICS = {
    "pearson": 1,
    "spearman": 1,
    "mean_absolute_error": -1,
    "auc": 1,
    "ndcg_at_10": 1,
    "mrr": 1,
}


@dataclass(frozen=True)
class Ranked:
    """Ranking quality of each query whose rows have different scores.

    row   index of one of its rows
    rank  rank of its best row, from 1
    ndcg  at CUT
    """

    row: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    ndcg: Doubles


def query_number(query: str) -> float:
    """48-bit hash of the query, which a float64 holds exactly."""
    digest = hashlib.sha256(str(query).encode("utf-8", "surrogatepass")).digest()
    return float(int.from_bytes(digest[:6], "big"))


def score_metrics(outputs: Outputs, references: Doubles) -> Resampled:
    """METRICS of many resamples.

    outputs  (n,); all rows of a query must be drawn together
    `auc` is computed only if the scores take exactly two values, the last two metrics only if some
    query counts for ranking.
    """
    actual, predicted = references[:, SCORE], outputs.astype(np.float64)
    errors, values = np.abs(predicted - actual), np.unique(actual)
    ranked = rank_queries(outputs, references)

    def of(draws: Draws) -> dict[str, Doubles]:
        weights = draws.of_rows()
        ranks = _mid_ranks(actual, weights), _mid_ranks(predicted, weights)
        metrics = {
            "pearson": _correlation(actual[None], predicted[None], weights),
            "spearman": _correlation(*ranks, weights),
            "mean_absolute_error": draws.sums(errors) / np.maximum(draws.sizes(), 1),
        }
        if len(values) == 2:
            metrics["auc"] = _auc(predicted, actual == values[1], weights)
        if len(ranked.row):
            of_queries = weights[:, ranked.row]
            total = np.maximum(of_queries.sum(1), 1e-9)
            metrics["ndcg_at_10"] = of_queries @ ranked.ndcg / total
            metrics["mrr"] = of_queries @ (1 / ranked.rank) / total
        return metrics

    return of


def rank_queries(outputs: Outputs, references: Doubles) -> Ranked:
    """NDCG (normalized discounted cumulative gain, Järvelin & Kekäläinen 2002) and best rank.

    A row's gain is its score minus the lowest score of its query.
    """
    rows, ranks, ndcgs = [], [], []
    for members in _queries(references):
        actual = references[members, SCORE]
        if actual.min() == actual.max():
            continue
        order = np.lexsort((actual, -outputs[members]))
        gains, ideal = actual[order] - actual.min(), np.sort(actual - actual.min())[::-1]
        discounts = 1 / np.log2(np.arange(2, len(actual) + 2)[:CUT])
        rows.append(int(members[0]))
        ranks.append(int(np.flatnonzero(gains == ideal[0])[0]) + 1)
        ndcgs.append(float(gains[:CUT] @ discounts) / float(ideal[:CUT] @ discounts))
    return Ranked(
        np.asarray(rows, np.int64), np.asarray(ranks, np.int64), np.asarray(ndcgs, np.float64)
    )


def score_details(outputs: Outputs, references: Doubles) -> dict[str, Any]:
    """Plain JSON values.

    queries  number of queries that count for ranking
    errors   histogram of output minus score
    ranks    histogram of the best row's rank; None if no query counts for ranking
    """
    ranks = rank_queries(outputs, references).rank
    counts, edges = np.histogram(outputs - references[:, SCORE], bins=20)
    details: dict[str, Any] = {
        "queries": len(ranks),
        "errors": {"edges": [round(float(e), 4) for e in edges], "counts": counts.tolist()},
        "ranks": None,
    }
    if len(ranks):
        bounds = np.arange(1, int(ranks.max()) + 2) - 0.5
        rank_counts, _ = np.histogram(ranks, bounds)
        details["ranks"] = {"edges": bounds.tolist(), "counts": rank_counts.tolist()}
    return details


def order_of_rows(outputs: Outputs) -> npt.NDArray[np.float32]:
    """Sign of each output minus the next row's (1, 0 or -1); after the last row comes the first."""
    order: npt.NDArray[np.float32] = np.sign(outputs - np.roll(outputs, -1))
    return order


def ranked_right(outputs: Outputs, references: Doubles) -> Bools:
    """Which rows are ordered correctly against more than half of their peers, (n,).

    Peers are the rows of the same query with another score; if there are none, those of up to
    ANCHORS rows spread evenly over all queries.
    """
    actual, right = references[:, SCORE], np.zeros(len(outputs), bool)
    if not len(outputs):
        return right
    count = min(ANCHORS, len(outputs))
    anchors = np.unique(np.linspace(0, len(outputs) - 1, count).astype(np.int64))
    for members in _queries(references):
        scores = actual[members]
        peers = members if scores.min() != scores.max() else anchors
        order = np.sign(scores[:, None] - actual[peers][None])
        correct = np.sign(outputs[members][:, None] - outputs[peers][None]) == order
        right[members] = 2 * (correct & (order != 0)).sum(1) > (order != 0).sum(1)
    return right


def _queries(references: Doubles) -> list[npt.NDArray[np.int64]]:
    """Row indices of each query."""
    if not len(references):
        return []
    order = np.argsort(references[:, QUERY], kind="stable")
    return np.split(order, np.flatnonzero(np.diff(references[order, QUERY])) + 1)


def _correlation(first: Doubles, second: Doubles, weights: Doubles) -> Doubles:
    """Weighted Pearson correlation, (r,); 0 where one of the two is constant."""
    total = np.maximum(weights.sum(1, keepdims=True), 1)
    first, second = (
        values - (weights * values).sum(1, keepdims=True) / total for values in (first, second)
    )
    covariance = (weights * first * second).sum(1)
    scale = np.sqrt((weights * first**2).sum(1) * (weights * second**2).sum(1))
    correlation: Doubles = np.divide(
        covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-12
    )
    return correlation


def _mid_ranks(values: Doubles, weights: Doubles) -> Doubles:
    """Ranks among the weighted rows, (r, n); ties share their middle rank."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)
    of_value = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(of_value, 1) - of_value / 2 + 0.5
    group = np.empty(len(values), np.int64)  # of equal values, by row
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))
    of_rows: Doubles = ranks[:, group]
    return of_rows


def _auc(outputs: Doubles, relevant: Bools, weights: Doubles) -> Doubles:
    """Area under the ROC curve, by ranks (Mann & Whitney 1947); 0.5 for resamples of one class."""
    of_relevant = weights * relevant
    positives = of_relevant.sum(1)
    pairs = positives * (weights.sum(1) - positives)
    wins = (of_relevant * _mid_ranks(outputs, weights)).sum(1) - positives * (positives + 1) / 2
    areas: Doubles = np.divide(wins, pairs, out=np.full_like(wins, 0.5), where=pairs > 0)
    return areas
