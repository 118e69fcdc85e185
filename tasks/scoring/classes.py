"""Metrics of a classifier; probabilities are the softmax of its outputs.

outputs     (n, c) float: logits or log-probabilities
references  (n,) int in [0, c)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Doubles
from tasks.scoring.statistics.draws import Resampled

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats

BINS = 15  # confidence bins of equal width
# bounds: rows that are all predicted right would pull it to 0, and every probability to 1
TEMPERATURES = (0.25, 20.0)
PRIOR = 0.5  # standard deviation of a temperature's logarithm, as a priori expected
MAX_CONFUSIONS = 20  # pairs of labels listed


def classification_metrics(outputs: Floats, references: Array) -> dict[str, float]:
    """Accuracy, F1, Matthews correlation, log-loss (nats) and expected calibration error.

    F1 is averaged over the labels that occur in references or predictions.
    Raises ValueError if there are no rows.
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    predicted = outputs.argmax(-1)
    # the Matthews correlation is undefined with one label
    several = len(np.union1d(references, predicted)) > 1
    return {
        "accuracy": float(accuracy_score(references, predicted)),
        "macro_f1": float(f1_score(references, predicted, average="macro", zero_division=0)),
        "weighted_f1": float(f1_score(references, predicted, average="weighted", zero_division=0)),
        "mcc": float(matthews_corrcoef(references, predicted)) if several else 0.0,
        "log_loss": log_loss(outputs, references),
        "ece": expected_calibration_error(outputs, references),
    }


def resampled_classification_metrics(outputs: Floats, references: Array) -> Resampled:
    """`classification_metrics` of many resamples at once.

    All are computed from sums over rows, so that a thousand resamples cost one matrix product.
    """
    predicted, classes = outputs.argmax(-1), outputs.shape[1]
    right = (predicted == references).astype(np.float64)
    confidence = _confidence(outputs)
    every = np.arange(len(outputs))
    columns = np.zeros((len(outputs), 3 * classes + BINS + 2))
    columns[every, references] = right
    columns[every, classes + references] = 1
    columns[every, 2 * classes + predicted] = 1
    columns[every, 3 * classes + bin_of(confidence)] = right - confidence
    columns[:, -2], columns[:, -1] = _row_losses(outputs, references), 1
    return lambda draws: _metrics_of_sums(draws.sums(columns), classes)


def _metrics_of_sums(sums: Doubles, classes: int) -> dict[str, Doubles]:
    hits, actual, guessed, gaps = np.split(
        sums[:, :-2], [classes, 2 * classes, 3 * classes], axis=1
    )
    losses, total = sums[:, -2], sums[:, -1]
    f1 = 2 * hits / np.maximum(actual + guessed, 1)
    correct = hits.sum(1)
    spread = (total**2 - (actual**2).sum(1)) * (total**2 - (guessed**2).sum(1))
    covariance = correct * total - (actual * guessed).sum(1)
    return {
        "accuracy": correct / total,
        "macro_f1": f1.sum(1) / (actual + guessed > 0).sum(1),
        "weighted_f1": (f1 * actual).sum(1) / total,
        "mcc": np.divide(covariance, np.sqrt(spread), out=np.zeros_like(total), where=spread > 0),
        "log_loss": losses / total,
        "ece": np.abs(gaps).sum(1) / total,
    }


def classification_details(
    outputs: Floats, references: Array, labels: Sequence[str]
) -> dict[str, Any]:
    """Per-class results as plain JSON values.

    per_class    precision, recall, F1 and support
    confusion    matrix, rows actual; `confusions` lists its largest off-diagonal cells
    reliability  by confidence bin
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted, ids = outputs.argmax(-1), range(len(labels))
    scores = precision_recall_fscore_support(
        references, predicted, labels=list(ids), zero_division=0
    )
    names = ("precision", "recall", "f1", "support")
    per_class = [
        {
            "label": label,
            **{name: values[i].item() for name, values in zip(names, scores, strict=True)},
        }
        for i, label in enumerate(labels)
    ]
    confusion = confusion_matrix(references, predicted, labels=list(ids))
    return {
        "per_class": per_class,
        "confusions": _confusions(confusion, labels),
        "confusion": confusion.tolist(),
        "reliability": reliability_bins(outputs, references),
    }


def log_loss(outputs: Floats | Doubles, references: Array) -> float:
    """Mean negative log-likelihood, in nats; 0 is perfect."""
    return float(_row_losses(outputs, references).mean())


def expected_calibration_error(outputs: Floats, references: Array) -> float:
    """How far confidence sits from accuracy, in [0, 1]; 0 is perfect. Guo et al. 2017."""
    bins = reliability_bins(outputs, references)
    gaps = (entry["rows"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins)
    return float(sum(gaps) / len(references))


def reliability_bins(outputs: Floats, references: Array) -> list[dict[str, Any]]:
    """Mean confidence and accuracy per confidence bin (low, high]; empty bins are left out."""
    confidence = _confidence(outputs)
    right, bins = outputs.argmax(-1) == references, bin_of(confidence)
    entries = []
    for number in np.unique(bins):
        rows = bins == number
        entries.append(
            {
                "low": float(number / BINS),
                "high": float((number + 1) / BINS),
                "rows": int(rows.sum()),
                "confidence": float(confidence[rows].mean()),
                "accuracy": float(right[rows].mean()),
            }
        )
    return entries


def fit_temperature(outputs: Floats, references: Array) -> float:
    """The divisor of the outputs that `best_temperature` finds for the log-loss.

    It never changes which label ranks first, and never raises the log-loss of the rows it was
    fitted on.
    """
    return best_temperature(outputs, lambda scaled: log_loss(scaled, references), len(outputs))


def best_temperature(outputs: Floats, loss: Callable[[Doubles], float], decisions: int) -> float:
    """The likeliest divisor of outputs in TEMPERATURES, a priori near 1; 1.0 if none is better.

    loss  mean log-loss over `decisions`
    The maximum of the posterior with a normal prior of the logarithm: few rows say little of a
    temperature, and alone would often make probabilities worse (docs/shipping.md).
    """
    from scipy.optimize import minimize_scalar

    low, high = np.log(TEMPERATURES)
    exact = outputs.astype(np.float64)
    optimum = minimize_scalar(
        lambda exponent: loss(exact / np.exp(exponent)) + (exponent / PRIOR) ** 2 / (2 * decisions),
        bounds=(low, high),
        method="bounded",
    )
    return float(np.exp(optimum.x)) if optimum.fun < loss(exact) else 1.0


def _row_losses(outputs: Floats | Doubles, references: Array) -> Doubles:
    from scipy.special import log_softmax

    log_probs = log_softmax(outputs.astype(np.float64), -1)
    losses: Doubles = -log_probs[np.arange(len(outputs)), references]
    return losses


def _confidence(outputs: Floats) -> Doubles:
    from scipy.special import softmax

    confidence: Doubles = softmax(outputs.astype(np.float64), -1).max(-1)
    return confidence


def bin_of(confidence: Doubles) -> npt.NDArray[np.intp]:
    """Bin index of each confidence, in [0, BINS)."""
    return np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)


def _confusions(confusion: npt.NDArray[np.int64], labels: Sequence[str]) -> list[dict[str, Any]]:
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
    pairs = [divmod(int(cell), len(labels)) for cell in order if wrong.flat[cell]]
    support = confusion.sum(1)
    return [
        {
            "actual": labels[i],
            "predicted": labels[j],
            "rows": int(wrong[i, j]),
            "share_of_actual": float(wrong[i, j] / support[i]),
        }
        for i, j in pairs
    ]
