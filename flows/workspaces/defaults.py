"""Training values that `ratchet init` writes, chosen by the number of rows and classes.

docs/defaults.md lists the data they were tuned on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import ParamsError, did_you_mean
from tasks.problems import Problem

FEW_ROWS = 2_000  # training rows; below this, batches are small
MIN_STEPS = 300  # of the optimizer: with half as many, three classes of 500 tweets stay near chance
MIN_EPOCHS = 3
MANY_CLASSES = 20
# learning rates of the body: a small encoder takes four times that of one with 100 million weights
SMALL_BASE_RATE, BASE_SIZE_RATE = 2e-4, 5e-5
# what `ratchet init --recipe` names: values that override those chosen by size
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "standard": {},
    # the base model as it is, under a head that is solved: seconds, and good with few rows
    "frozen": {"method": "frozen", "head_start": "solved"},
}


@dataclass(frozen=True)
class TrainingSize:
    """What the training values depend on.

    rows        number of training rows
    classes     number of labels; 0 for a problem without labels
    usual_base  whether the base model is the problem's default, whose learning rates were measured
    pools       whether the problem's head reads one vector a row
    """

    rows: int
    classes: int
    usual_base: bool
    pools: bool


def check_recipe(recipe: str, problem: Problem) -> None:
    """Raise ParamsError for an unknown recipe, or one that the problem type cannot have."""
    if recipe not in RECIPES:
        raise ParamsError(
            f"--recipe: unknown recipe '{recipe}'.{did_you_mean(recipe, RECIPES)}",
            f"Known: {', '.join(RECIPES)}.",
        )
    if "head_start" in RECIPES[recipe] and problem.objective.solve_head is None:
        raise ParamsError(
            f"--recipe {recipe}: the head of {problem.name} has no classes to solve for.",
            "Leave --recipe out.",
        )


def finetune_values(
    size: TrainingSize, own: Mapping[str, Any], recipe: str = "standard"
) -> dict[str, Any]:
    """`finetune` values to write.

    own  the problem's own values; they override those chosen by size, and the recipe both
    """
    values: dict[str, Any] = {
        "method": "full",
        "batch_size": 16 if size.rows < FEW_ROWS else 32,
        "learning_rate": SMALL_BASE_RATE,
        # with many classes, each has few rows: the head must move further in the same steps
        "head_learning_rate": 1e-2 if size.classes >= MANY_CLASSES else 1e-3,
        "pooling": _pooling(size),
        "head_start": "random",
    } | dict(own)
    if recipe != "standard":  # a head on a base model as it is needs the state that was trained
        values |= {**RECIPES[recipe], "pooling": _pooling(size)}
    if not size.usual_base and values["method"] == "full":
        values["learning_rate"] = min(values["learning_rate"], BASE_SIZE_RATE)
    steps = math.ceil(size.rows / values["batch_size"])
    return {"epochs": max(MIN_EPOCHS, math.ceil(MIN_STEPS / max(steps, 1))), **values}


def _pooling(size: TrainingSize) -> str:
    """What the head reads. The default base model is a sentence encoder of mean-pooled states."""
    if not size.pools:
        return "own"
    return "mean" if size.usual_base else "auto"
