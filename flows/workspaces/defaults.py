"""Training values that `ratchet init` writes, chosen by the number of rows and classes.

docs/defaults.md lists the data they were tuned on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FEW_ROWS = 2_000  # training rows; below this, batches are small
MIN_STEPS = 300  # of the optimizer: with half as many, three classes of 500 tweets stay near chance
MIN_EPOCHS = 3
MANY_CLASSES = 20
# learning rates of the body: a small encoder takes four times that of one with 100 million weights
SMALL_BASE_RATE, BASE_SIZE_RATE = 2e-4, 5e-5


@dataclass(frozen=True)
class TrainingSize:
    """What the training values depend on.

    rows        number of training rows
    classes     number of labels; 0 for a problem without labels
    usual_base  whether the base model is the problem's default, whose learning rates were measured
    """

    rows: int
    classes: int
    usual_base: bool


def finetune_values(size: TrainingSize, own: Mapping[str, Any]) -> dict[str, Any]:
    """`finetune` values to write.

    own  the problem's own values; they override those chosen by size
    """
    values: dict[str, Any] = {
        "method": "full",
        "batch_size": 16 if size.rows < FEW_ROWS else 32,
        "learning_rate": SMALL_BASE_RATE,
        # with many classes, each has few rows: the head must move further in the same steps
        "head_learning_rate": 1e-2 if size.classes >= MANY_CLASSES else 1e-3,
    } | dict(own)
    if not size.usual_base and values["method"] == "full":
        values["learning_rate"] = min(values["learning_rate"], BASE_SIZE_RATE)
    steps = math.ceil(size.rows / values["batch_size"])
    return {"epochs": max(MIN_EPOCHS, math.ceil(MIN_STEPS / max(steps, 1))), **values}
