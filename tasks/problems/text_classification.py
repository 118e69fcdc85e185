"""Text classification: one text, one of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.behaviour import invariance_texts, spread
from tasks.core.calibration import Calibration
from tasks.core.checks import COPIES_LABELS, LABEL_ROWS, LABEL_SHARE, Check
from tasks.core.column_kinds import classes, texts
from tasks.core.errors import ParamsError, did_you_mean
from tasks.core.metrics import classification_details, classification_metrics, fit_temperature, resampled_classification_metrics
from tasks.problems.base import Array, BehaviourTest, Columns, Features, Floats, Problem

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from tasks.core.behaviour_params import BehaviourParams
    from tasks.core.params import EvaluateParams, ValidateParams

UNLEARNT = np.float32(20.0)  # logits below a model's lowest, for a label that it never learnt: finite, so that log-loss stays a number


class TextClassification(Problem):
    """One text, one of several classes."""

    name = "text-classification"
    columns = {"text": "the text", "label": "its class"}  # noqa: RUF012 (base.py declares the class variables)
    text_columns = ("text",)
    label_column = "label"
    answer_columns = ("label",)
    metric_signs = {"accuracy": 1, "macro_f1": 1, "weighted_f1": 1, "mcc": 1, "log_loss": -1, "ece": -1}  # noqa: RUF012
    metric = "macro_f1"
    label_metrics = ("accuracy", "log_loss")
    baseline_name = "TF-IDF + logistic regression"

    def guess_columns(self, rows: Columns) -> dict[str, str] | None:
        text = next(iter(texts(rows)), None)
        label = next((name for name in classes(rows) if name != text), None)
        return {"text": text, "label": label} if text and label else None

    def expectations(self, validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
        if not labels:
            raise ParamsError("labels: empty; wanted every label that rows may have.", "List them in params.yaml: `labels: [ham, spam]`.")
        known = {"column": "label", "value_set": list(labels)}
        between = "expect_column_values_to_be_between"
        conflicts = {"column": COPIES_LABELS, "max_value": 1, "mostly": 1 - validate.max_conflict_share}
        few, most = validate.min_rows_per_class, validate.max_class_share
        return [
            Check("null_label", "expect_column_values_to_not_be_null", {"column": "label"}, "quarantine", "the label is missing"),
            Check("unknown_label", "expect_column_values_to_be_in_set", known, "error", "the label is not in `labels` of params.yaml"),
            Check("conflicts", between, conflicts, "warn", "the same text also has another label"),
            Check("rows_per_class", between, {"column": LABEL_ROWS, "min_value": few}, "error",
                  f"the label has fewer than {few} rows (validate.min_rows_per_class)"),
            Check("missing_class", "expect_column_distinct_values_to_contain_set", known, "error", "labels of params.yaml have no rows"),
            Check("one_class", "expect_column_unique_value_count_to_be_between", {"column": "label", "min_value": 2}, "error",
                  "two classes or more are needed to tell apart"),
            Check("class_share", "expect_column_max_to_be_between", {"column": LABEL_SHARE, "max_value": most}, "warn",
                  f"the most frequent label has more than {most:.0%} of the rows (validate.max_class_share)"),
        ]  # fmt: skip

    def encode(self, tokenizer: Tokenizer, rows: Columns, labels: Sequence[str]) -> Features:
        encodings = tokenizer.encode_batch_fast(list(rows["text"]))
        features: Features = {
            "input_ids": [encoding.ids for encoding in encodings],
            "truncated": [bool(encoding.overflowing) for encoding in encodings],
        }
        if "label" in rows:
            label2id = {label: i for i, label in enumerate(labels)}
            features["references"] = [label2id[label] for label in rows["label"]]
        return features

    def collate(self, features: Features, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
        token_ids = features["input_ids"]
        longest = max(map(len, token_ids))
        input_ids = np.full((len(token_ids), longest), pad_token_id, np.int64)
        attention_mask = np.zeros((len(token_ids), longest), np.int64)
        for row, ids in enumerate(token_ids):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def references(self, features: Features) -> Array:
        return np.asarray(features["references"], np.int64)

    def load_model(self, directory: Path, labels: Sequence[str], dropout: float | None = None) -> PreTrainedModel:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
        config.problem_type = "single_label_classification"
        if dropout is not None:
            # the names differ between architectures; only those that the base has are set
            for key in (
                "hidden_dropout_prob",
                "attention_probs_dropout_prob",
                "classifier_dropout",
                "dropout",
                "attention_dropout",
                "seq_classif_dropout",
            ):
                if hasattr(config, key):
                    setattr(config, key, dropout)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            directory, config=config, trust_remote_code=False, use_safetensors=True, dtype="float32", attn_implementation="eager"
        )
        return model

    def loss(
        self, outputs: torch.Tensor, references: torch.Tensor, *, label_smoothing: float, class_weights: torch.Tensor | None
    ) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, references, weight=class_weights, label_smoothing=label_smoothing)

    def class_weights(self, references: Array, labels: Sequence[str], wanted: str | Mapping[str, float]) -> Floats | None:
        if wanted == "none":
            return None
        if wanted == "balanced":
            counts = np.bincount(references, minlength=len(labels))
            return (len(references) / (len(labels) * np.maximum(counts, 1))).astype(np.float32)
        assert not isinstance(wanted, str)
        if set(wanted) != set(labels):
            raise ParamsError(
                f"finetune.class_weights: names {sorted(wanted)}, the labels are {sorted(labels)}.", "Give every label one weight."
            )
        return np.asarray([wanted[label] for label in labels], np.float32)

    def metrics(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, float]:
        return classification_metrics(outputs, references)

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str], weights: npt.NDArray[np.float64]
    ) -> dict[str, npt.NDArray[np.float64]]:
        return resampled_classification_metrics(outputs, references, weights)

    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        return classification_details(outputs, references, labels)

    def fit_calibration(self, outputs: Floats, references: Array, labels: Sequence[str], out_of_scope: str | None) -> Calibration:
        return Calibration(fit_temperature(outputs, references))

    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        from scipy.special import softmax

        same = outputs.argmax(-1) == others.argmax(-1)
        return float(same.mean()), float(np.abs(softmax(outputs, -1) - softmax(others, -1)).max())

    def right(self, outputs: Floats, references: Array) -> npt.NDArray[np.bool_]:
        right: npt.NDArray[np.bool_] = outputs.argmax(-1) == references
        return right

    def align(self, outputs: Floats, labels: Sequence[str], wanted: Sequence[str]) -> Floats:
        aligned = np.repeat(outputs.min(-1, keepdims=True) - UNLEARNT, len(wanted), axis=-1)
        aligned[:, [wanted.index(label) for label in labels]] = outputs
        return aligned

    def baseline(self, train: Columns, test: Columns, labels: Sequence[str], seed: int) -> Floats | None:
        from tasks.core.baseline import tfidf_logistic_regression

        references = [labels.index(label) for label in train["label"]]
        return tfidf_logistic_regression(train["text"], references, test["text"], len(labels), seed)

    def behaviour_tests(self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int) -> list[BehaviourTest]:
        wanted = evaluate.behaviour
        check_behaviour(wanted, labels)
        tests = [
            BehaviourTest(altered.name, "invariance", {"text": altered.after}, _same_label, {"text": altered.before})
            for altered in invariance_texts(rows["text"], wanted.names, wanted.rows, seed)
        ]
        some = spread(rows["text"], seed)[: wanted.rows]
        for direction in wanted.directional:
            after = [direction.prepend + text + direction.append for text in some]
            label, sign = labels.index(direction.label), 1 if direction.expect == "not_lower" else -1
            passes = partial(_moves, label=label, sign=sign, tolerance=direction.tolerance)
            tests.append(BehaviourTest(direction.name, "directional", {"text": after}, passes, {"text": some}))
        for cases in wanted.minimum_functionality:
            written = {"text": list(cases.texts), "label": [cases.label] * len(cases.texts)}
            tests.append(BehaviourTest(cases.name, "minimum-functionality", written, partial(_all_are, label=labels.index(cases.label))))
        return tests

    def figures(self, evaluation: Mapping[str, Any]) -> dict[str, Figure]:
        from tasks.core.plots import confusion_figure, reliability_figure

        details, calibrated = evaluation["details"], evaluation.get("calibrated", {}).get("details", {})
        labels = [entry["label"] for entry in details["per_class"]]
        series = {"as trained": details["reliability"]}
        if "reliability" in calibrated:
            series["temperature-scaled"] = calibrated["reliability"]
        return {
            "Confusion matrix": confusion_figure(np.asarray(details["confusion"]), labels),
            "Reliability": reliability_figure(series),
        }

    def decode(self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration) -> list[dict[str, Any]]:
        from scipy.special import softmax

        predictions = []
        for probabilities in softmax(calibration.apply(outputs), -1):
            scores = {label: float(p) for label, p in zip(labels, probabilities, strict=True)}
            best = max(scores, key=scores.__getitem__)
            predictions.append({"label": best, "score": scores[best], "scores": scores})
        return predictions

    def example(self) -> dict[str, list[Any]]:
        return {"text": ["The room was clean and the staff were kind.", "It broke after two days."]}


def _same_label(outputs: Floats, others: Floats | None) -> npt.NDArray[np.bool_]:
    assert others is not None
    same: npt.NDArray[np.bool_] = outputs.argmax(-1) == others.argmax(-1)
    return same


def _all_are(outputs: Floats, others: Floats | None, *, label: int) -> npt.NDArray[np.bool_]:
    right: npt.NDArray[np.bool_] = outputs.argmax(-1) == label
    return right


def _moves(outputs: Floats, others: Floats | None, *, label: int, sign: int, tolerance: float) -> npt.NDArray[np.bool_]:
    """True where the label's probability moved the way of `sign`, or at most `tolerance` the other way."""
    from scipy.special import softmax

    assert others is not None
    moved: npt.NDArray[np.bool_] = sign * (softmax(outputs, -1)[:, label] - softmax(others, -1)[:, label]) >= -tolerance
    return moved


def check_behaviour(behaviour: BehaviourParams, labels: Sequence[str]) -> None:
    """ParamsError for labels that there are not."""
    places = [(f"{key}.{i}", entry) for key in ("minimum_functionality", "directional") for i, entry in enumerate(getattr(behaviour, key))]
    wrong = [
        f"  evaluate.behaviour.{place}.label: '{entry.label}' is no label.{did_you_mean(entry.label, labels)}"
        for place, entry in places
        if entry.label not in labels
    ]
    if wrong:
        raise ParamsError("\n".join(["params.yaml: behavioural tests name unknown labels:", *wrong]), f"Labels: {', '.join(labels)}.")
