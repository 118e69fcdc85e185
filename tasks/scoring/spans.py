"""Statistics of tagged words: entities by their exact span and type, and the words' tags by themselves.

outputs     (n, words, tags) float, tags as tasks.encoding.spans numbers them; NaN past a row's words
references  (n, words) int, below 0 past a row's words
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Doubles
from tasks.encoding.spans import Found, codes, find_spans
from tasks.scoring.classes import BINS, bin_of, reliability_bins
from tasks.scoring.statistics.draws import Draws

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats

NOTHING = "(none)"  # no entity there, in a confusion matrix
BOUNDARIES = ("too short", "too long", "shifted")


@dataclass(frozen=True)
class RowCounts:
    """What every metric is made of, by row.

    hits, predicted, actual  (n, types) entities
    right, words, loss       (n,): words whose tag is right, words, nats of all of them
    gaps                     (n, BINS): right minus confidence of the words in each bin of confidence
    """

    hits: Doubles
    predicted: Doubles
    actual: Doubles
    right: Doubles
    words: Doubles
    loss: Doubles
    gaps: Doubles


def predicted_tags(outputs: Floats, references: Array | None = None) -> npt.NDArray[np.int64]:
    """(n, words) the likeliest tags; below 0 where there is no word."""
    missing = np.isnan(outputs[..., 0]) if references is None else references < 0
    return np.where(missing, -1, outputs.argmax(-1))


def word_tags(outputs: Floats, words: Sequence[Sequence[Any]]) -> npt.NDArray[np.int64]:
    """The likeliest tags, below 0 past a row's words: a row without words has an output all the same."""
    there = np.arange(outputs.shape[1]) < np.asarray(list(map(len, words)))[:, None]
    return np.where(there, predicted_tags(outputs), -1)


def word_outputs(outputs: Floats, references: Array) -> tuple[Floats, Array]:
    """(outputs, references) of all words of all rows, one after the other."""
    there = references >= 0
    return outputs[there], references[there]


def count_rows(outputs: Floats, references: Array) -> RowCounts:
    """Everything that metrics need, in one pass."""
    from scipy.special import log_softmax

    rows, kinds = len(outputs), (outputs.shape[-1] - 1) // 2
    found, wanted = find_spans(predicted_tags(outputs, references)), find_spans(references)
    hit = np.isin(codes(found, references.shape[1]), codes(wanted, references.shape[1]))

    def by_row(spans: Found, chosen: Any) -> Doubles:
        places = spans.rows[chosen] * kinds + spans.kinds[chosen]
        return np.bincount(places, minlength=rows * kinds).reshape(rows, kinds).astype(np.float64)

    row_of_word = np.nonzero(references >= 0)[0]
    given, actual = word_outputs(outputs, references)
    likelihoods = log_softmax(given.astype(np.float64), -1)
    confidence, right = np.exp(likelihoods.max(-1)), (given.argmax(-1) == actual).astype(np.float64)
    losses = -likelihoods[np.arange(len(actual)), actual]
    return RowCounts(
        hits=by_row(found, hit), predicted=by_row(found, slice(None)), actual=by_row(wanted, slice(None)),
        right=_sums(row_of_word, right, rows), words=_sums(row_of_word, np.ones(len(actual)), rows), loss=_sums(row_of_word, losses, rows),
        gaps=_sums(row_of_word * BINS + bin_of(confidence), right - confidence, rows * BINS).reshape(rows, BINS),
    )  # fmt: skip


def _sums(groups: Array, values: Doubles, count: int) -> Doubles:
    return np.bincount(groups, values, count).astype(np.float64)


def span_metrics(counts: RowCounts, draws: Draws) -> dict[str, Doubles]:
    """Metrics of many resamples, each (r,).

    Precision, recall and F1 are over all entities (micro); macro F1 is the mean over the types that occur, as a reference or as a
    prediction. Where there is nothing to divide by, they are 0. Accuracy, log-loss (nats) and calibration error are those of words.
    """
    hits, predicted, actual = (
        draws.sums(values) for values in (counts.hits, counts.predicted, counts.actual)
    )
    words = np.maximum(draws.sums(counts.words), 1)
    each = 2 * hits / np.maximum(predicted + actual, 1)
    hit, claimed, there = hits.sum(1), predicted.sum(1), actual.sum(1)
    return {
        "f1": 2 * hit / np.maximum(claimed + there, 1),
        "precision": hit / np.maximum(claimed, 1),
        "recall": hit / np.maximum(there, 1),
        "macro_f1": each.sum(1) / np.maximum((predicted + actual > 0).sum(1), 1),
        "accuracy": draws.sums(counts.right) / words,
        "log_loss": draws.sums(counts.loss) / words,
        "ece": np.abs(draws.sums(counts.gaps)).sum(1) / words,
    }


