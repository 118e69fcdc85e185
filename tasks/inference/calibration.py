"""Calibration of a model's outputs before they are scored or shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tasks.core.arrays import Floats


@dataclass(frozen=True)
class Calibration:
    """Temperature and bias, fitted on validation rows and kept in the bundle.

    temperature  divides the outputs (Guo et al. 2017)
    bias         added after that along the last axis; empty: none. A bias moves decisions, so
                 decision thresholds are stored as biases too
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = ()

    def apply(self, outputs: Floats) -> Floats:
        """The calibrated outputs."""
        scaled: Floats = outputs / np.float32(self.temperature)
        return scaled + np.asarray(self.bias, np.float32) if self.bias else scaled

    def decide(self, outputs: Floats) -> Floats:
        """Outputs that decide as those of `apply` do, but on the scale of the raw outputs."""
        return Calibration(1.0, tuple(self.temperature * bias for bias in self.bias)).apply(outputs)
