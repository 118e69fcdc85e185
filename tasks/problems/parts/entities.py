"""Objective, scoring, decoding and figures of entities: a BIO tag a word, spans of words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.core.arrays import Array, Bools, Columns, Floats
from tasks.core.ragged import pad_to_common_shape
from tasks.encoding.padding import pad_rows
from tasks.encoding.spans import find_spans, tag_ids, tag_names, types_of
from tasks.encoding.windows import IGNORE_INDEX
from tasks.encoding.words import join_words, words_of
from tasks.inference.calibration import Calibration
from tasks.params.evaluation import check_behaviour
from tasks.problems.parts.absent import (
    metrics_once,
    no_answers,
    no_clusters,
    no_prompts,
    no_threshold_details,
    no_token_names,
)
from tasks.problems.parts.classes import (
    UNLEARNT,
    all_outputs,
    reliability_series,
    softmax,
    start_as_drawn,
)
from tasks.scoring.behaviour import BehaviourTest, spread
from tasks.scoring.classes import fit_temperature, log_loss
from tasks.scoring.span_behaviour import (
    SWAP,
    altered_words,
    have,
    mostly_found,
    moves,
    same_spans,
    still_found,
)
from tasks.scoring.spans import (
    NOTHING,
    count_rows,
    predicted_tags,
    span_details,
    span_metrics,
    word_outputs,
    word_tags,
)
from tasks.training.class_weights import weigh_classes
from tasks.training.networks.pooling import OWN

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel

    from tasks.params.schema import EvaluateParams
    from tasks.reports.stage_reports import EvaluationReport
    from tasks.scoring.statistics.draws import Resampled
    from tasks.training.objective import HeadSolver, Loss


def tag_cross_entropy(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    label_smoothing: float,
    class_weights: torch.Tensor | None,
) -> torch.Tensor:
    """Over the word pieces that have a tag."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(
        outputs.flatten(0, 1),
        targets.flatten(),
        weight=class_weights,
        ignore_index=IGNORE_INDEX,
        label_smoothing=label_smoothing,
    )


class TagObjective:
    """Cross-entropy of each word's tag."""

    losses: ClassVar[Mapping[str, Loss]] = {"default": tag_cross_entropy}
    labels_of = staticmethod(types_of)
    start_head = staticmethod(start_as_drawn)
    pools: ClassVar[bool] = False
    solve_head: ClassVar[HeadSolver | None] = None
    skip_unused_outputs = staticmethod(all_outputs)

    def load_model(
        self,
        directory: Path,
        labels: Sequence[str],
        dropout: float | None = None,
        pooling: str = OWN,
    ) -> PreTrainedModel:
        from transformers import AutoModelForTokenClassification

        from tasks.training.networks.pretrained import load_pretrained

        return load_pretrained(
            AutoModelForTokenClassification, directory, dropout, tag_names(labels)
        )

    def class_weights(
        self, references: Array, labels: Sequence[str], wanted: str | Mapping[str, float]
    ) -> Floats | None:
        tags = tag_names(labels)
        counts = np.bincount(references[references >= 0], minlength=len(tags))
        return weigh_classes(counts, tags, wanted, "tag")


@dataclass(frozen=True)
class EntityScorer:
    """Scoring of exact spans, by type, with the words' tags for calibration.

    label_metrics: rows that have one type have others too; `per_class` of the details tells types
    apart.
    """

    metric: str = "f1"
    metric_signs: ClassVar[Mapping[str, int]] = {
        "f1": 1,
        "precision": 1,
        "recall": 1,
        "macro_f1": 1,
        "accuracy": 1,
        "log_loss": -1,
        "ece": -1,
    }
    label_metrics: tuple[str, ...] | None = ("accuracy", "log_loss")
    baseline_name: str = "list of the training entities"
    baseline_is_base: bool = False

    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        return metrics_once(self.resampled_metrics(outputs, references, labels), len(outputs))

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        return partial(span_metrics, count_rows(outputs, references))

    clusters = staticmethod(no_clusters)

    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        return span_details(outputs, references, labels)

    threshold_details = staticmethod(no_threshold_details)

    def fit_calibration(
        self, outputs: Floats, references: Array, labels: Sequence[str], out_of_scope: str | None
    ) -> Calibration:
        return Calibration(fit_temperature(*word_outputs(outputs, references)))

    def calibration_loss(self, outputs: Floats, references: Array) -> float | None:
        return log_loss(*word_outputs(outputs, references))

    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        outputs, others = pad_to_common_shape(outputs, others)
        same = (predicted_tags(outputs) == predicted_tags(others)).all(-1)
        moved = np.abs(softmax(outputs) - softmax(others))
        return float(same.mean()), float(np.nanmax(moved, initial=0.0))

    def correct(self, outputs: Floats, references: Array) -> Bools:
        """Rows whose entities are all found, and nothing else."""
        counts = count_rows(outputs, references)
        precise, complete = counts.hits == counts.predicted, counts.hits == counts.actual
        correct: Bools = (precise & complete).all(-1)
        return correct

    def align_labels(self, outputs: Floats, labels: Sequence[str], wanted: Sequence[str]) -> Floats:
        tags, all_tags = tag_names(labels), tag_names(wanted)
        aligned = np.repeat(outputs.min(-1, keepdims=True) - UNLEARNT, len(all_tags), axis=-1)
        aligned[..., [all_tags.index(tag) for tag in tags]] = outputs
        return aligned

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        from tasks.scoring.gazetteer_baseline import gazetteer

        references = _tags_as_array(train, labels)
        return gazetteer(train["tokens"], references, test["tokens"], len(tag_names(labels)))

    def behaviour_tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        wanted = evaluate.behaviour
        check_behaviour(wanted, labels, ("text",))
        row_of_text = {join_words(words)[0]: row for row, words in enumerate(rows["tokens"])}
        chosen = spread(row_of_text, seed)[: wanted.rows]
        tests = _altered_words_tests(rows, labels, wanted.rows, seed)
        tokens = [rows["tokens"][row_of_text[text]] for text in chosen]
        same = partial(same_spans, texts=chosen, tokens=tokens)
        tests.append(
            BehaviourTest(
                "words found in the text", "invariance", {"text": chosen}, same, {"tokens": tokens}
            )
        )
        for direction in wanted.directional:
            after = [direction.prepend + text + direction.append for text in chosen]
            passes = partial(
                moves,
                label=labels.index(direction.label),
                sign=1 if direction.expect == "not_lower" else -1,
                tolerance=direction.tolerance,
            )
            tests.append(
                BehaviourTest(
                    direction.name, "directional", {"text": after}, passes, {"text": chosen}
                )
            )
        for cases in wanted.minimum_functionality:
            passes = partial(have, label=labels.index(cases.label))
            written = {"text": list(cases.texts)}
            tests.append(BehaviourTest(cases.name, "minimum-functionality", written, passes))
        return tests

    compare_answers = staticmethod(no_answers)


