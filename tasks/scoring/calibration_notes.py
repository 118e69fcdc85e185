"""Warnings about temperature scaling that did not work as intended."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tasks.inference.calibration import Calibration
from tasks.scoring.classes import TEMPERATURES

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats
    from tasks.scoring.scorer import Scorer

_NEAR = 1e-3  # relative tolerance: the search stops just short of a bound
_SMALLEST = 5e-5  # nats: the least that four decimals show


def calibration_notes(
    scorer: Scorer, outputs: Floats, references: Array, calibration: Calibration
) -> list[str]:
    """Warnings for the user; empty if the temperature is within its bounds and lowers the log loss.

    outputs  uncalibrated, of the test split
    """
    temperature = calibration.temperature
    if temperature == 1:
        return []
    low, high = TEMPERATURES
    notes = []
    if math.isclose(temperature, low, rel_tol=_NEAR):
        notes.append(
            f"The temperature ended at its bound {low:g}: "
            "the validation rows are predicted too well for it to be estimated."
        )
    if math.isclose(temperature, high, rel_tol=_NEAR):
        notes.append(
            f"The temperature ended at its bound {high:g}: "
            "the validation rows are predicted too badly for it to be estimated."
        )
    before, after = (
        scorer.calibration_loss(scaling.apply(outputs), references)
        for scaling in (Calibration(), Calibration(temperature))
    )
    if before is not None and after is not None and after - before > _SMALLEST:
        notes.append(
            f"Temperature scaling (temperature {temperature:.3g}) raises the held-out log loss "
            f"from {before:.4f} to {after:.4f} on test."
        )
    return notes
