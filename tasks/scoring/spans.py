"""Statistics of tagged words: entities by exact span and type, and tags word by word.

outputs     (n, words, tags) float, tags numbered as in tasks.encoding.spans; NaN past a row's words
references  (n, words) int, below 0 past a row's words

Counts are arrays of rows, because the bootstrap weighs rows thousands of times: seqeval and
nervaluate score lists of tags once (tests compare the results with seqeval's).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Doubles
from tasks.encoding.spans import EntitySpans, find_spans, span_codes
from tasks.scoring.classes import BINS, bin_of, reliability_bins
from tasks.scoring.statistics.draws import Draws

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats

NOTHING = "(none)"  # the "no entity" class of the confusion matrix
BOUNDARIES = ("too short", "too long", "shifted")


@dataclass(frozen=True)
class RowCounts:
    """Per-row sums from which every metric is computed.

    hits, predicted, actual  (n, types): number of entities
    right, words, loss       (n,): words tagged right, words, their total log-loss in nats
    gaps                     (n, BINS): sum of right minus confidence over the words in each
                             confidence bin
    """

    hits: Doubles
    predicted: Doubles
    actual: Doubles
    right: Doubles
    words: Doubles
    loss: Doubles
    gaps: Doubles


def predicted_tags(outputs: Floats, references: Array | None = None) -> npt.NDArray[np.int64]:
    """The likeliest tags, (n, words); below 0 where there is no word."""
    missing = np.isnan(outputs[..., 0]) if references is None else references < 0
    return np.where(missing, -1, outputs.argmax(-1))


def word_tags(outputs: Floats, words: Sequence[Sequence[Any]]) -> npt.NDArray[np.int64]:
    """The likeliest tags, below 0 past a row's words.

    NaN alone does not tell: a row without words has an output all the same.
    """
    present = np.arange(outputs.shape[1]) < np.asarray(list(map(len, words)))[:, None]
    return np.where(present, predicted_tags(outputs), -1)


def word_outputs(outputs: Floats, references: Array) -> tuple[Floats, Array]:
    """(outputs, references) of the words of all rows, concatenated."""
    present = references >= 0
    return outputs[present], references[present]


def count_rows(outputs: Floats, references: Array) -> RowCounts:
    """Count everything that the metrics need, in one pass."""
    from scipy.special import log_softmax

    rows, types = len(outputs), (outputs.shape[-1] - 1) // 2
    predicted, actual = find_spans(predicted_tags(outputs, references)), find_spans(references)
    hit = np.isin(
        span_codes(predicted, references.shape[1]), span_codes(actual, references.shape[1])
    )

    def by_row(spans: EntitySpans, selected: Any) -> Doubles:
        cells = spans.rows[selected] * types + spans.kinds[selected]
        return np.bincount(cells, minlength=rows * types).reshape(rows, types).astype(np.float64)

    row = np.nonzero(references >= 0)[0]  # of each word
    logits, tags = word_outputs(outputs, references)
    likelihoods = log_softmax(logits.astype(np.float64), -1)
    confidence, right = np.exp(likelihoods.max(-1)), (logits.argmax(-1) == tags).astype(np.float64)
    gaps = _sums(row * BINS + bin_of(confidence), right - confidence, rows * BINS)
    return RowCounts(
        hits=by_row(predicted, hit),
        predicted=by_row(predicted, slice(None)),
        actual=by_row(actual, slice(None)),
        right=_sums(row, right, rows),
        words=_sums(row, np.ones(len(tags)), rows),
        loss=_sums(row, -likelihoods[np.arange(len(tags)), tags], rows),
        gaps=gaps.reshape(rows, BINS),
    )


def _sums(groups: Array, values: Doubles, count: int) -> Doubles:
    return np.bincount(groups, values, count).astype(np.float64)


def span_metrics(counts: RowCounts, draws: Draws) -> dict[str, Doubles]:
    """Metrics of each resample, (r,) each.

    Precision, recall and F1 are micro averages over all entities; macro F1 is the mean over the
    types that occur in references or predictions. They are 0 where the denominator is 0. Accuracy,
    log-loss (nats) and calibration error are per word.
    """
    hits, predicted, actual = (
        draws.sums(values) for values in (counts.hits, counts.predicted, counts.actual)
    )
    words = np.maximum(draws.sums(counts.words), 1)
    f1 = 2 * hits / np.maximum(predicted + actual, 1)
    hit, claimed, support = hits.sum(1), predicted.sum(1), actual.sum(1)
    return {
        "f1": 2 * hit / np.maximum(claimed + support, 1),
        "precision": hit / np.maximum(claimed, 1),
        "recall": hit / np.maximum(support, 1),
        "macro_f1": f1.sum(1) / np.maximum((predicted + actual > 0).sum(1), 1),
        "accuracy": draws.sums(counts.right) / words,
        "log_loss": draws.sums(counts.loss) / words,
        "ece": np.abs(draws.sums(counts.gaps)).sum(1) / words,
    }


def span_details(outputs: Floats, references: Array, types: Sequence[str]) -> dict[str, Any]:
    """Per-type results as plain JSON values.

    per_class    precision, recall, F1 and support
    errors       how the entities of each type were found or missed
    confusion    matrix of types, rows actual; `confusions` lists its off-diagonal cells
    reliability  by confidence bin, of words
    """
    counts = count_rows(outputs, references)
    predicted, actual = find_spans(predicted_tags(outputs, references)), find_spans(references)
    confusion = _confusion(predicted, actual, references.shape[1], len(types))
    names = [*types, NOTHING]
    cells = [
        (names[i], names[j], int(confusion[i, j]))
        for i, j in np.ndindex(*confusion.shape)
        if i != j and confusion[i, j]
    ]
    return {
        "per_class": list(_per_class(counts, types)),
        "errors": _errors(predicted, actual, types),
        "confusions": [
            {"actual": row, "predicted": column, "entities": count}
            for row, column, count in sorted(cells, key=lambda cell: -cell[2])
        ],
        "confusion": confusion.tolist(),
        "reliability": reliability_bins(*word_outputs(outputs, references)),
    }


def _per_class(counts: RowCounts, types: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name, hits, predicted, actual in zip(
        types, counts.hits.sum(0), counts.predicted.sum(0), counts.actual.sum(0), strict=True
    ):
        yield {
            "label": name,
            "precision": float(hits / max(predicted, 1)),
            "recall": float(hits / max(actual, 1)),
            "f1": float(2 * hits / max(predicted + actual, 1)),
            "support": int(actual),
        }


def _confusion(
    predicted: EntitySpans, actual: EntitySpans, width: int, types: int
) -> npt.NDArray[np.int64]:
    """Confusion matrix of entity types, rows actual, (types + 1, types + 1).

    Entities match if they cover the same words; the last row and column count entities without
    a match.
    """
    predicted_codes = span_codes(predicted, width, kinds=False)
    actual_codes = span_codes(actual, width, kinds=False)
    every = np.union1d(predicted_codes, actual_codes)
    rows, columns = np.full(len(every), types), np.full(len(every), types)
    rows[np.searchsorted(every, actual_codes)] = actual.kinds
    columns[np.searchsorted(every, predicted_codes)] = predicted.kinds
    size = types + 1
    return np.bincount(rows * size + columns, minlength=size**2).reshape(size, size)


def _errors(
    predicted: EntitySpans, actual: EntitySpans, types: Sequence[str]
) -> list[dict[str, Any]]:
    """How the entities of each type were found or missed.

    `made up` counts the predictions of the type that overlap no entity at all.
    """
    rows = int(max(predicted.rows.max(initial=-1), actual.rows.max(initial=-1))) + 1
    tallies = [Counter[str]() for _ in types]
    for guesses, entities in zip(predicted.by_row(rows), actual.by_row(rows), strict=True):
        for entity in entities:
            overlapping = [guess for guess in guesses if _overlap(guess, entity) > 0]
            tallies[entity[2]][_outcome(entity, overlapping)] += 1
        for guess in guesses:
            tallies[guess[2]]["made up"] += all(_overlap(guess, entity) <= 0 for entity in entities)
    outcomes = ("exact", "other type", *BOUNDARIES, "missed", "made up")
    return [
        {"label": name, **{outcome: tally[outcome] for outcome in outcomes}}
        for name, tally in zip(types, tallies, strict=True)
    ]


def _outcome(entity: tuple[int, int, int], overlapping: Sequence[tuple[int, int, int]]) -> str:
    """How an entity was predicted, judged by the best prediction that overlaps it."""
    if not overlapping:
        return "missed"
    if entity in overlapping:
        return "exact"
    start, end, type_id = entity
    same_type = [span for span in overlapping if span[2] == type_id]
    if not same_type:
        return "other type"
    first, last, _ = max(same_type, key=lambda span: _overlap(span, entity))
    inside, around = first >= start and last <= end, first <= start and last >= end
    return BOUNDARIES[0] if inside else BOUNDARIES[1] if around else BOUNDARIES[2]


def _overlap(first: tuple[int, int, int], second: tuple[int, int, int]) -> int:
    """Number of words that both spans cover; 0 or less if there are none."""
    return min(first[1], second[1]) - max(first[0], second[0])
