"""How well scores of pairs of texts are told: as numbers, and as the order of the rows of a query.

References are (n, 2) float64: the score that is right, and the number of the query that the row belongs to. A query counts in the
metrics of ranking where its rows have different scores. Where two outputs are equal the worse row is taken to come first, so that
a model which says the same of all gains nothing by it.
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
CUT = 10  # rows of a query that NDCG looks at
ANCHORS = 256  # rows that a row without others of its query is compared with
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
    """Of each query whose rows have different scores.

    row   one of its rows
    rank  of the best of its rows, from 1
    ndcg  of its first CUT rows
    """

    row: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    ndcg: Doubles


def query_number(query: str) -> float:
    """A number of 48 bits that stands for the query, which a float64 holds exactly."""
    return float(
        int.from_bytes(
            hashlib.sha256(str(query).encode("utf-8", "surrogatepass")).digest()[:6], "big"
        )
    )


def score_metrics(outputs: Outputs, references: Doubles) -> Resampled:
    """METRICS of many resamples; without `auc` unless the scores are of two kinds, without the last two unless queries rank.

    outputs   (n,); all rows of a query must be drawn together
    """
    given, said = references[:, SCORE], outputs.astype(np.float64)
    errors, kinds, ranked = (
        np.abs(said - given),
        np.unique(given),
        rank_queries(outputs, references),
    )

    def of(draws: Draws) -> dict[str, Doubles]:
        weights = draws.of_rows()
        found = {
            "pearson": _correlation(given[None], said[None], weights),
            "spearman": _correlation(
                _mid_ranks(given, weights), _mid_ranks(said, weights), weights
            ),
            "mean_absolute_error": draws.sums(errors) / np.maximum(draws.sizes(), 1),
        }
        if len(kinds) == 2:
            found["auc"] = _auc(said, given == kinds[1], weights)
        if len(ranked.row):
            of_queries = weights[:, ranked.row]
            total = np.maximum(of_queries.sum(1), 1e-9)
            found["ndcg_at_10"] = of_queries @ ranked.ndcg / total
            found["mrr"] = of_queries @ (1 / ranked.rank) / total
        return found

    return of


def rank_queries(outputs: Outputs, references: Doubles) -> Ranked:
    """Normalized discounted cumulative gain (Järvelin & Kekäläinen 2002) and the rank of the best.

    A row's gain is its score above the query's lowest.
    """
    rows, ranks, ndcgs = [], [], []
    for members in _queries(references):
        given = references[members, SCORE]
        if given.min() == given.max():
            continue
        order = np.lexsort((given, -outputs[members]))
        gains, ideal = given[order] - given.min(), np.sort(given - given.min())[::-1]
        discounts = 1 / np.log2(np.arange(2, len(given) + 2)[:CUT])
        rows.append(int(members[0]))
        ranks.append(int(np.flatnonzero(gains == ideal[0])[0]) + 1)
        ndcgs.append(float(gains[:CUT] @ discounts) / float(ideal[:CUT] @ discounts))
    return Ranked(
        np.asarray(rows, np.int64), np.asarray(ranks, np.int64), np.asarray(ndcgs, np.float64)
    )


def score_details(outputs: Outputs, references: Doubles) -> dict[str, Any]:
    """`queries` that rank, `errors` of the scores and `ranks` of the best as histograms (None where no query ranks)."""
    ranks = rank_queries(outputs, references).rank
    counts, edges = np.histogram(outputs - references[:, SCORE], bins=20)
    found: dict[str, Any] = {
        "queries": len(ranks),
        "errors": {"edges": [round(float(e), 4) for e in edges], "counts": counts.tolist()},
    }
    places = np.arange(1, int(ranks.max(initial=1)) + 2) - 0.5
    found["ranks"] = (
        {"edges": places.tolist(), "counts": np.histogram(ranks, places)[0].tolist()}
        if len(ranks)
        else None
    )
    return found


def order_of_rows(outputs: Outputs) -> npt.NDArray[np.float32]:
    """Whether each row's output is above (1), at (0) or below (-1) the next one's; the last row's next is the first."""
    order: npt.NDArray[np.float32] = np.sign(outputs - np.roll(outputs, -1))
    return order


def ranked_right(outputs: Outputs, references: Doubles) -> Bools:
    """Which rows are on the right side of more than half of those that they are compared with, (n,).

    Those are the rows of the same query with another score; where there are none, rows of any query, a few hundred spread over all.
    """
    given, right = references[:, SCORE], np.zeros(len(outputs), bool)
    anchors = (
        np.unique(np.linspace(0, len(outputs) - 1, min(ANCHORS, len(outputs))).astype(np.int64))
        if len(outputs)
        else np.empty(0, int)
    )
    for members in _queries(references):
        scores = given[members]
        others = members if scores.min() != scores.max() else anchors
        apart = np.sign(scores[:, None] - given[others][None])
        same = np.sign(outputs[members][:, None] - outputs[others][None]) == apart
        right[members] = 2 * (same & (apart != 0)).sum(1) > (apart != 0).sum(1)
    return right


def _queries(references: Doubles) -> list[npt.NDArray[np.int64]]:
    """The rows of each query."""
    if not len(references):
        return []
    order = np.argsort(references[:, QUERY], kind="stable")
    return np.split(order, np.flatnonzero(np.diff(references[order, QUERY])) + 1)


def _correlation(first: Doubles, second: Doubles, weights: Doubles) -> Doubles:
    """Pearson's, weighted, (r,); 0 where one of the two does not vary."""
    total = np.maximum(weights.sum(1, keepdims=True), 1)
    one, other = (
        values - (weights * values).sum(1, keepdims=True) / total for values in (first, second)
    )
    covariance = (weights * one * other).sum(1)
    scale = np.sqrt((weights * one**2).sum(1) * (weights * other**2).sum(1))
    correlation: Doubles = np.divide(
        covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-12
    )
    return correlation


def _mid_ranks(values: Doubles, weights: Doubles) -> Doubles:
    """Ranks among the weighted rows, ties sharing the middle one, (r, n)."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)
    of_value = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(of_value, 1) - of_value / 2 + 0.5
    place = np.empty(len(values), np.int64)
    place[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))
    of_rows: Doubles = ranks[:, place]
    return of_rows


def _auc(outputs: Doubles, relevant: Bools, weights: Doubles) -> Doubles:
    """Area under the ROC curve, by ranks (Mann & Whitney 1947); 0.5 where a resample has rows of one kind only."""
    of_relevant = weights * relevant
    positives = of_relevant.sum(1)
    pairs = positives * (weights.sum(1) - positives)
    wins = (of_relevant * _mid_ranks(outputs, weights)).sum(1) - positives * (positives + 1) / 2
    areas: Doubles = np.divide(wins, pairs, out=np.full_like(wins, 0.5), where=pairs > 0)
    return areas
