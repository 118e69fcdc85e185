"""Logistic regression whose strength of regularization is chosen by cross-validation.

The features are standardized for the fit; the weights returned are of the features as given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Array, Floats, Indices
from tasks.core.quiet import no_fit_warnings

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3)  # C of scikit-learn, of standardized features
USUAL = 0.03  # with too few rows to choose
FOLDS = 3
MOST_ROWS = 3_000  # that choose the strength
ITERATIONS = 200
# below the lowest bias: a class without rows
UNSEEN = np.float32(10.0)

Weights = tuple[Floats, Floats]  # (outputs, width) and (outputs,)


def solve_classes(
    vectors: Floats,
    classes: Indices,
    outputs: int,
    weights: Floats | None,
    seed: int,
    strength: float | None = None,
) -> Weights:
    """Multinomial, of one class a row.

    classes   (rows,), below `outputs`
    weights   (outputs,) of the classes; None: equal
    strength  None: choose it
    """
    z, undo = _standardized(vectors)
    strength = strength or _class_strength(z, classes, outputs, weights, seed)
    return undo(*next(_fit_classes(z, classes, outputs, weights, [strength])))


def class_strength(
    vectors: Floats, classes: Indices, outputs: int, weights: Floats | None, seed: int
) -> float:
    """The strength that solve_classes chooses."""
    return _class_strength(_standardized(vectors)[0], classes, outputs, weights, seed)


def _class_strength(
    z: Floats, classes: Indices, outputs: int, weights: Floats | None, seed: int
) -> float:
    def log_losses(rows: Indices, held: Indices) -> Iterator[float]:
        for fitted in _fit_classes(z[rows], classes[rows], outputs, weights, STRENGTHS):
            logits = z[held] @ fitted[0].T + fitted[1]
            logits -= logits.max(1, keepdims=True)
            chosen = logits[np.arange(len(held)), classes[held]]
            yield float(np.mean(np.log(np.exp(logits).sum(1)) - chosen))

    return _choose(log_losses, classes, seed)


def solve_labels(
    vectors: Floats, references: Array, outputs: int, weights: Floats | None, seed: int
) -> Weights:
    """One binary regression for each of `outputs` labels, all of one strength.

    references  (rows, outputs) of 0 and 1
    weights     (outputs,) of the labels' positive rows; None: equal
    """

    def log_losses(rows: Indices, held: Indices) -> Iterator[float]:
        for fitted in _fit_labels(z[rows], references[rows], weights, STRENGTHS):
            logits = z[held] @ fitted[0].T + fitted[1]
            yield float(np.mean(np.logaddexp(0, logits) - logits * references[held]))

    z, undo = _standardized(vectors)
    strength = _choose(log_losses, np.zeros(len(z), np.int64), seed)
    return undo(*next(_fit_labels(z, references, weights, [strength])))


def _standardized(vectors: Floats) -> tuple[Floats, Callable[[Floats, Floats], Weights]]:
    mean, spread = vectors.mean(0), vectors.std(0) + 1e-6

    def undo(weights: Floats, biases: Floats) -> Weights:
        plain = weights / spread
        return plain.astype(np.float32), (biases - plain @ mean).astype(np.float32)

    return (vectors - mean) / spread, undo


def _choose(
    losses: Callable[[Indices, Indices], Iterator[float]], strata: Indices, seed: int
) -> float:
    """The strength of the lowest mean loss on rows that the fit did not see."""
    folds: list[list[int]] = [[] for _ in range(FOLDS)]
    rows = np.random.default_rng(seed).permutation(len(strata))[:MOST_ROWS]
    # row by row of each stratum in turn: every fold has its share
    for place, row in enumerate(rows[np.argsort(strata[rows], kind="stable")]):
        folds[place % FOLDS].append(row)
    parts = [np.sort(np.asarray(fold, np.int64)) for fold in folds]
    if min(map(len, parts)) < FOLDS:
        return USUAL
    totals = np.zeros(len(STRENGTHS))
    for held in range(FOLDS):
        fitted_on = np.concatenate(parts[:held] + parts[held + 1 :])
        totals += list(losses(fitted_on, parts[held]))
    return STRENGTHS[int(totals.argmin())]


def _fit_classes(
    z: Floats,
    classes: Indices,
    outputs: int,
    weights: Floats | None,
    strengths: Sequence[float],
) -> Iterator[Weights]:
    """The regression at each strength."""
    seen = np.unique(classes)
    unseen = np.setdiff1d(np.arange(outputs), seen)
    each = None if weights is None else weights[classes]
    nothing = np.zeros((1, z.shape[1])), np.zeros(1)  # one class: nothing tells it from others
    several = len(seen) > 1
    fits = _regressions(z, classes, each, strengths) if several else [nothing] * len(strengths)
    for coefficients, intercepts in fits:
        if len(seen) == 2:  # one row of coefficients, of the second class against the first
            signs = np.array([-0.5, 0.5])
            coefficients, intercepts = signs[:, None] * coefficients, signs * intercepts
        all_weights = np.zeros((outputs, z.shape[1]), np.float32)
        biases = np.zeros(outputs, np.float32)
        all_weights[seen], biases[seen] = coefficients, intercepts
        biases[unseen] = biases[seen].min() - UNSEEN
        yield all_weights, biases


def _fit_labels(
    z: Floats, references: Array, weights: Floats | None, strengths: Sequence[float]
) -> Iterator[Weights]:
    """The regressions of all labels at each strength."""
    outputs, positives = references.shape[1], references.sum(0)
    all_weights = np.zeros((len(strengths), outputs, z.shape[1]), np.float32)
    biases = np.zeros((len(strengths), outputs), np.float32)
    # without both kinds of rows: the log-odds of the label's frequency
    biases[:] = np.log((positives + 1) / (len(z) - positives + 1))
    for label in np.flatnonzero((positives > 0) & (positives < len(z))):
        wanted = references[:, label].astype(np.int64)
        each = None if weights is None else np.where(wanted == 1, weights[label], 1.0)
        for place, fitted in enumerate(_regressions(z, wanted, each, strengths)):
            all_weights[place, label], biases[place, label] = fitted[0][0], fitted[1][0]
    yield from zip(all_weights, biases, strict=True)


def _regressions(
    z: Floats,
    wanted: npt.NDArray[np.int64],
    row_weights: npt.NDArray[np.floating] | None,
    strengths: Sequence[float],
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """scikit-learn's coefficients and intercepts; each fit starts from the one before."""
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(max_iter=ITERATIONS, warm_start=True)
    for strength in strengths:
        regression.set_params(C=strength)
        with no_fit_warnings():  # good enough as a head
            regression.fit(z, wanted, row_weights)
        yield regression.coef_.copy(), regression.intercept_.copy()
