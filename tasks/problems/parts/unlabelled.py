"""What types without classes share: nothing to weigh, to calibrate or to align."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.core.arrays import Array, Floats
from tasks.core.errors import ParamsError
from tasks.inference.calibration import Calibration
from tasks.scoring.statistics.draws import Draws, Resampled

if TYPE_CHECKING:
    from tasks.params.schema import EvaluateParams


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
