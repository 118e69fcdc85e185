"""Objective, scoring, decoding and figures of types that give a row one of several classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.core.arrays import Array, Bools, Columns, Doubles, Floats
from tasks.inference.calibration import Calibration
from tasks.problems.parts.absent import (
    no_answers,
    no_clusters,
    no_optional_parts,
    no_prompts,
    no_token_names,
)
from tasks.problems.parts.class_behaviour import ClassBehaviour
from tasks.problems.parts.texts import TextEncoder
from tasks.problems.problem import InitDefaults, Problem
from tasks.scoring.classes import (
    classification_details,
    classification_metrics,
    fit_temperature,
    log_loss,
    resampled_classification_metrics,
)
from tasks.scoring.thresholds import best_threshold, describe_threshold
from tasks.training.class_weights import weigh_classes
from tasks.training.contrastive import supervised_contrastive
from tasks.training.logistic import solve_classes
from tasks.training.networks.pooling import OWN

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from matplotlib.figure import Figure
    from torch import nn
    from transformers import PreTrainedModel

    from tasks.data.row_format import RowFormat
    from tasks.params.schema import EvaluateParams
    from tasks.reports.stage_reports import EvaluationReport
    from tasks.scoring.behaviour import BehaviourTest
    from tasks.scoring.statistics.draws import Resampled
    from tasks.training.networks.pretrained import ProblemType
    from tasks.training.objective import Loss

# logits below a model's lowest, for a label it never learnt: finite, so log-loss stays a number
UNLEARNT = np.float32(20.0)


def answers_of(rows: Columns, labels: Sequence[str]) -> list[int] | None:
    """Index of each row's `label`."""
    label2id = {label: i for i, label in enumerate(labels)}
    return [label2id[label] for label in rows["label"]] if "label" in rows else None


def same_labels(labels: Sequence[str]) -> Sequence[str]:
    """Outputs that have the names of the labels."""
    return labels


def start_as_drawn(
    new: Mapping[str, nn.Parameter], train: pa.Table, class_weights: Floats | None
) -> None:
    """No better start of a head than a random one."""


def all_outputs(model: PreTrainedModel, targets: torch.Tensor) -> AbstractContextManager[None]:
    """The loss needs every output."""
    return nullcontext()


def load_classifier(
    directory: Path,
    labels: Sequence[str],
    dropout: float | None,
    pooling: str,
    problem_type: ProblemType,
) -> PreTrainedModel:
    """A sequence classifier; `problem_type` as Hugging Face names it, `pooling` of finetune."""
    from transformers import AutoModelForSequenceClassification

    from tasks.training.networks.pretrained import load_pretrained

    return load_pretrained(
        AutoModelForSequenceClassification, directory, dropout, labels, problem_type, pooling
    )


def cross_entropy(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    label_smoothing: float,
    class_weights: torch.Tensor | None,
) -> torch.Tensor:
    """Of one class a row."""
    from torch.nn import functional

    return functional.cross_entropy(
        outputs, targets, weight=class_weights, label_smoothing=label_smoothing
    )


class ClassObjective:
    """Cross-entropy of one class a row, or a comparison of rows by their class."""

    losses: ClassVar[Mapping[str, Loss]] = {
        "default": cross_entropy,
        "contrastive": supervised_contrastive,
    }
    labels_of = staticmethod(same_labels)
    start_head = staticmethod(start_as_drawn)
    skip_unused_outputs = staticmethod(all_outputs)
    pools: ClassVar[bool] = True
    solve_head = staticmethod(solve_classes)

    def load_model(
        self,
        directory: Path,
        labels: Sequence[str],
        dropout: float | None = None,
        pooling: str = OWN,
    ) -> PreTrainedModel:
        return load_classifier(directory, labels, dropout, pooling, "single_label_classification")

    def class_weights(
        self, references: Array, labels: Sequence[str], wanted: str | Mapping[str, float]
    ) -> Floats | None:
        counts = np.bincount(references, minlength=len(labels))
        return weigh_classes(counts, labels, wanted, "label")


