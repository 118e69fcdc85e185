"""Two samples of texts, and whether they come from one distribution: each test with its p-value and the size of the difference.

`reference` is what a model was trained on, `recent` what it is asked now. Rows are the independent units of every test, so its
false alarms keep to the p-value wherever both samples are drawn from the same texts, repeats among them or not.
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

COMPONENTS = 100  # of the embedding
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class DriftTest:
    """One test's result.

    p_value    in [0, 1], not corrected
    effect     size of the difference, in [0, 1]
    reference  what was measured of the reference sample, in the measure's own unit;  recent  of the recent one
    """

    name: str
    p_value: float
    effect: float
    reference: Any
    recent: Any


def draw_rows(rows: pa.Table, count: int, draw: np.random.Generator) -> pa.Table:
    """At most `count` rows at random, without replacement, sorted; the order they come in does not matter."""
    # sorted first: then the generator picks the same rows whatever their order was; equal rows are as good as one another
    ordered = rows.sort_by([(name, "ascending") for name in rows.column_names])
    return (
        ordered
        if len(rows) <= count
        else ordered.take(np.sort(draw.choice(len(rows), count, replace=False)))
    )


def length_test(reference: Texts, recent: Texts) -> DriftTest:
    """Characters a text: two-sample Kolmogorov-Smirnov, whose statistic is the effect; medians are reported."""
    from scipy.stats import ks_2samp

    before, now = ([len(text) for text in texts] for texts in (reference, recent))
    # the exact p-value takes long for thousands of rows, and lengths have ties, which make either p-value conservative
    found = ks_2samp(before, now, method="asymp")
    return DriftTest(
        "text_length",
        float(found.pvalue),
        float(found.statistic),
        float(np.median(before)),
        float(np.median(now)),
    )


def vocabulary_test(reference: Texts, recent: Texts, draw: np.random.Generator) -> DriftTest:
    """Words that half of the reference rows do not have: recent rows against the other half, Mann-Whitney on the rates of rows.

    Not a chi-square of all words together: a row about something new has many unknown words at once, and tests that take words for
    independent would sound false alarms. The effect is the difference of the shares of all words.
    Pairs of characters stand for words where a script has no blanks.
    """
    from scipy.stats import mannwhitneyu

    blanks = separates_words([*reference, *recent])
    order = draw.permutation(len(reference))
    known = {word for row in order[: len(order) // 2] for word in _words(reference[row], blanks)}
    others = [reference[row] for row in order[len(order) // 2 :]]
    counts = [
        np.asarray([_unknown(text, known, blanks) for text in texts], np.float64)
        for texts in (others, recent)
    ]
    before, now = (count[:, 0] / np.maximum(count[:, 1], 1) for count in counts)
    alike = np.ptp([*before, *now]) == 0  # no ranks to compare
    p_value = 1.0 if alike else float(mannwhitneyu(before, now, method="asymptotic").pvalue)
    shares = [float(count[:, 0].sum() / max(1.0, count[:, 1].sum())) for count in counts]
    return DriftTest("out_of_vocabulary", p_value, abs(shares[1] - shares[0]), *shares)


def _words(text: str, blanks: bool) -> list[str]:
    text = text.casefold()
    return _WORD.findall(text) if blanks else [text[i : i + 2] for i in range(len(text))]


def _unknown(text: str, known: set[str], blanks: bool) -> tuple[int, int]:
    """(words that are not known, words)."""
    words = _words(text, blanks)
    return sum(word not in known for word in words), len(words)


def classifier_test(reference: Texts, recent: Texts, draw: np.random.Generator) -> DriftTest:
    """Whether a classifier tells the samples apart on rows held out (Lopez-Paz & Oquab 2017): TF-IDF, SVD, logistic regression.

    As many rows of one sample as of the other, half of each held out. Were the samples alike, each held-out row would be right with
    probability 1/2: the p-value is the exact binomial one, the effect 2 (accuracy - 1/2), 0 where the classifier does worse.
    """
    from scipy.stats import binomtest

    count = min(len(reference), len(recent))
    halves: tuple[list[str], list[str]] = ([], [])
    for texts in (reference, recent):
        chosen = draw.permutation(len(texts))[:count]
        for half, rows in zip(halves, np.array_split(chosen, 2), strict=True):
            half.extend(texts[row] for row in rows)
    seen, held_out = halves
    # array_split gives the odd row to the first half, of each sample alike
    right = _tell_apart(seen, held_out, seed=int(draw.integers(2**32))) == np.repeat(
        [0, 1], len(held_out) // 2
    )
    accuracy = float(right.mean())
    p_value = float(binomtest(int(right.sum()), len(right), 0.5, alternative="greater").pvalue)
    return DriftTest("classifier", p_value, max(0.0, 2 * accuracy - 1), 0.5, accuracy)


def _tell_apart(seen: Texts, held_out: Texts, seed: int) -> npt.NDArray[np.int64]:
    """Which sample each held-out text is of, 0 or 1; the first half of `seen` is of sample 0, the second of sample 1."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.linear_model import LogisticRegression

    if not any(text.strip() for text in seen):  # nothing to learn from
        return np.zeros(len(held_out), np.int64)
    vectorizer = make_vectorizer(seen)
    features = vectorizer.fit_transform(seen)
    if features.shape[1] < 2:  # less than an embedding is made of
        return np.zeros(len(held_out), np.int64)
    embedding = TruncatedSVD(min(COMPONENTS, *features.shape), random_state=seed)
    with np.errstate(invalid="ignore"):  # texts that are all the same have no variance to explain
        embedded = embedding.fit_transform(features)
    classifier = LogisticRegression(max_iter=1000).fit(embedded, np.repeat([0, 1], len(seen) // 2))
    found: npt.NDArray[np.int64] = classifier.predict(
        embedding.transform(vectorizer.transform(held_out))
    )
    return found


def label_test(reference: Sequence[str], recent: Sequence[str]) -> DriftTest:
    """Predicted labels: chi-square on their counts; the effect is the total variation, the measures are shares by label."""
    from scipy.stats import chi2_contingency

    labels = sorted({*reference, *recent})
    counts = np.asarray(
        [[list(sample).count(label) for label in labels] for sample in (reference, recent)]
    )
    shares = counts / counts.sum(1, keepdims=True)
    p_value = float(chi2_contingency(counts, correction=False).pvalue)
    before, now = (dict(zip(labels, map(float, row), strict=True)) for row in shares)
    return DriftTest(
        "predicted_labels", p_value, float(np.abs(shares[1] - shares[0]).sum() / 2), before, now
    )
