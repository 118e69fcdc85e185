"""Choose the threshold of a binary decision, and measure precision and recall there."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.core.arrays import Bools, Doubles

CURVE_POINTS = 200  # most points kept of a precision-recall curve


def best_threshold(scores: Doubles, actual: Bools) -> float | None:
    """The score above which predicting positive has the best F1; None if all rows are of one class.

    scores, actual  (n,)
    It lies halfway between two scores that occur. Of equally good thresholds it is the one nearest
    to 0, where an untuned model decides.
    """
    from sklearn.metrics import precision_recall_curve

    if actual.all() or not actual.any():
        return None
    precision, recall, thresholds = precision_recall_curve(actual, scores)
    f1 = _f1(precision[:-1], recall[:-1])
    below = np.concatenate(([thresholds[0] - 1], thresholds[:-1]))
    midpoints = (thresholds + below) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(min(midpoints[best], key=abs))


def describe_threshold(scores: Doubles, actual: Bools, threshold: float) -> dict[str, Any] | None:
    """Metrics at the threshold, average precision and the curve, as plain JSON values.

    scores, threshold  log-odds; in the result they are probabilities
    None if no row is positive. A long curve is thinned to CURVE_POINTS points, evenly over recall.
    """
    from scipy.special import expit
    from sklearn.metrics import average_precision_score, precision_recall_curve

    if not actual.any():
        return None
    precision, recall, thresholds = precision_recall_curve(actual, scores)
    predicted = scores > threshold
    hits = float((predicted & actual).sum())
    precision_at, recall_at = hits / max(float(predicted.sum()), 1.0), hits / float(actual.sum())
    # the last point of sklearn's curve, recall 0, has no threshold
    kept = np.arange(len(thresholds))
    if len(kept) > CURVE_POINTS:
        nearest = np.searchsorted(-recall[:-1], -np.linspace(1, 0, CURVE_POINTS))
        kept = np.unique(np.minimum(nearest, len(thresholds) - 1))
    return {
        "rows": len(actual),
        "positives": int(actual.sum()),
        "threshold": float(expit(threshold)),
        "precision": precision_at,
        "recall": recall_at,
        "f1": float(_f1(np.asarray([precision_at]), np.asarray([recall_at]))[0]),
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
