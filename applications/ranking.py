"""Candidates in the order of a model of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError, ParamsError, did_you_mean
from tasks.data.tables.row_files import read_batches

if TYPE_CHECKING:
    from tasks.inference.predictor import Predictor


def read_candidates(predictor: Predictor, source: Path) -> list[str]:
    """The second texts of a file; rows without one are left out."""
    _, second = _columns(predictor)
    found = [
        text
        for batch in read_batches(source, [second], predictor.problem)
        for text in batch.inputs.column(second).to_pylist()
        if text
    ]
    if not found:
        raise DataError(
            f"{source}: its column '{second}' holds no texts.",
            "Give at least one candidate to rank.",
        )
    return found


def rank_candidates(
    predictor: Predictor, query: str, candidates: Sequence[str], label: str | None
) -> list[dict[str, Any]]:
    """[{rank, score, text}], the best first; of equal scores the earlier candidate. `label` says whose probability ranks."""
    first, second = _columns(predictor)
    labels = predictor.info.labels
    if labels and label not in labels:
        wrong = (
            f"there is no label '{label}'.{did_you_mean(label, labels)}"
            if label
            else "the model gives classes: which one is wanted?"
        )
        raise ParamsError(f"rank: {wrong}", f"Name it: --label {' or --label '.join(labels[:5])}.")
    if label and not labels:
        raise ParamsError("rank: the model gives scores, no classes.", "Leave --label out.")
    predictions = predictor.predict({first: [query] * len(candidates), second: list(candidates)})
    scores = [
        prediction["scores"][label] if label else prediction["score"] for prediction in predictions
    ]
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    return [
        {"rank": number, "score": scores[place], "text": candidates[place]}
        for number, place in enumerate(order, 1)
    ]


def _columns(predictor: Predictor) -> tuple[str, str]:
    names = list(predictor.problem.example())
    if len(names) != 2:
        raise ParamsError(
            f"rank: a model of {predictor.problem.name} reads {' and '.join(names)}, no pairs.",
            "Take a workspace of text-pair or text-pair-score.",
        )
    return names[0], names[1]
