"""Multi-label classification: one text, any number of classes, possibly none.

Each class has a threshold of its own, tuned on validation. Recipes and checkpoints are judged by
mean average precision, which needs no thresholds: during training there are none yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.core.arrays import Array, Bools, Columns, Floats
from tasks.data.quality.checks import LABEL_UNKNOWN, Check
from tasks.data.row_format import Guessed
from tasks.data.tables.column_guesses import LABEL_NAMES, flags, label_lists, separated, texts
from tasks.data.tables.readings import Reading, one_column, read_flags, read_labels, read_text
from tasks.inference.calibration import Calibration
from tasks.problems.parts.absent import (
    no_answers,
    no_clusters,
    no_optional_parts,
    no_prompts,
    no_token_names,
)
from tasks.problems.parts.class_behaviour import ClassBehaviour
from tasks.problems.parts.classes import (
    UNLEARNT,
    all_outputs,
    class_agreement,
    load_classifier,
    out_of_scope_figures,
    same_labels,
)
from tasks.problems.parts.rows import Rows, SourceColumns, class_checks
from tasks.problems.parts.texts import TextEncoder
from tasks.problems.problem import InitDefaults, Problem
from tasks.scoring.label_sets import (
    METRICS,
    binary_log_loss,
    fit_sigmoid_temperature,
    multi_label_details,
    multi_label_metrics,
    resampled_multi_label_metrics,
    tune_thresholds,
)
from tasks.scoring.thresholds import describe_threshold
from tasks.training.class_weights import weigh_classes
from tasks.training.logistic import solve_labels
from tasks.training.networks.pooling import OWN

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from matplotlib.figure import Figure
    from torch import nn
    from transformers import PreTrainedModel

    from tasks.params.ingestion import ReadingParams
    from tasks.params.schema import EvaluateParams, ValidateParams
    from tasks.reports.stage_reports import EvaluationReport
    from tasks.scoring.behaviour import BehaviourTest
    from tasks.scoring.statistics.draws import Resampled
    from tasks.training.objective import Loss


def read(given: SourceColumns, params: ReadingParams) -> dict[str, Reading]:
    """Labels from a list, from a text with a separator, or from several columns of 0 and 1."""
    readings = {}
    for name, columns in given.items():
        if name == "labels" and len(columns) > 1:
            readings[name] = read_flags(columns)
        elif name == "labels":
            readings[name] = read_labels(
                columns[0], merge=params.merge_labels, separator=params.label_separator
            )
        else:
            readings[name] = read_text(one_column(name, columns))
    return readings


def guess_columns(rows: Columns) -> Guessed | None:
    """The first text, and a list of labels, labels with a separator, or columns of 0 and 1."""
    text = next(iter(texts(rows)), None)
    lists = [*label_lists(rows), *(name for name, _ in separated(rows))]
    labels = next((name for name in lists if name != text), None)
    columns = flags(rows)
    one_hot = len(columns) > 1 and not any(name.lower() in LABEL_NAMES for name in rows)
    if text is None or not (labels or one_hot):
        return None
    return {"text": text, "labels": labels or tuple(columns)}


def guess_reading(rows: Columns, columns: Guessed) -> dict[str, Any]:
    """The labels' separator."""
    separator = dict(separated(rows)).get(str(columns["labels"]))
    return {"label_separator": separator} if separator else {}


