"""Two-sample drift tests: do two samples of texts come from one distribution, and how far apart?

`reference` is what a model was trained on, `recent` what it is asked now. Every test treats rows as
the independent units, so its false-alarm rate keeps to the p-value if both samples are drawn from
the same texts, with or without repeats.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.scoring.tfidf_baseline import make_vectorizer, separates_words

if TYPE_CHECKING:
    import pyarrow as pa

Texts = Sequence[str]

COMPONENTS = 100  # dimensions of the embedding
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class DriftResult:
    """Result of one test.

    p_value    in [0, 1], uncorrected
    effect     effect size, in [0, 1]
    reference  statistic of the reference sample, in the test's own unit
    recent     the same of the recent sample
    """

    name: str
    p_value: float
    effect: float
    reference: Any
    recent: Any


def draw_rows(rows: pa.Table, count: int, draw: np.random.Generator) -> pa.Table:
    """At most `count` rows at random, without replacement, sorted."""
    # sort first, so that the sample does not depend on the order of the rows
    ordered = rows.sort_by([(name, "ascending") for name in rows.column_names])
    if len(rows) <= count:
        return ordered
    return ordered.take(np.sort(draw.choice(len(rows), count, replace=False)))


def length_test(reference: Texts, recent: Texts) -> DriftResult:
    """Kolmogorov-Smirnov on characters per text; its statistic is the effect; reports medians."""
    from scipy.stats import ks_2samp

    before, now = ([len(text) for text in texts] for texts in (reference, recent))
    # asymptotic: the exact p-value is slow for thousands of rows, and ties make both conservative
    result = ks_2samp(before, now, method="asymp")
    medians = float(np.median(before)), float(np.median(now))
    return DriftResult("text_length", float(result.pvalue), float(result.statistic), *medians)


def vocabulary_test(reference: Texts, recent: Texts, draw: np.random.Generator) -> DriftResult:
    """Mann-Whitney on each row's rate of out-of-vocabulary words.

    The vocabulary is that of half the reference rows; recent rows are compared with the other half.
    Not a chi-square over all words: a row about a new topic has many unknown words at once, so a
    test that takes words for independent would raise false alarms.
    The effect is the difference in the share of unknown words among all words.
    In scripts without spaces between words, pairs of characters stand for words.
    """
    from scipy.stats import mannwhitneyu

    spaced = separates_words([*reference, *recent])
    order = draw.permutation(len(reference))
    known = {word for row in order[: len(order) // 2] for word in _words(reference[row], spaced)}
    held_out = [reference[row] for row in order[len(order) // 2 :]]
    counts = [
        np.asarray([_count_unknown(text, known, spaced) for text in texts], np.float64)
        for texts in (held_out, recent)
    ]
    before, now = (count[:, 0] / np.maximum(count[:, 1], 1) for count in counts)
    constant = np.ptp([*before, *now]) == 0  # no ranks to compare
    p_value = 1.0 if constant else float(mannwhitneyu(before, now, method="asymptotic").pvalue)
    shares = [float(count[:, 0].sum() / max(1.0, count[:, 1].sum())) for count in counts]
    return DriftResult("out_of_vocabulary", p_value, abs(shares[1] - shares[0]), *shares)


def _words(text: str, spaced: bool) -> list[str]:
    text = text.casefold()
    return _WORD.findall(text) if spaced else [text[i : i + 2] for i in range(len(text))]


def _count_unknown(text: str, known: set[str], spaced: bool) -> tuple[int, int]:
    """(unknown words, words)."""
    words = _words(text, spaced)
    return sum(word not in known for word in words), len(words)


def classifier_test(reference: Texts, recent: Texts, draw: np.random.Generator) -> DriftResult:
    """Classifier two-sample test (Lopez-Paz & Oquab 2017): TF-IDF, SVD, logistic regression.

    The classifier learns to tell the samples apart on equally many rows of each; half of each are
    held out. If the samples were alike, it would be right on a held-out row with probability 1/2:
    the p-value is the exact binomial one, the effect 2 (accuracy - 1/2), or 0 below 1/2.
    """
    from scipy.stats import binomtest

    count = min(len(reference), len(recent))
    halves: tuple[list[str], list[str]] = ([], [])
    for texts in (reference, recent):
        chosen = draw.permutation(len(texts))[:count]
        for half, rows in zip(halves, np.array_split(chosen, 2), strict=True):
            half.extend(texts[row] for row in rows)
    train, held_out = halves
    # array_split puts the odd row of both samples into the first half, so each half is balanced
    predicted = _tell_apart(train, held_out, seed=int(draw.integers(2**32)))
    right = predicted == np.repeat([0, 1], len(held_out) // 2)
    accuracy = float(right.mean())
    p_value = float(binomtest(int(right.sum()), len(right), 0.5, alternative="greater").pvalue)
    return DriftResult("classifier", p_value, max(0.0, 2 * accuracy - 1), 0.5, accuracy)


def _tell_apart(train: Texts, held_out: Texts, seed: int) -> npt.NDArray[np.int64]:
    """Predict the sample, 0 or 1, of each held-out text.

    train  first half from sample 0, second half from sample 1
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.linear_model import LogisticRegression

    if not any(text.strip() for text in train):  # nothing to learn from
        return np.zeros(len(held_out), np.int64)
    vectorizer = make_vectorizer(train)
    features = vectorizer.fit_transform(train)
    if features.shape[1] < 2:  # too few features for an SVD
        return np.zeros(len(held_out), np.int64)
    embedding = TruncatedSVD(min(COMPONENTS, *features.shape), random_state=seed)
    with np.errstate(invalid="ignore"):  # identical texts have no variance to explain
        embedded = embedding.fit_transform(features)
    classifier = LogisticRegression(max_iter=1000).fit(embedded, np.repeat([0, 1], len(train) // 2))
    vectors = embedding.transform(vectorizer.transform(held_out))
    predicted: npt.NDArray[np.int64] = classifier.predict(vectors)
    return predicted


def label_test(reference: Sequence[str], recent: Sequence[str]) -> DriftResult:
    """Chi-square on predicted label counts; the effect is total variation, shares are reported."""
    from scipy.stats import chi2_contingency

    labels = sorted({*reference, *recent})
    counts = np.asarray(
        [[list(sample).count(label) for label in labels] for sample in (reference, recent)]
    )
    shares = counts / counts.sum(1, keepdims=True)
    p_value = float(chi2_contingency(counts, correction=False).pvalue)
    total_variation = float(np.abs(shares[1] - shares[0]).sum() / 2)
    before, now = (dict(zip(labels, map(float, row), strict=True)) for row in shares)
    return DriftResult("predicted_labels", p_value, total_variation, before, now)