def span_details(outputs: Floats, references: Array, types: Sequence[str]) -> dict[str, Any]:
    """Plain JSON values: `per_class`, `errors` by kind, the `confusion` of types (rows: actual), its `confusions`, `reliability`."""
    counts = count_rows(outputs, references)
    found, wanted = find_spans(predicted_tags(outputs, references)), find_spans(references)
    confusion = _confusion(found, wanted, references.shape[1], len(types))
    names = [*types, NOTHING]
    pairs = [
        (names[i], names[j], int(confusion[i, j]))
        for i, j in np.ndindex(*confusion.shape)
        if i != j and confusion[i, j]
    ]
    return {
        "per_class": list(_per_class(counts, types)),
        "errors": _errors(found, wanted, types),
        "confusions": [
            {"actual": actual, "predicted": guess, "entities": count}
            for actual, guess, count in sorted(pairs, key=lambda pair: -pair[2])
        ],
        "confusion": confusion.tolist(),
        "reliability": reliability_bins(*word_outputs(outputs, references)),
    }


def _per_class(counts: RowCounts, types: Sequence[str]) -> Iterator[dict[str, Any]]:
    for kind, hits, predicted, actual in zip(
        types, counts.hits.sum(0), counts.predicted.sum(0), counts.actual.sum(0), strict=True
    ):
        yield {
            "label": kind,
            "precision": float(hits / max(predicted, 1)),
            "recall": float(hits / max(actual, 1)),
            "f1": float(2 * hits / max(predicted + actual, 1)),
            "support": int(actual),
        }


def _confusion(found: Found, wanted: Found, width: int, kinds: int) -> npt.NDArray[np.int64]:
    """(types + 1, types + 1): entities of the same words by actual and predicted type; the last is that there is none of these words."""
    ours, theirs = codes(found, width, kinds=False), codes(wanted, width, kinds=False)
    every = np.union1d(ours, theirs)
    actual, guess = np.full(len(every), kinds), np.full(len(every), kinds)
    actual[np.searchsorted(every, theirs)] = wanted.kinds
    guess[np.searchsorted(every, ours)] = found.kinds
    return np.bincount(actual * (kinds + 1) + guess, minlength=(kinds + 1) ** 2).reshape(
        kinds + 1, kinds + 1
    )


def _errors(found: Found, wanted: Found, types: Sequence[str]) -> list[dict[str, Any]]:
    """Of each type how its entities were found or missed, and how often it was claimed where there is no entity at all."""
    rows = int(max(found.rows.max(initial=-1), wanted.rows.max(initial=-1))) + 1
    tallies = [Counter[str]() for _ in types]
    for claims, entities in zip(found.by_row(rows), wanted.by_row(rows), strict=True):
        for entity in entities:
            tallies[entity[2]][
                _fate(entity, [claim for claim in claims if _overlap(claim, entity) > 0])
            ] += 1
        for claim in claims:
            tallies[claim[2]]["made up"] += all(_overlap(claim, entity) <= 0 for entity in entities)
    names = ("exact", "other type", *BOUNDARIES, "missed", "made up")
    return [
        {"label": kind, **{name: tally[name] for name in names}}
        for kind, tally in zip(types, tallies, strict=True)
    ]


def _fate(wanted: tuple[int, int, int], overlapping: Sequence[tuple[int, int, int]]) -> str:
    """What became of an entity, by the best of the predictions that overlap it."""
    if not overlapping:
        return "missed"
    if wanted in overlapping:
        return "exact"
    start, end, kind = wanted
    same = [span for span in overlapping if span[2] == kind]
    if not same:
        return "other type"
    first, last, _ = max(same, key=lambda span: _overlap(span, wanted))
    inside, around = first >= start and last <= end, first <= start and last >= end
    return BOUNDARIES[0] if inside else BOUNDARIES[1] if around else BOUNDARIES[2]


def _overlap(span: tuple[int, int, int], other: tuple[int, int, int]) -> int:
    """Words that both have; 0 or less where they have none."""
    return min(span[1], other[1]) - max(span[0], other[0])