def label_set_checks(validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
    """Checks of a list of labels a row, in the column `labels`."""
    checks = {check.name: check for check in class_checks(validate, labels)}
    few, unknown = validate.min_rows_per_class, checks["unknown_label"]
    return [
        replace(checks["null_label"], kwargs={"column": "labels"},
                says="the labels are missing, or no list"),
        replace(unknown, kwargs={**unknown.kwargs, "column": LABEL_UNKNOWN},
                says="a label is not in `labels` of params.yaml"),
        replace(checks["conflicts"], says="the same text also has other labels"),
        replace(checks["rows_per_class"],
                says=f"one of its labels has fewer than {few} rows (validate.min_rows_per_class)"),
        checks["missing_class"],
    ]  # fmt: skip


def indicators(rows: Columns, labels: Sequence[str]) -> list[list[float]] | None:
    """1 for each of a row's labels, 0 for the others, (n, c)."""
    if "labels" not in rows:
        return None
    label2id = {label: i for i, label in enumerate(labels)}
    matrix = np.zeros((len(rows["labels"]), len(labels)), np.float32)
    for row, names in zip(matrix, rows["labels"], strict=True):
        row[[label2id[name] for name in names]] = 1
    return matrix.tolist()


def binary_cross_entropy(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    label_smoothing: float,
    class_weights: torch.Tensor | None,
) -> torch.Tensor:
    """Mean over rows and labels."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    smoothed = targets * (1 - label_smoothing) + label_smoothing / 2
    return binary_cross_entropy_with_logits(outputs, smoothed, pos_weight=class_weights)


class LabelSetObjective:
    """Binary cross-entropy of each label."""

    losses: ClassVar[Mapping[str, Loss]] = {"default": binary_cross_entropy}
    labels_of = staticmethod(same_labels)
    skip_unused_outputs = staticmethod(all_outputs)
    pools: ClassVar[bool] = True
    solve_head = staticmethod(solve_labels)

    def load_model(
        self,
        directory: Path,
        labels: Sequence[str],
        dropout: float | None = None,
        pooling: str = OWN,
    ) -> PreTrainedModel:
        return load_classifier(directory, labels, dropout, pooling, "multi_label_classification")

    def start_head(
        self, new: Mapping[str, nn.Parameter], train: pa.Table, class_weights: Floats | None
    ) -> None:
        """Set the output biases to the log-odds of the labels' frequencies (Lin et al. 2017, 3.3).

        From zero, the first steps push all labels down together through the one state that all of
        them read; with many rare labels that state dies. On NLU++'s 48 labels, mean average
        precision was 0.10 after ten epochs from zero, and 0.54 after one epoch from here.
        """
        positives = np.asarray(train["references"].to_pylist(), np.float64).sum(0)
        weights = 1 if class_weights is None else class_weights
        odds = (positives + 1) / (len(train) - positives + 1) * weights
        biases = [parameter for parameter in new.values() if parameter.shape == odds.shape]
        for parameter in biases[-1:]:
            parameter.data.copy_(parameter.data.new_tensor(np.log(odds)))

    def class_weights(
        self, references: Array, labels: Sequence[str], wanted: str | Mapping[str, float]
    ) -> Floats | None:
        positives = references.sum(0)
        if wanted == "balanced":
            negatives = len(references) - positives
            weights: Floats = (negatives / np.maximum(positives, 1)).astype(np.float32)
            return weights
        return weigh_classes(positives.astype(np.int64), labels, wanted, "label")


def sigmoid(outputs: Floats) -> Floats:
    """Probability of each label, (n, c)."""
    from scipy.special import expit

    probabilities: Floats = expit(outputs)
    return probabilities


def assigned(outputs: Floats) -> Bools:
    """Which labels each row gets, (n, c); thresholds are in the outputs."""
    decisions: Bools = outputs > 0
    return decisions


def mostly_same_labels(outputs: Floats, others: Floats) -> Bools:
    """(n,): both share at least half of the labels that either gives."""
    first, second = assigned(outputs), assigned(others)
    same: Bools = 2 * (first & second).sum(-1) >= (first | second).sum(-1)
    return same


@dataclass(frozen=True)
class LabelSetScorer:
    """Scoring of a set of labels a row."""

    behaviour: ClassBehaviour
    metric: str = "mean_average_precision"
    metric_signs: ClassVar[Mapping[str, int]] = METRICS
    label_metrics: tuple[str, ...] | None = ("subset_accuracy", "hamming_loss")
    baseline_name: str = "TF-IDF + logistic regression, one a label"
    baseline_is_base: bool = False

    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        return multi_label_metrics(outputs, references)

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        return resampled_multi_label_metrics(outputs, references)

    clusters = staticmethod(no_clusters)

    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        return multi_label_details(outputs, references, labels)

    def threshold_details(
        self,
        outputs: Floats,
        references: Array,
        labels: Sequence[str],
        calibration: Calibration,
        out_of_scope: str | None,
    ) -> dict[str, Any]:
        thresholds = sigmoid(-np.asarray(calibration.bias, np.float32))
        details = multi_label_details(
            calibration.apply(outputs), references, labels, thresholds=thresholds
        )
        if out_of_scope is None:
            return details
        label = labels.index(out_of_scope)
        scaled = outputs[:, label].astype(np.float64) / calibration.temperature
        curve = describe_threshold(scaled, references[:, label] > 0.5, -calibration.bias[label])
        return details | {"out_of_scope": curve and {"label": out_of_scope, **curve}}

    def fit_calibration(
        self, outputs: Floats, references: Array, labels: Sequence[str], out_of_scope: str | None
    ) -> Calibration:
        temperature = fit_sigmoid_temperature(outputs, references)
        return Calibration(temperature, tune_thresholds(outputs / temperature, references))

    def calibration_loss(self, outputs: Floats, references: Array) -> float | None:
        return binary_log_loss(outputs, references)

    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        return class_agreement(self.behaviour, outputs, others)

    def correct(self, outputs: Floats, references: Array) -> Bools:
        correct: Bools = (assigned(outputs) == (references > 0.5)).all(-1)
        return correct

    def align_labels(self, outputs: Floats, labels: Sequence[str], wanted: Sequence[str]) -> Floats:
        aligned = np.full((len(outputs), len(wanted)), -UNLEARNT, np.float32)
        aligned[:, [wanted.index(label) for label in labels]] = outputs
        return aligned

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        from tasks.scoring.tfidf_baseline import tfidf_one_vs_rest

        references = np.asarray(indicators(train, labels))
        return tfidf_one_vs_rest(train["text"], references, test["text"], seed)

    def behaviour_tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        return self.behaviour.tests(rows, labels, evaluate, seed)

    compare_answers = staticmethod(no_answers)


class LabelSetDecoder:
    """The labels above their thresholds, with the probabilities of all."""

    has_kv_cache = False

    def output_labels(self, labels: Sequence[str]) -> Sequence[str]:
        return labels

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        probabilities = sigmoid(Calibration(calibration.temperature).apply(outputs))
        decisions = assigned(calibration.apply(outputs))
        return [
            {
                "labels": [
                    label for label, is_given in zip(labels, given, strict=True) if is_given
                ],
                "scores": {label: float(p) for label, p in zip(labels, scores, strict=True)},
            }
            for given, scores in zip(decisions, probabilities, strict=True)
        ]

    name_tokens = staticmethod(no_token_names)
    prompts = staticmethod(no_prompts)

    def predicted_labels(self, prediction: Mapping[str, Any]) -> list[str]:
        labels: list[str] = prediction["labels"]
        return labels

    def describe(self, prediction: Mapping[str, Any]) -> str:
        scores = prediction["scores"]
        return (
            ", ".join(f"{label} {scores[label]:.3f}" for label in prediction["labels"]) or "(none)"
        )

    prediction_example = staticmethod(no_optional_parts)

    def example(self) -> dict[str, list[Any]]:
        return {"text": ["The room was clean and the staff were kind.", "It broke after two days."]}


def figures(evaluation: EvaluationReport) -> dict[str, Figure]:
    """Scores of each label, and the out-of-scope label's curve where there is one."""
    from tasks.reports.plots import scores_figure

    entries = evaluation.details["per_label"]
    has_rows = any(entry["support"] for entry in entries)
    return ({"Labels": scores_figure(entries)} if has_rows else {}) | out_of_scope_figures(
        evaluation
    )


PROBLEM = Problem(
    rows=Rows(
        name="multi-label-classification",
        columns={
            "text": "the text",
            "labels": "its classes: a list, a text such as 'a|b', or columns of 0 and 1",
        },
        types={"labels": "VARCHAR[]"},
        text_columns=("text",),
        label_column="labels",
        guess_columns=guess_columns,
        guess_reading=guess_reading,
        expectations=label_set_checks,
        read=read,
    ),
    encoding=TextEncoder(("text",), indicators, np.float32),
    objective=LabelSetObjective(),
    scoring=LabelSetScorer(
        ClassBehaviour(("text",), "labels", True, sigmoid, assigned, mostly_same_labels)
    ),
    decoding=LabelSetDecoder(),
    defaults=InitDefaults(finetune={"pooling": "own"}),
    figures=figures,
)