def softmax(outputs: Floats) -> Floats:
    """Probability of each label, (n, c)."""
    from scipy import special

    probabilities: Floats = special.softmax(outputs, -1)
    return probabilities


def top_class(outputs: Floats) -> Bools:
    """One-hot decisions, (n, c)."""
    decisions: Bools = outputs.argmax(-1)[:, None] == np.arange(outputs.shape[1])
    return decisions


def same_class(outputs: Floats, others: Floats) -> Bools:
    """(n,): both decide for the same class."""
    same: Bools = outputs.argmax(-1) == others.argmax(-1)
    return same


@dataclass(frozen=True)
class ClassScorer:
    """Scoring of one class a row.

    join  rows -> the text that the baseline reads
    """

    behaviour: ClassBehaviour
    join: Callable[[Columns], Sequence[str]]
    metric: str = "macro_f1"
    metric_signs: ClassVar[Mapping[str, int]] = {
        "accuracy": 1,
        "macro_f1": 1,
        "weighted_f1": 1,
        "mcc": 1,
        "log_loss": -1,
        "ece": -1,
    }
    label_metrics: tuple[str, ...] | None = ("accuracy", "log_loss")
    baseline_name: str = "TF-IDF + logistic regression"
    baseline_is_base: bool = False

    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        return classification_metrics(outputs, references)

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        return resampled_classification_metrics(outputs, references)

    clusters = staticmethod(no_clusters)

    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        return classification_details(outputs, references, labels)

    def threshold_details(
        self,
        outputs: Floats,
        references: Array,
        labels: Sequence[str],
        calibration: Calibration,
        out_of_scope: str | None,
    ) -> dict[str, Any]:
        if out_of_scope is None:
            return {}
        label = labels.index(out_of_scope)
        lead = _lead(outputs, label) / calibration.temperature
        curve = describe_threshold(lead, references == label, -calibration.bias[label])
        return {"out_of_scope": curve and {"label": out_of_scope, **curve}}

    def fit_calibration(
        self, outputs: Floats, references: Array, labels: Sequence[str], out_of_scope: str | None
    ) -> Calibration:
        temperature = fit_temperature(outputs, references)
        if out_of_scope is None:
            return Calibration(temperature)
        label = labels.index(out_of_scope)
        threshold = best_threshold(_lead(outputs, label) / temperature, references == label)
        bias = np.zeros(len(labels))
        # without rows of both kinds there is nothing to tune on: the most probable label wins
        bias[label] = -(threshold or 0.0)
        return Calibration(temperature, tuple(bias.tolist()))

    def calibration_loss(self, outputs: Floats, references: Array) -> float | None:
        return log_loss(outputs, references)

    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        return class_agreement(self.behaviour, outputs, others)

    def correct(self, outputs: Floats, references: Array) -> Bools:
        correct: Bools = outputs.argmax(-1) == references
        return correct

    def align_labels(self, outputs: Floats, labels: Sequence[str], wanted: Sequence[str]) -> Floats:
        aligned = np.repeat(outputs.min(-1, keepdims=True) - UNLEARNT, len(wanted), axis=-1)
        aligned[:, [wanted.index(label) for label in labels]] = outputs
        return aligned

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        from tasks.scoring.tfidf_baseline import tfidf_logistic_regression

        references = [labels.index(label) for label in train["label"]]
        return tfidf_logistic_regression(
            self.join(train), references, self.join(test), len(labels), seed
        )

    def behaviour_tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        return self.behaviour.tests(rows, labels, evaluate, seed)

    compare_answers = staticmethod(no_answers)


