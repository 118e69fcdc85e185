"""TF-IDF baselines that a fine-tuned text model has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.quiet import no_fit_warnings

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from tasks.core.arrays import Array, Floats

MAX_FEATURES = 50_000
# share of blanks below which a script does not separate words (English: 0.17, Chinese: about 0)
SPACELESS = 0.05
UNSEEN = -50.0  # log-probability of a label that no training row has


def tfidf_logistic_regression(
    texts: Sequence[str],
    references: Sequence[int],
    held_out: Sequence[str],
    classes: int,
    seed: int,
) -> Floats | None:
    """Log-probabilities (n, classes) for `held_out`; None if the training rows have only one label.

    Features: word unigrams and bigrams, or character n-grams (1 to 3) for scripts without blanks
    between words.
    """
    present = np.unique(references)
    if len(present) < 2:
        return None
    vectorizer = make_vectorizer(texts)
    classifier = _fit(vectorizer.fit_transform(texts), references, seed)
    probs = classifier.predict_proba(vectorizer.transform(held_out))
    outputs = np.full((len(held_out), classes), UNSEEN, np.float64)
    # clipped: a probability rounded to 0 would have an infinite logarithm
    outputs[:, present] = np.log(np.maximum(probs, np.exp(UNSEEN)))
    return outputs.astype(np.float32)


def tfidf_one_vs_rest(
    texts: Sequence[str], references: Array, held_out: Sequence[str], seed: int
) -> Floats:
    """Log-odds (n, classes) for `held_out`, from one logistic regression per label.

    references  (n, classes): 1 where the row has the label
    """
    vectorizer = make_vectorizer(texts)
    features = vectorizer.fit_transform(texts)
    held_out_features = vectorizer.transform(held_out)
    outputs = np.empty((len(held_out), references.shape[1]), np.float32)
    for label, actual in enumerate(references.T > 0.5):
        if actual.all() or not actual.any():
            outputs[:, label] = -UNSEEN if actual.all() else UNSEEN
        else:
            classifier = _fit(features, actual, seed)
            outputs[:, label] = classifier.decision_function(held_out_features)
    return outputs


def tfidf_cosine(
    pairs: tuple[Sequence[str], Sequence[str]],
    scores: Sequence[float],
    held_out: tuple[Sequence[str], Sequence[str]],
) -> Floats:
    """Scores (n, 1) of the `held_out` pairs.

    Each is the cosine of the two texts, mapped to the scale of `scores` by least squares.
    """
    vectorizer = make_vectorizer(pairs[0]).fit([*pairs[0], *pairs[1]])
    train, test = (_cosines(vectorizer, *texts) for texts in (pairs, held_out))
    slope, offset = (
        np.polyfit(train, np.asarray(scores, np.float64), 1) if np.ptp(train) else (1.0, 0.0)
    )
    outputs: Floats = (slope * test + offset).astype(np.float32)[:, None]
    return outputs


def _cosines(vectorizer: TfidfVectorizer, first: Sequence[str], second: Sequence[str]) -> Array:
    # TF-IDF rows have norm 1 or 0, so their dot product is the cosine
    cosines: Array = np.asarray(
        vectorizer.transform(first).multiply(vectorizer.transform(second)).sum(axis=1)
    ).ravel()
    return cosines


def _fit(features: Any, references: Sequence[int] | Array, seed: int) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    # balanced for macro F1; coarse tolerance: a hundred labels would otherwise take minutes
    classifier = LogisticRegression(
        class_weight="balanced", tol=1e-3, max_iter=300, random_state=seed
    )
    with no_fit_warnings():  # stopping early is fine for a baseline
        return classifier.fit(features, references)


def separates_words(texts: Sequence[str]) -> bool:
    """Whether the texts' script puts blanks between words."""
    return sum(text.count(" ") for text in texts) >= SPACELESS * sum(map(len, texts))


def make_vectorizer(texts: Sequence[str]) -> TfidfVectorizer:
    """Unfitted TF-IDF vectorizer of words or of characters, whichever suits the texts' script."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not separates_words(texts):
        return TfidfVectorizer(
            analyzer="char", ngram_range=(1, 3), sublinear_tf=True, max_features=MAX_FEATURES
        )
    # punctuation is kept for the sake of emoticons
    return TfidfVectorizer(
        token_pattern=r"(?u)\w+|[^\w\s]+",
        ngram_range=(1, 2),
        sublinear_tf=True,
        max_features=MAX_FEATURES,
    )
