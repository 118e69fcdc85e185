"""Text classification: one text, one of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Array, Columns, Features, Floats
from tasks.core.errors import ParamsError
from tasks.data.quality.checks import COPIES_LABELS, LABEL_PRESENT, LABEL_ROWS, LABEL_SHARE, Check
from tasks.data.tables.column_guesses import classes, texts
from tasks.encoding.padding import encode_texts, pad_features
from tasks.inference.calibration import Calibration
from tasks.params.evaluation import check_behaviour
from tasks.params.labels import label_variants
from tasks.problems.base import UNLEARNT, BehaviourTest, Guessed, Problem
from tasks.scoring.behaviour import by_column, invariance_rows, spread_rows
from tasks.scoring.classes import (
    classification_details,
    classification_metrics,
    fit_temperature,
    log_loss,
    resampled_classification_metrics,
)
from tasks.scoring.statistics.draws import Resampled
from tasks.scoring.thresholds import best_threshold, describe_threshold
from tasks.training.class_weights import weigh_classes

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from tasks.params.schema import EvaluateParams, ValidateParams


class TextClassification(Problem):
    """One text, one of several classes."""

    name = "text-classification"
    columns = {"text": "the text", "label": "its class"}
    text_columns: ClassVar[tuple[str, ...]] = ("text",)
    label_column = "label"
    answer_columns = ("label",)
    metric_signs = {
        "accuracy": 1,
        "macro_f1": 1,
        "weighted_f1": 1,
        "mcc": 1,
        "log_loss": -1,
        "ece": -1,
    }
    metric = "macro_f1"
    label_metrics = ("accuracy", "log_loss")
    baseline_name = "TF-IDF + logistic regression"
    problem_type: ClassVar[str] = "single_label_classification"  # as Hugging Face calls it

    def guess_columns(self, rows: Columns) -> Guessed | None:
        text = next(iter(texts(rows)), None)
        label = next((name for name in classes(rows) if name != text), None)
        return {"text": text, "label": label} if text and label else None

    def expectations(self, validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
        if not labels:
            raise ParamsError(
                "labels: empty; wanted every label that rows may have.",
                "List them in params.yaml: `labels: [ham, spam]`.",
            )
        known = {"column": "label", "value_set": list(labels)}
        between = "expect_column_values_to_be_between"
        conflicts = {
            "column": COPIES_LABELS,
            "max_value": 1,
            "mostly": 1 - validate.max_conflict_share,
        }
        few, most = validate.min_rows_per_class, validate.max_class_share
        variants = {
            "column": "label",
            "value_set": [label for group in label_variants(labels) for label in group],
        }
        return [
            Check("null_label", "expect_column_values_to_not_be_null", {"column": "label"}, "quarantine", "the label is missing"),
            Check("unknown_label", "expect_column_values_to_be_in_set", known, "error", "the label is not in `labels` of params.yaml"),
            Check("conflicts", between, conflicts, "warn", "the same text also has another label"),
            Check("rows_per_class", between, {"column": LABEL_ROWS, "min_value": few}, "error",
                  f"the label has fewer than {few} rows (validate.min_rows_per_class)"),
            Check("missing_class", "expect_column_distinct_values_to_contain_set", known | {"column": LABEL_PRESENT}, "error",
                  "labels of params.yaml have no rows"),
            Check("one_class", "expect_column_unique_value_count_to_be_between", {"column": LABEL_PRESENT, "min_value": 2}, "error",
                  "two classes or more are needed to tell apart"),
            Check("label_variants", "expect_column_values_to_not_be_in_set", variants, "warn",
                  "another label differs only by case or by blanks (ingest.merge_labels makes one of them)"),
            Check("class_share", "expect_column_max_to_be_between", {"column": LABEL_SHARE, "max_value": most}, "warn",
                  f"the most frequent label has more than {most:.0%} of the rows (validate.max_class_share)"),
        ]  # fmt: skip

    def encode(self, tokenizer: Tokenizer, rows: Columns, labels: Sequence[str]) -> Features:
        features = encode_texts(tokenizer, [rows[column] for column in self.text_columns])
        if self.label_column in rows:
            features["references"] = self.answers(rows[self.label_column], labels)
        return features

    def answers(self, given: Sequence[Any], labels: Sequence[str]) -> list[Any]:
        """What the rows' label column holds, as references."""
        label2id = {label: i for i, label in enumerate(labels)}
        return [label2id[label] for label in given]

    def collate(self, features: Features, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
        return pad_features(features, pad_token_id)

    def references(self, features: Features) -> Array:
        return np.asarray(features["references"], np.int64)

    def load_model(
        self, directory: Path, labels: Sequence[str], dropout: float | None = None
    ) -> PreTrainedModel:
        from transformers import AutoModelForSequenceClassification

        from tasks.training.networks.pretrained import load_pretrained

        return load_pretrained(
            AutoModelForSequenceClassification,
            directory,
            dropout,
            self.output_labels(labels),
            self.problem_type,
        )

    def loss(
        self,
        outputs: torch.Tensor,
        references: torch.Tensor,
        *,
        label_smoothing: float,
        class_weights: torch.Tensor | None,
    ) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(
            outputs, references, weight=class_weights, label_smoothing=label_smoothing
        )

    def class_weights(
        self, references: Array, labels: Sequence[str], wanted: str | Mapping[str, float]
    ) -> Floats | None:
        return weigh_classes(
            np.bincount(references, minlength=len(labels)), labels, wanted, "label"
        )

    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        return classification_metrics(outputs, references)

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        return resampled_classification_metrics(outputs, references)

    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        return classification_details(outputs, references, labels)

    def fit_calibration(
        self, outputs: Floats, references: Array, labels: Sequence[str], out_of_scope: str | None
    ) -> Calibration:
        temperature = fit_temperature(outputs, references)
        if out_of_scope is None:
            return Calibration(temperature)
        place = labels.index(out_of_scope)
        threshold = best_threshold(_lead(outputs, place) / temperature, references == place)
        bias = np.zeros(len(labels))
        bias[place] = -(
            threshold or 0.0
        )  # without rows of both kinds there is nothing to tune on: the most probable label wins
        return Calibration(temperature, tuple(bias.tolist()))

    def calibration_loss(self, outputs: Floats, references: Array) -> float | None:
        return log_loss(outputs, references)

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
        place = labels.index(out_of_scope)
        lead = _lead(outputs, place) / calibration.temperature
        found = describe_threshold(lead, references == place, -calibration.bias[place])
        return {"out_of_scope": found and {"label": out_of_scope, **found}}

    def probabilities(self, outputs: Floats) -> Floats:
        """Of each label, (n, c)."""
        from scipy.special import softmax

        probabilities: Floats = softmax(outputs, -1)
        return probabilities

    def given(self, outputs: Floats) -> npt.NDArray[np.bool_]:
        """Which labels each row is given, (n, c)."""
        given: npt.NDArray[np.bool_] = outputs.argmax(-1)[:, None] == np.arange(outputs.shape[1])
        return given

    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        same = (self.given(outputs) == self.given(others)).all(-1)
        return float(same.mean()), float(
            np.abs(self.probabilities(outputs) - self.probabilities(others)).max()
        )

    def right(self, outputs: Floats, references: Array) -> npt.NDArray[np.bool_]:
        right: npt.NDArray[np.bool_] = outputs.argmax(-1) == references
        return right

    def align(self, outputs: Floats, labels: Sequence[str], wanted: Sequence[str]) -> Floats:
        aligned = np.repeat(outputs.min(-1, keepdims=True) - UNLEARNT, len(wanted), axis=-1)
        aligned[:, [wanted.index(label) for label in labels]] = outputs
        return aligned

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        from tasks.scoring.tfidf_baseline import tfidf_logistic_regression

        references = [labels.index(label) for label in train["label"]]
        return tfidf_logistic_regression(train["text"], references, test["text"], len(labels), seed)

    def behaviour_tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        wanted, columns = evaluate.behaviour, self.text_columns
        check_behaviour(wanted, labels, columns)
        tests = [
            BehaviourTest(altered.name, "invariance", altered.after, self._same, altered.before)
            for altered in invariance_rows(rows, columns, wanted.names, wanted.rows, seed)
        ]
        some = spread_rows(zip(*(rows[column] for column in columns), strict=True), seed)[
            : wanted.rows
        ]
        for direction in wanted.directional:
            after = [(*row[:-1], direction.prepend + row[-1] + direction.append) for row in some]
            label, sign = (
                labels.index(direction.label),
                1 if direction.expect == "not_lower" else -1,
            )
            passes = partial(self._moves, label=label, sign=sign, tolerance=direction.tolerance)
            tests.append(
                BehaviourTest(
                    direction.name,
                    "directional",
                    by_column(columns, after),
                    passes,
                    by_column(columns, some),
                )
            )
        for cases in wanted.minimum_functionality:
            texts = by_column(
                columns, [(case,) if isinstance(case, str) else case for case in cases.texts]
            )
            passes = partial(self._gives, label=labels.index(cases.label))
            answer: Any = [cases.label] if self.types.get(self.label_column) else cases.label
            written: dict[str, Any] = {**texts, self.label_column: [answer] * len(cases.texts)}
            tests.append(BehaviourTest(cases.name, "minimum-functionality", written, passes))
        return tests

    def _same(self, outputs: Floats, others: Floats | None) -> npt.NDArray[np.bool_]:
        assert others is not None
        same: npt.NDArray[np.bool_] = (self.given(outputs) == self.given(others)).all(-1)
        return same

    def _gives(
        self, outputs: Floats, others: Floats | None, *, label: int
    ) -> npt.NDArray[np.bool_]:
        return self.given(outputs)[:, label]

    def _moves(
        self, outputs: Floats, others: Floats | None, *, label: int, sign: int, tolerance: float
    ) -> npt.NDArray[np.bool_]:
        """True where the label's probability moved the way of `sign`, or at most `tolerance` the other way."""
        assert others is not None
        moved = self.probabilities(outputs)[:, label] - self.probabilities(others)[:, label]
        return np.asarray(sign * moved >= -tolerance)

    def figures(self, evaluation: Mapping[str, Any]) -> dict[str, Figure]:
        from tasks.reports.plots import confusion_figure, reliability_figure

        details, calibrated = (
            evaluation["details"],
            evaluation.get("calibrated", {}).get("details", {}),
        )
        labels = [entry["label"] for entry in details["per_class"]]
        series = {"as trained": details["reliability"]}
        if "reliability" in calibrated:
            series["temperature-scaled"] = calibrated["reliability"]
        return {
            "Confusion matrix": confusion_figure(np.asarray(details["confusion"]), labels),
            "Reliability": reliability_figure(series),
            **self.out_of_scope_figures(evaluation),
        }

    def out_of_scope_figures(self, evaluation: Mapping[str, Any]) -> dict[str, Figure]:
        """How well what is out of scope is told, where a label stands for it."""
        from tasks.reports.plots import precision_recall_figure

        curves = {
            "validation": evaluation.get("validation_thresholds", {}),
            "test": evaluation["details"],
        }
        found = {
            split: curve["out_of_scope"]
            for split, curve in curves.items()
            if curve.get("out_of_scope")
        }
        return (
            {"Out-of-scope: precision and recall": precision_recall_figure(found)} if found else {}
        )

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        predictions = []
        for probabilities in self.probabilities(calibration.apply(outputs)):
            scores = {label: float(p) for label, p in zip(labels, probabilities, strict=True)}
            best = max(scores, key=scores.__getitem__)
            predictions.append({"label": best, "score": scores[best], "scores": scores})
        return predictions

    def example(self) -> dict[str, list[Any]]:
        return {"text": ["The room was clean and the staff were kind.", "It broke after two days."]}


def _lead(outputs: Floats, place: int) -> npt.NDArray[np.float64]:
    """Log-odds of a label against the best of the others, (n,)."""
    exact = outputs.astype(np.float64)
    lead: npt.NDArray[np.float64] = exact[:, place] - np.delete(exact, place, axis=1).max(1)
    return lead
