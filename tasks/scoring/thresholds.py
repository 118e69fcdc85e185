"""Where to put the threshold of a yes-or-no decision, and what precision and recall it has there."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.core.arrays import Bools, Doubles

CURVE_POINTS = 200  # of a precision-recall curve that is kept


def best_threshold(scores: Doubles, actual: Bools) -> float | None:
    """The score above which to say yes, for the best F1; None where there is no yes or no no to learn it from.

    scores, actual   (n,)
    It lies halfway between two scores that occur; of equally good ones it is the nearest to 0, where an untuned model decides.
    """
    from sklearn.metrics import precision_recall_curve

    if actual.all() or not actual.any():
        return None
    precision, recall, thresholds = precision_recall_curve(actual, scores)
    f1 = _f1(precision[:-1], recall[:-1])
    below = np.concatenate(([thresholds[0] - 1], thresholds[:-1]))
    middles = (thresholds + below) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(min(middles[best], key=abs))


def describe_threshold(scores: Doubles, actual: Bools, threshold: float) -> dict[str, Any] | None:
    """Precision, recall and F1 of saying yes above the threshold, average precision and the curve; None where there is no yes.

    scores, threshold   log-odds; in the result they are probabilities
    Plain JSON values; of a long curve CURVE_POINTS points, spread over the recall.
    """
    from scipy.special import expit
    from sklearn.metrics import average_precision_score, precision_recall_curve

    if not actual.any():
        return None
    precision, recall, thresholds = precision_recall_curve(actual, scores)
    said = scores > threshold
    hits = float((said & actual).sum())
    at = hits / max(float(said.sum()), 1.0), hits / float(actual.sum())
    kept = np.arange(
        len(thresholds)
    )  # the last point of sklearn's curve, recall 0, has no threshold
    if len(kept) > CURVE_POINTS:
        wanted = np.searchsorted(-recall[:-1], -np.linspace(1, 0, CURVE_POINTS))
        kept = np.unique(np.minimum(wanted, len(thresholds) - 1))
    return {
        "rows": len(actual),
        "positives": int(actual.sum()),
        "threshold": float(expit(threshold)),
        "precision": at[0],
        "recall": at[1],
        "f1": float(_f1(np.asarray([at[0]]), np.asarray([at[1]]))[0]),
        "average_precision": float(average_precision_score(actual, scores)),
        "curve": [
            {
                "threshold": float(expit(thresholds[i])),
                "precision": float(precision[i]),
                "recall": float(recall[i]),
            }
            for i in kept.tolist()
        ],
    }


def _f1(precision: Doubles, recall: Doubles) -> Doubles:
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
