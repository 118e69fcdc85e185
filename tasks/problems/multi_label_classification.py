"""Multi-label classification: one text, any number of classes, none included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Array, Columns, Floats
from tasks.data.quality.checks import LABEL_UNKNOWN, Check
from tasks.data.tables.column_guesses import LABEL_NAMES, flags, label_lists, separated, texts
from tasks.data.tables.readings import Given, Reading, read_flags, read_labels
from tasks.inference.calibration import Calibration
from tasks.problems.base import UNLEARNT, Guessed
from tasks.problems.text_classification import TextClassification
from tasks.scoring.label_sets import (
    METRICS,
    binary_log_loss,
    fit_sigmoid_temperature,
    multi_label_details,
    multi_label_metrics,
    resampled_multi_label_metrics,
    tune_thresholds,
)
from tasks.scoring.statistics.draws import Resampled
from tasks.scoring.thresholds import describe_threshold

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from matplotlib.figure import Figure
    from torch import nn

    from tasks.params.reading import ReadingParams
    from tasks.params.schema import ValidateParams


class MultiLabelClassification(TextClassification):
    """One text, any number of classes; each has a threshold of its own, tuned on validation.

    Recipes and checkpoints are judged by mean average precision, which needs no thresholds: while it trains there are none yet.
    """

    name = "multi-label-classification"
    columns = {
        "text": "the text",
        "labels": "its classes: a list, a text such as 'a|b', or columns of 0 and 1",
    }
    types = {"labels": "VARCHAR[]"}
    label_column = "labels"
    answer_columns = ("labels",)
    metric_signs = METRICS
    metric = "mean_average_precision"
    label_metrics = ("subset_accuracy", "hamming_loss")
    baseline_name = "TF-IDF + logistic regression, one a label"
    problem_type = "multi_label_classification"

    def readings(
        self, given: Mapping[str, Sequence[Given]], params: ReadingParams
    ) -> dict[str, Reading]:
        flags = given.get("labels", ())
        if len(flags) < 2:
            return super().readings(given, params)
        return super().readings({"text": given["text"]}, params) | {"labels": read_flags(flags)}

    def reading(self, name: str, given: Given, params: ReadingParams) -> Reading:
        if name == "labels":
            return read_labels(given, merge=params.merge_labels, separator=params.label_separator)
        return super().reading(name, given, params)

    def guess_columns(self, rows: Columns) -> Guessed | None:
        text = next(iter(texts(rows)), None)
        columns = flags(rows)
        labels = next(iter(label_lists(rows)), None) or next(
            (name for name, _ in separated(rows) if name != text), None
        )
        if text is None or not (
            labels or (len(columns) > 1 and not any(name.lower() in LABEL_NAMES for name in rows))
        ):
            return None
        return {"text": text, "labels": labels or tuple(columns)}

    def guess_reading(self, rows: Columns, columns: Guessed) -> dict[str, Any]:
        separator = dict(separated(rows)).get(str(columns["labels"]))
        return {"label_separator": separator} if separator else {}

    def expectations(self, validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
        checks = {check.name: check for check in super().expectations(validate, labels)}
        few = validate.min_rows_per_class
        return [
            replace(checks["null_label"], kwargs={"column": "labels"}, says="the labels are missing, or no list"),
            replace(checks["unknown_label"], kwargs={**checks["unknown_label"].kwargs, "column": LABEL_UNKNOWN},
                    says="a label is not in `labels` of params.yaml"),
            replace(checks["conflicts"], says="the same text also has other labels"),
            replace(checks["rows_per_class"], says=f"one of its labels has fewer than {few} rows (validate.min_rows_per_class)"),
            checks["missing_class"],
        ]  # fmt: skip

    def answers(self, given: Sequence[Any], labels: Sequence[str]) -> list[Any]:
        label2id = {label: i for i, label in enumerate(labels)}
        rows = np.zeros((len(given), len(labels)), np.float32)
        for row, names in enumerate(given):
            rows[row, [label2id[name] for name in names]] = 1
        return rows.tolist()

    def references(self, features: Mapping[str, list[Any]]) -> Array:
        return np.asarray(features["references"], np.float32)

    def start_head(
        self, new: Mapping[str, nn.Parameter], train: pa.Table, class_weights: Floats | None
    ) -> None:
        """Output biases as the labels' frequencies make them (Lin et al. 2017, 3.3).

        From zero the first steps push all labels down together, through the one state that all read; where labels are many and rare
        that state dies of it: on NLU++'s 48 mean average precision was 0.10 after ten epochs, from here it is 0.54 after the first.
        """
        positives = np.asarray(train["references"].to_pylist(), np.float64).sum(0)
        odds = (
            (positives + 1)
            / (len(train) - positives + 1)
            * (1 if class_weights is None else class_weights)
        )
        biases = [parameter for parameter in new.values() if parameter.shape == odds.shape]
        for parameter in biases[-1:]:
            parameter.data.copy_(parameter.data.new_tensor(np.log(odds)))

    def loss(
        self,
        outputs: torch.Tensor,
        references: torch.Tensor,
        *,
        label_smoothing: float,
        class_weights: torch.Tensor | None,
    ) -> torch.Tensor:
        from torch.nn.functional import binary_cross_entropy_with_logits

        wanted = references * (1 - label_smoothing) + label_smoothing / 2
        return binary_cross_entropy_with_logits(outputs, wanted, pos_weight=class_weights)

    def class_weights(
        self, references: Array, labels: Sequence[str], wanted: str | Mapping[str, float]
    ) -> Floats | None:
        if wanted != "balanced":
            return super().class_weights(references, labels, wanted)
        positives = references.sum(0)
        weights: Floats = ((len(references) - positives) / np.maximum(positives, 1)).astype(
            np.float32
        )
        return weights

    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        return multi_label_metrics(outputs, references)

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        return resampled_multi_label_metrics(outputs, references)

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
        decided = calibration.apply(outputs)
        found = multi_label_details(
            decided,
            references,
            labels,
            thresholds=self.probabilities(-np.asarray(calibration.bias, np.float32)),
        )
        if out_of_scope is None:
            return found
        place = labels.index(out_of_scope)
        scaled = outputs[:, place].astype(np.float64) / calibration.temperature
        curve = describe_threshold(scaled, references[:, place] > 0.5, -calibration.bias[place])
        return found | {"out_of_scope": curve and {"label": out_of_scope, **curve}}

    def fit_calibration(
        self, outputs: Floats, references: Array, labels: Sequence[str], out_of_scope: str | None
    ) -> Calibration:
        temperature = fit_sigmoid_temperature(outputs, references)
        return Calibration(temperature, tune_thresholds(outputs / temperature, references))

    def calibration_loss(self, outputs: Floats, references: Array) -> float | None:
        return binary_log_loss(outputs, references)

    def probabilities(self, outputs: Floats) -> Floats:
        from scipy.special import expit

        probabilities: Floats = expit(outputs)
        return probabilities

    def given(self, outputs: Floats) -> npt.NDArray[np.bool_]:
        given: npt.NDArray[np.bool_] = outputs > 0
        return given

    def _same(self, outputs: Floats, others: Floats | None) -> npt.NDArray[np.bool_]:
        """True where both give at least half of the labels that either gives: one of several that goes is no other answer."""
        assert others is not None
        given, before = self.given(outputs), self.given(others)
        same: npt.NDArray[np.bool_] = 2 * (given & before).sum(-1) >= (given | before).sum(-1)
        return same

    def right(self, outputs: Floats, references: Array) -> npt.NDArray[np.bool_]:
        right: npt.NDArray[np.bool_] = (self.given(outputs) == (references > 0.5)).all(-1)
        return right

    def align(self, outputs: Floats, labels: Sequence[str], wanted: Sequence[str]) -> Floats:
        aligned = np.full((len(outputs), len(wanted)), -UNLEARNT, np.float32)
        aligned[:, [wanted.index(label) for label in labels]] = outputs
        return aligned

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        from tasks.scoring.tfidf_baseline import tfidf_one_vs_rest

        return tfidf_one_vs_rest(
            train["text"], np.asarray(self.answers(train["labels"], labels)), test["text"], seed
        )

    def figures(self, evaluation: Mapping[str, Any]) -> dict[str, Figure]:
        from tasks.reports.plots import scores_figure

        entries = evaluation["details"]["per_label"]
        figures = (
            {"Labels": scores_figure(entries)} if any(entry["support"] for entry in entries) else {}
        )
        return figures | self.out_of_scope_figures(evaluation)

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        shown = self.probabilities(Calibration(calibration.temperature).apply(outputs))
        return [
            {
                "labels": [
                    label for label, is_given in zip(labels, given, strict=True) if is_given
                ],
                "scores": {label: float(p) for label, p in zip(labels, probabilities, strict=True)},
            }
            for given, probabilities in zip(
                self.given(calibration.apply(outputs)), shown, strict=True
            )
        ]

    def predicted_labels(self, prediction: Mapping[str, Any]) -> list[str]:
        labels: list[str] = prediction["labels"]
        return labels

    def say(self, prediction: Mapping[str, Any]) -> str:
        return (
            ", ".join(
                f"{label} {prediction['scores'][label]:.3f}" for label in prediction["labels"]
            )
            or "(none)"
        )
