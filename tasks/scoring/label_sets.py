"""Statistics of a classifier that gives a row any number of labels.

outputs     (n, c) float: a label is given where its output is above 0; the sigmoid of an output is its probability
references  (n, c): 1 where the row has the label, 0 where not
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
PRIOR = 5  # rows: a label with as many validation rows of its own has a threshold halfway between its own best and that of all labels


def multi_label_metrics(outputs: Floats, references: Array) -> dict[str, float]:
    """METRICS of these rows; see `resampled_multi_label_metrics`."""
    found = resampled_multi_label_metrics(outputs, references)(Draws.once(len(outputs)))
    return {name: float(values[0]) for name, values in found.items()}


def resampled_multi_label_metrics(outputs: Floats, references: Array) -> Resampled:
    """METRICS of many resamples.

    Macro F1 is the mean over the labels that occur, as a reference or as a prediction; mean average precision over those that occur
    as a reference, and 0 where none does. Subset accuracy: rows whose labels are all right and none too many; Hamming loss: share
    of wrong decisions among all rows and labels.
    """
    given, actual, classes = outputs > 0, references > 0.5, outputs.shape[1]
    decisions = np.stack([given & actual, given, actual], 1, dtype=np.float64)
    columns = np.column_stack(
        [decisions.reshape(len(outputs), -1), (given != actual).sum(1), (given == actual).all(1)]
    )

    def of(draws: Draws) -> dict[str, Doubles]:
        sums, total, weights = draws.sums(columns), draws.sizes(), draws.of_rows()
        hits, claimed, there = np.split(sums[:, :-2], 3, axis=1)
        either = claimed + there
        occur = either > 0
        f1 = np.divide(2 * hits, either, out=np.zeros_like(either), where=occur)
        found = [
            _average_precisions(outputs[:, label], actual[:, label], weights)
            for label in range(classes)
        ]
        precisions, counted = (np.sum(values, 0) for values in zip(*found, strict=True))
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
    """Plain JSON values: `per_label`, and how many labels a row has.

    thresholds   (c,) of the labels' probabilities; outputs above 0 are above them
    """
    from sklearn.metrics import precision_recall_fscore_support

    given, actual, one = outputs > 0, references > 0.5, np.ones((1, len(outputs)))
    scores = precision_recall_fscore_support(actual, given, average=None, zero_division=0)
    per_label: list[dict[str, Any]] = []
    for i, label in enumerate(labels):
        entry: dict[str, Any] = (
            {"label": label}
            if thresholds is None
            else {"label": label, "threshold": float(thresholds[i])}
        )
        entry |= {
            name: values[i].item()
            for name, values in zip(("precision", "recall", "f1", "support"), scores, strict=True)
        }
        found, has_rows = _average_precisions(outputs[:, i], actual[:, i], one)
        per_label.append(entry | {"average_precision": float(found[0]) if has_rows[0] else None})
    return {
        "per_label": per_label,
        "labels_per_row": {
            "actual": float(actual.sum(1).mean()),
            "given": float(given.sum(1).mean()),
        },
    }


def binary_log_loss(outputs: Floats | Doubles, references: Array) -> float:
    """Mean negative log-likelihood of a decision, in nats; 0 is perfect. References may be shares between 0 and 1."""
    return float((np.logaddexp(0, outputs.astype(np.float64)) - references * outputs).mean())


def fit_sigmoid_temperature(outputs: Floats, references: Array) -> float:
    """The divisor of outputs that makes the references most likely, as tasks.scoring.classes.fit_temperature finds it for classes."""
    return best_temperature(outputs, lambda scaled: binary_log_loss(scaled, references))


def tune_thresholds(scores: Floats, references: Array) -> tuple[float, ...]:
    """For each label what to add to its scores, so that above 0 its F1 is best.

    A label's own best threshold counts by the rows that have it, n / (n + PRIOR); the rest is the one threshold that is best for all
    labels together (micro F1), so that a label with few rows, or none, is not decided by chance.
    """
    exact, actual = scores.astype(np.float64), references > 0.5
    shared = best_threshold(exact.ravel(), actual.ravel()) or 0.0
    biases = []
    for label in range(exact.shape[1]):
        own = best_threshold(exact[:, label], actual[:, label])
        count = 0 if own is None else int(actual[:, label].sum())
        trust = count / (count + PRIOR)
        biases.append(-(trust * (own or 0.0) + (1 - trust) * shared))
    return tuple(biases)


def _average_precisions(
    scores: Floats, actual: npt.NDArray[np.bool_], weights: Doubles
) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """(average precision of each resample, 0 where it has no row of the label; whether it has one), each (r,)."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    # equal scores are one step: none of them is above another
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    drawn = weights[:, order]
    hits, rows = np.cumsum(drawn * actual[order], 1)[:, ends], np.cumsum(drawn, 1)[:, ends]
    precision = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    gained = np.diff(hits, axis=1, prepend=0)
    positives = hits[:, -1]
    return (gained * precision).sum(1) / np.maximum(positives, 1), positives > 0
