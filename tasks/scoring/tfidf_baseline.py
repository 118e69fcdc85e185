"""The plain method that a fine-tuned text classifier has to beat."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from tasks.core.arrays import Array, Floats

MAX_FEATURES = 50_000
SPACELESS = 0.05  # share of blanks below which a script does not separate words (English: 0.17, Chinese: about 0)
UNSEEN = -50.0  # log-probability of a label that the training rows do not have


def tfidf_logistic_regression(
    texts: Sequence[str],
    references: Sequence[int],
    held_out: Sequence[str],
    classes: int,
    seed: int,
) -> Floats | None:
    """Log-probabilities (n, classes) for `held_out`; None where the training rows have one label only.

    Words and pairs of words; runs of 1 to 3 characters where the script does not put blanks between words.
    """
    seen = np.unique(references)
    if len(seen) < 2:
        return None
    vectorizer = make_vectorizer(texts)
    classifier = _fit(vectorizer.fit_transform(texts), references, seed)
    found = np.full((len(held_out), classes), UNSEEN, np.float64)
    # the logarithm of a probability that is rounded to 0 would be infinite
    found[:, seen] = np.log(
        np.maximum(classifier.predict_proba(vectorizer.transform(held_out)), np.exp(UNSEEN))
    )
    return found.astype(np.float32)


def tfidf_one_vs_rest(
    texts: Sequence[str], references: Array, held_out: Sequence[str], seed: int
) -> Floats:
    """Log-odds (n, classes) for `held_out` of one logistic regression a label.

    references  (n, classes): 1 where the row has the label
    """
    vectorizer = make_vectorizer(texts)
    features = vectorizer.fit_transform(texts)
    asked = vectorizer.transform(held_out)
    found = np.empty((len(held_out), references.shape[1]), np.float32)
    for label, wanted in enumerate(references.T > 0.5):
        if wanted.all() or not wanted.any():
            found[:, label] = -UNSEEN if wanted.all() else UNSEEN
        else:
            found[:, label] = _fit(features, wanted, seed).decision_function(asked)
    return found


def tfidf_cosine(
    pairs: tuple[Sequence[str], Sequence[str]],
    scores: Sequence[float],
    asked: tuple[Sequence[str], Sequence[str]],
) -> Floats:
    """Scores (n, 1) of the pairs that are asked for: the cosine of both texts, brought to the scores' scale by least squares."""
    vectorizer = make_vectorizer(pairs[0]).fit([*pairs[0], *pairs[1]])
    trained, wanted = (_cosines(vectorizer, *both) for both in (pairs, asked))
    slope, offset = (
        np.polyfit(trained, np.asarray(scores, np.float64), 1) if np.ptp(trained) else (1.0, 0.0)
    )
    found: Floats = (slope * wanted + offset).astype(np.float32)[:, None]
    return found


def _cosines(vectorizer: TfidfVectorizer, first: Sequence[str], second: Sequence[str]) -> Array:
    # rows have length 1 or 0, so that their product is the cosine
    cosines: Array = np.asarray(
        vectorizer.transform(first).multiply(vectorizer.transform(second)).sum(axis=1)
    ).ravel()
    return cosines


def _fit(features: Any, references: Sequence[int] | Array, seed: int) -> LogisticRegression:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # balanced, as macro F1 asks; the tolerance is coarse because a hundred labels would take minutes else
    classifier = LogisticRegression(
        class_weight="balanced", tol=1e-3, max_iter=300, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline may stop a little early
        return classifier.fit(features, references)


def separates_words(texts: Sequence[str]) -> bool:
    """Whether the texts' script puts blanks between words."""
    return sum(text.count(" ") for text in texts) >= SPACELESS * sum(map(len, texts))


def make_vectorizer(texts: Sequence[str]) -> TfidfVectorizer:
    """TF-IDF of words and pairs of words, or of runs of 1 to 3 characters, as the texts' script asks; not yet fitted."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not separates_words(texts):
        return TfidfVectorizer(
            analyzer="char", ngram_range=(1, 3), sublinear_tf=True, max_features=MAX_FEATURES
        )
    # punctuation is kept: it makes emoticons
    return TfidfVectorizer(
        token_pattern=r"(?u)\w+|[^\w\s]+",
        ngram_range=(1, 2),
        sublinear_tf=True,
        max_features=MAX_FEATURES,
    )
