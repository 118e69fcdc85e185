"""Ranks candidate texts for a query with a text-pair model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError, ParamsError, did_you_mean
from tasks.data.tables.row_files import read_batches
from tasks.params.ingestion import Source
from tasks.problems import load_problem

if TYPE_CHECKING:
    from tasks.inference.predictor import Predictor


def read_candidates(predictor: Predictor, source: Path) -> list[str]:
    """Read candidates from a file's second text column; rows without a text are skipped."""
    _, second = _columns(predictor)
    row_format = load_problem(predictor.info.problem).rows
    candidates = [
        text
        for batch in read_batches(Source(url=str(source)), [second], row_format)
        for text in batch.inputs.column(second).to_pylist()
        if text
    ]
    if not candidates:
        raise DataError(
            f"{source}: column '{second}' has no texts.", "Give at least one candidate to rank."
        )
    return candidates


def rank_candidates(
    predictor: Predictor, query: str, candidates: Sequence[str], label: str | None
) -> list[dict[str, Any]]:
    """[{rank, score, text}], best first; ties keep the candidates' order.

    label  the class whose probability is the score; for models that predict classes only
    """
    first, second = _columns(predictor)
    labels = predictor.info.labels
    if labels and label not in labels:
        problem = "the model predicts classes: which one should rank?"
        if label:
            problem = f"there is no label '{label}'.{did_you_mean(label, labels)}"
        remedy = f"Name it: --label {' or --label '.join(labels[:5])}."
        raise ParamsError(f"rank: {problem}", remedy)
    if label and not labels:
        raise ParamsError("rank: the model predicts scores, not classes.", "Leave --label out.")
    predictions = predictor.predict({first: [query] * len(candidates), second: list(candidates)})
    scores = [
        prediction["scores"][label] if label else prediction["score"] for prediction in predictions
    ]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return [
        {"rank": rank, "score": scores[index], "text": candidates[index]}
        for rank, index in enumerate(order, 1)
    ]


def _columns(predictor: Predictor) -> tuple[str, str]:
    names = list(predictor.problem.decoding.example())
    if len(names) != 2:
        raise ParamsError(
            f"rank: a {predictor.problem.name} model reads {' and '.join(names)}, not pairs.",
            "Use a workspace whose problem is text-pair or text-pair-score.",
        )
    return names[0], names[1]