def _tags_as_array(rows: Columns, labels: Sequence[str]) -> Array:
    lengths = list(map(len, rows["tokens"]))
    return pad_rows(tag_ids(rows["tags"], lengths, tag_names(labels)), IGNORE_INDEX)


def _altered_words_tests(
    rows: Columns, labels: Sequence[str], count: int, seed: int
) -> list[BehaviourTest]:
    words = rows["tokens"]
    spans = find_spans(_tags_as_array(rows, labels)).by_row(len(words))
    return [
        BehaviourTest(
            altered.name,
            "invariance",
            {"tokens": altered.after},
            partial(still_found, replaced=altered.replaced)
            if altered.name == SWAP
            else mostly_found,
            {"tokens": altered.before},
        )
        for altered in altered_words(words, spans, count, seed)
    ]


class EntityDecoder:
    """Entities with their characters in the text (for `tokens`: joined by blanks).

    An entity's score is the least probability among its words' tags.
    """

    has_kv_cache = False

    def output_labels(self, labels: Sequence[str]) -> Sequence[str]:
        return tag_names(labels)

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        texts, words = words_of(rows)
        calibrated = calibration.apply(outputs)
        probabilities = softmax(calibrated).max(-1)
        spans = find_spans(word_tags(calibrated, words)).by_row(len(texts))
        return [
            {
                "entities": [
                    {
                        "type": labels[label],
                        "text": text[characters[first][0] : characters[last - 1][1]],
                        "start": characters[first][0],
                        "end": characters[last - 1][1],
                        "score": float(row_probabilities[first:last].min()),
                    }
                    for first, last, label in row_spans
                ]
            }
            for text, characters, row_probabilities, row_spans in zip(
                texts, words, probabilities, spans, strict=True
            )
        ]

    name_tokens = staticmethod(no_token_names)
    prompts = staticmethod(no_prompts)

    def predicted_labels(self, prediction: Mapping[str, Any]) -> list[str]:
        return sorted({entity["type"] for entity in prediction["entities"]})

    def describe(self, prediction: Mapping[str, Any]) -> str:
        entities = (
            f"{entity['text']} [{entity['type']} {entity['score']:.3f}]"
            for entity in prediction["entities"]
        )
        return ", ".join(entities) or "no entity"

    def prediction_example(self, labels: Sequence[str]) -> dict[str, Any] | None:
        entity = {"type": labels[0], "text": "Paris", "start": 22, "end": 27, "score": 0.9}
        return {"entities": [entity]}

    def example(self) -> dict[str, list[Any]]:
        return {"text": ["Angela Merkel visited Paris.", "The Bank lends to the Borrower."]}


def entity_figures(evaluation: EvaluationReport) -> dict[str, Figure]:
    """Scores by type, confusion of types, and reliability of the words' tags."""
    from tasks.reports.plots import confusion_figure, reliability_figure, scores_figure

    details = evaluation.details
    types = [entry["label"] for entry in details["per_class"]]
    confusion = np.asarray(details["confusion"])
    return {
        "Entities by type": scores_figure(details["per_class"]),
        "Types of exact spans": confusion_figure(confusion, [*types, NOTHING]),
        "Reliability of words": reliability_figure(reliability_series(evaluation)),
    }
