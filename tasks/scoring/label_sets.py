"""Metrics of a multi-label classifier.

outputs     (n, c) float: a label is predicted where its output is above 0; its probability is the
            sigmoid of the output
references  (n, c): 1 where the row has the label, else 0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Doubles
from tasks.scoring.classes import best_temperature
from tasks.scoring.statistics.draws import Draws, Resampled
from tasks.scoring.thresholds import best_threshold

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats

METRICS = {
    "mean_average_precision": 1,
    "macro_f1": 1,
    "micro_f1": 1,
    "subset_accuracy": 1,
    "hamming_loss": -1,
}
# rows: a label with this many validation rows of its own gets a threshold halfway between its own
# best and the shared one
PRIOR = 5


def multi_label_metrics(outputs: Floats, references: Array) -> dict[str, float]:
    """METRICS of these rows; see `resampled_multi_label_metrics`."""
    metrics = resampled_multi_label_metrics(outputs, references)(Draws.once(len(outputs)))
    return {name: float(values[0]) for name, values in metrics.items()}


def resampled_multi_label_metrics(outputs: Floats, references: Array) -> Resampled:
    """METRICS of many resamples.

    macro_f1                mean over the labels that occur in references or predictions
    mean_average_precision  mean over the labels that occur in references; 0 if none does
    subset_accuracy         share of rows whose set of labels is exactly right
    hamming_loss            share of wrong decisions among all (row, label) pairs
    """
    predicted, actual, classes = outputs > 0, references > 0.5, outputs.shape[1]
    decisions = np.stack([predicted & actual, predicted, actual], 1, dtype=np.float64)
    wrong = predicted != actual
    columns = np.column_stack([decisions.reshape(len(outputs), -1), wrong.sum(1), (~wrong).all(1)])

    def of(draws: Draws) -> dict[str, Doubles]:
        sums, total, weights = draws.sums(columns), draws.sizes(), draws.of_rows()
        hits, claimed, support = np.split(sums[:, :-2], 3, axis=1)
        either = claimed + support
        occur = either > 0
        f1 = np.divide(2 * hits, either, out=np.zeros_like(either), where=occur)
        per_label = [
            _average_precisions(outputs[:, label], actual[:, label], weights)
            for label in range(classes)
        ]
        precisions, counted = (np.sum(values, 0) for values in zip(*per_label, strict=True))
        return {
            "mean_average_precision": precisions / np.maximum(counted, 1),
            "macro_f1": f1.sum(1) / np.maximum(occur.sum(1), 1),
            "micro_f1": 2 * hits.sum(1) / np.maximum(either.sum(1), 1),
            "subset_accuracy": sums[:, -1] / total,
            "hamming_loss": sums[:, -2] / (total * classes),
        }

    return of


def multi_label_details(
    outputs: Floats, references: Array, labels: Sequence[str], thresholds: Array | None = None
) -> dict[str, Any]:
    """Plain JSON values: results `per_label`, and the mean number of labels per row.

    thresholds  (c,) on the labels' probabilities; an output above 0 is above its threshold
    """
    from sklearn.metrics import precision_recall_fscore_support

    predicted, actual, weights = outputs > 0, references > 0.5, np.ones((1, len(outputs)))
    scores = precision_recall_fscore_support(actual, predicted, average=None, zero_division=0)
    per_label: list[dict[str, Any]] = []
    for i, label in enumerate(labels):
        entry: dict[str, Any] = {"label": label}
        if thresholds is not None:
            entry["threshold"] = float(thresholds[i])
        entry |= {
            name: values[i].item()
            for name, values in zip(("precision", "recall", "f1", "support"), scores, strict=True)
        }
        precision, has_rows = _average_precisions(outputs[:, i], actual[:, i], weights)
        entry["average_precision"] = float(precision[0]) if has_rows[0] else None
        per_label.append(entry)
    return {
        "per_label": per_label,
        "labels_per_row": {
            "actual": float(actual.sum(1).mean()),
            "given": float(predicted.sum(1).mean()),
        },
    }


def binary_log_loss(outputs: Floats | Doubles, references: Array) -> float:
    """Mean binary cross-entropy per decision, in nats; 0 is perfect.

    References may be fractions between 0 and 1.
    """
    return float((np.logaddexp(0, outputs.astype(np.float64)) - references * outputs).mean())


def fit_sigmoid_temperature(outputs: Floats, references: Array) -> float:
    """The divisor of the outputs that `best_temperature` finds for the binary log-loss."""
    return best_temperature(
        outputs, lambda scaled: binary_log_loss(scaled, references), outputs.size
    )


def tune_thresholds(scores: Floats, references: Array) -> tuple[float, ...]:
    """The bias to add to each label's scores so that deciding at 0 maximizes F1.

    A label's own best threshold is weighted n / (n + PRIOR), n being the rows that have the label,
    and shrunk to the threshold that is best for all labels together (micro F1): a label with few
    rows, or none, is then not decided by chance.
    """
    exact, actual = scores.astype(np.float64), references > 0.5
    shared = best_threshold(exact.ravel(), actual.ravel()) or 0.0
    biases = []
    for label in range(exact.shape[1]):
        own = best_threshold(exact[:, label], actual[:, label])
        count = 0 if own is None else int(actual[:, label].sum())
        weight = count / (count + PRIOR)
        biases.append(-(weight * (own or 0.0) + (1 - weight) * shared))
    return tuple(biases)


def _average_precisions(
    scores: Floats, actual: npt.NDArray[np.bool_], weights: Doubles
) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """(average precision of each resample, whether it has a row of the label), (r,) each.

    Average precision is 0 in a resample without a row of the label.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    # ties form one step of the curve: none of them ranks above another
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    drawn = weights[:, order]
    hits, rows = np.cumsum(drawn * actual[order], 1)[:, ends], np.cumsum(drawn, 1)[:, ends]
    precision = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    gained = np.diff(hits, axis=1, prepend=0)
    positives = hits[:, -1]
    return (gained * precision).sum(1) / np.maximum(positives, 1), positives > 0
