"""What is done to a model's outputs before they are judged or shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tasks.core.arrays import Floats


@dataclass(frozen=True)
class Calibration:
    """Fitted on validation rows, kept in the bundle.

    temperature  the outputs are divided by it (Guo et al. 2017)
    bias         then added along the outputs' last axis; empty: nothing is. It moves decisions, so thresholds are biases too
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = ()

    def apply(self, outputs: Floats) -> Floats:
        """The outputs that count."""
        scaled: Floats = outputs / np.float32(self.temperature)
        return scaled + np.asarray(self.bias, np.float32) if self.bias else scaled

    def decide(self, outputs: Floats) -> Floats:
        """Outputs on their own scale whose decisions are those of `apply`."""
        return Calibration(1.0, tuple(self.temperature * bias for bias in self.bias)).apply(outputs)
