"""What problem types without classes share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.core.arrays import Array, Columns, Floats
from tasks.core.errors import ParamsError
from tasks.inference.calibration import Calibration
from tasks.problems.base import BehaviourTest, Problem
from tasks.scoring.statistics.draws import Draws, Resampled

if TYPE_CHECKING:
    from tasks.params.schema import EvaluateParams


class Unlabelled(Problem):
    """A problem whose outputs are scores or likelihoods, not classes: there is nothing to weigh, to calibrate or to bring in order."""

    label_column = None

    def labels_of(self, output_labels: Sequence[str]) -> Sequence[str]:
        return []  # whatever names a configuration has for its outputs

    def class_weights(
        self, references: Array, labels: Sequence[str], wanted: str | Mapping[str, float]
    ) -> Floats | None:
        if wanted == "none":
            return None
        raise ParamsError(
            f"finetune.class_weights: {self.name} has no classes to weigh.", "Set it to none."
        )

    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        """Those of the resample that has every row once."""
        found = self.resampled_metrics(outputs, references, labels)(Draws.once(len(outputs)))
        return {name: float(values[0]) for name, values in found.items()}

    @abstractmethod
    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled: ...

    def fit_calibration(
        self, outputs: Floats, references: Array, labels: Sequence[str], out_of_scope: str | None
    ) -> Calibration:
        return Calibration()

    def align(self, outputs: Floats, labels: Sequence[str], wanted: Sequence[str]) -> Floats:
        return outputs

    def behaviour_tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        """None; ParamsError for tests of labels."""
        if evaluate.behaviour.minimum_functionality or evaluate.behaviour.directional:
            remedy = "Take minimum_functionality and directional out."
            raise ParamsError(f"evaluate.behaviour: {self.name} has no labels to test.", remedy)
        return []