def class_agreement(
    behaviour: ClassBehaviour, outputs: Floats, others: Floats
) -> tuple[float, float]:
    """See `Scorer.agreement`."""
    same = (behaviour.decisions(outputs) == behaviour.decisions(others)).all(-1)
    moved = np.abs(behaviour.probabilities(outputs) - behaviour.probabilities(others))
    return float(same.mean()), float(moved.max())


def _lead(outputs: Floats, label: int) -> Doubles:
    """Log-odds of a label against the best of the others, (n,)."""
    exact = outputs.astype(np.float64)
    lead: Doubles = exact[:, label] - np.delete(exact, label, axis=1).max(1)
    return lead


@dataclass(frozen=True)
class ClassDecoder:
    """The most probable class of each row, with the probabilities of all."""

    inputs: Mapping[str, Sequence[str]]  # of `example`
    has_kv_cache: bool = False

    def output_labels(self, labels: Sequence[str]) -> Sequence[str]:
        return labels

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        predictions = []
        for probabilities in softmax(calibration.apply(outputs)):
            scores = {label: float(p) for label, p in zip(labels, probabilities, strict=True)}
            best = max(scores, key=scores.__getitem__)
            predictions.append({"label": best, "score": scores[best], "scores": scores})
        return predictions

    name_tokens = staticmethod(no_token_names)
    prompts = staticmethod(no_prompts)

    def predicted_labels(self, prediction: Mapping[str, Any]) -> list[str]:
        return [prediction["label"]]

    def describe(self, prediction: Mapping[str, Any]) -> str:
        return f"{prediction['label']:<12} {prediction['score']:.3f}"

    prediction_example = staticmethod(no_optional_parts)

    def example(self) -> dict[str, list[Any]]:
        return {column: list(values) for column, values in self.inputs.items()}


def class_figures(evaluation: EvaluationReport) -> dict[str, Figure]:
    """Confusion, reliability, and the out-of-scope label's curve where there is one."""
    from tasks.reports.plots import confusion_figure, reliability_figure

    details = evaluation.details
    labels = [entry["label"] for entry in details["per_class"]]
    return {
        "Confusion matrix": confusion_figure(np.asarray(details["confusion"]), labels),
        "Reliability": reliability_figure(reliability_series(evaluation)),
        **out_of_scope_figures(evaluation),
    }


def reliability_series(evaluation: EvaluationReport) -> dict[str, Any]:
    """Reliability as trained, and after temperature scaling where that changed it."""
    series = {"as trained": evaluation.details["reliability"]}
    calibrated = evaluation.calibrated.get("details", {})
    if "reliability" in calibrated:
        series["temperature-scaled"] = calibrated["reliability"]
    return series


def out_of_scope_figures(evaluation: EvaluationReport) -> dict[str, Figure]:
    """Precision and recall of the out-of-scope label by threshold."""
    from tasks.reports.plots import precision_recall_figure

    details = {
        "validation": evaluation.validation_thresholds,
        "test": evaluation.details,
    }
    curves = {
        split: entry["out_of_scope"]
        for split, entry in details.items()
        if entry.get("out_of_scope")
    }
    return {"Out-of-scope: precision and recall": precision_recall_figure(curves)} if curves else {}


def class_problem(
    rows: RowFormat,
    example: Mapping[str, Sequence[str]],
    *,
    join: Callable[[Columns], Sequence[str]],
    finetune: Mapping[str, Any] | None = None,
) -> Problem:
    """A type whose rows have texts and one class, in the column `label`.

    example   input rows without answers
    join      rows -> the text that the baseline reads
    finetune  of InitDefaults
    """
    behaviour = ClassBehaviour(rows.text_columns, "label", False, softmax, top_class, same_class)
    return Problem(
        rows=rows,
        encoding=TextEncoder(rows.text_columns, answers_of, np.int64),
        objective=ClassObjective(),
        scoring=ClassScorer(behaviour, join),
        decoding=ClassDecoder(example),
        figures=class_figures,
        defaults=InitDefaults(finetune=finetune or {}),
    )
