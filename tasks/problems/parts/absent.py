"""What a type does not have, said once: each part of a type lists what is absent from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.arrays import Array, Columns, Floats, Indices
from tasks.core.errors import ParamsError
from tasks.inference.calibration import Calibration
from tasks.scoring.statistics.draws import Draws, Resampled

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from tasks.encoding.dialogues import Turn
    from tasks.params.schema import EvaluateParams


def no_clusters(references: Array) -> Indices | None:
    """Each row is drawn alone."""
    return None


def no_threshold_details(
    outputs: Floats,
    references: Array,
    labels: Sequence[str],
    calibration: Calibration,
    out_of_scope: str | None,
) -> dict[str, Any]:
    """Decisions without tuned thresholds."""
    return {}


def no_calibration_loss(outputs: Floats, references: Array) -> float | None:
    """No temperature is fitted."""
    return None


def no_answers(
    models: Mapping[str, PreTrainedModel],
    tokenizer: Tokenizer,
    rows: Columns,
    evaluate: EvaluateParams,
) -> dict[str, Any] | None:
    """The model generates nothing."""
    return None


def as_they_are(outputs: Floats, labels: Sequence[str], wanted: Sequence[str]) -> Floats:
    """Outputs that do not depend on labels."""
    return outputs


def no_token_names(prediction: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Predictions have no token ids."""


def no_prompts(rows: Columns) -> list[Sequence[Turn]]:
    """No row asks for an answer."""
    return []


def no_optional_parts(labels: Sequence[str]) -> dict[str, Any] | None:
    """Every prediction has all parts."""
    return None


def no_labels(output_labels: Sequence[str]) -> Sequence[str]:
    """None, whatever names a configuration has for the model's outputs."""
    return []


def no_class_weights(
    references: Array, labels: Sequence[str], wanted: str | Mapping[str, float]
) -> Floats | None:
    """None; ParamsError where params.yaml wants any."""
    if wanted == "none":
        return None
    raise ParamsError(
        "finetune.class_weights: this problem type has no classes to weigh.", "Set it to none."
    )


def no_calibration(
    outputs: Floats, references: Array, labels: Sequence[str], out_of_scope: str | None
) -> Calibration:
    """Outputs that are not probabilities of classes stay as they are."""
    return Calibration()


def check_no_label_tests(evaluate: EvaluateParams) -> None:
    """ParamsError for behavioural tests that name labels."""
    if evaluate.behaviour.minimum_functionality or evaluate.behaviour.directional:
        raise ParamsError(
            "evaluate.behaviour: this problem type has no labels to test.",
            "Remove minimum_functionality and directional.",
        )


def metrics_once(resampled: Resampled, rows: int) -> dict[str, float]:
    """Metrics of the resample that has every row once."""
    return {name: float(values[0]) for name, values in resampled(Draws.once(rows)).items()}
