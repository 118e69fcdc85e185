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
# contrastive steps converge sooner: 60 are worth 6 points with 64 tweets a label (docs/methods.md)
MIN_CONTRASTIVE_STEPS = 60
MIN_CONTRASTIVE_EPOCHS = 5
MANY_CLASSES = 20
# learning rates of the body: a small encoder takes four times that of one with 100 million weights
SMALL_BASE_RATE, BASE_SIZE_RATE = 2e-4, 5e-5
# what `ratchet init --recipe` names: values that override those chosen by size
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "standard": {},
    # the base model as it is, under a head that is solved: seconds, and good with few rows
    "frozen": {"method": "frozen", "head_start": "solved", "head_learning_rate": None},
    # the same, from the labels' names alone: they are the training rows
    "zero-shot": {"method": "frozen", "head_start": "solved", "head_learning_rate": None},
    # the same head, on a body that learnt to tell the classes apart
    "few-shot": {
        "method": "full",
        "head_start": "solved",
        "loss": "contrastive",
        "batch_size": 64,
        "learning_rate": 1e-4,
        "head_learning_rate": None,
    },
}
# what `validate` asks of the data; the recipes for few labels take what there is
CHECKS = {"min_rows": 50, "min_rows_per_class": 10}
CHECKS_OF_FEW = {"min_rows": 10, "min_rows_per_class": 1}


@dataclass(frozen=True)
class TrainingSize:
    """What the training values depend on.

    rows        number of training rows
    classes     number of labels; 0 for a problem without labels
    usual_base  whether the base model is the problem's default, whose learning rates were measured
    pools       whether the problem's head reads one vector a row
    named       whether the labels' names can be training rows
    """

    rows: int
    classes: int
    usual_base: bool
    pools: bool
    named: bool = False


def check_recipe(recipe: str, problem: Problem) -> None:
    """Raise ParamsError for an unknown recipe, or one that the problem type cannot have."""
    if recipe not in RECIPES:
        raise ParamsError(
            f"--recipe: unknown recipe '{recipe}'.{did_you_mean(recipe, RECIPES)}",
            f"Known: {', '.join(RECIPES)}.",
        )
    objective, values = problem.objective, RECIPES[recipe]
    if "head_start" in values and objective.solve_head is None:
        raise ParamsError(
            f"--recipe {recipe}: the head of {problem.name} has no classes to solve for.",
            "Leave --recipe out.",
        )
    if "loss" in values and values["loss"] not in objective.losses:
        raise ParamsError(
            f"--recipe {recipe}: it compares rows by their one class, and {problem.name} has none.",
            "Use --recipe frozen, or leave --recipe out.",
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
        named = size.named and recipe != "zero-shot"  # whose rows are the names
        values |= {**RECIPES[recipe], "pooling": _pooling(size), "label_names": named}
    if not size.usual_base and values["method"] == "full":
        values["learning_rate"] = min(values["learning_rate"], BASE_SIZE_RATE)
    least = (
        (MIN_CONTRASTIVE_STEPS, MIN_CONTRASTIVE_EPOCHS)
        if values.get("loss") == "contrastive"
        else (MIN_STEPS, MIN_EPOCHS)
    )
    steps = math.ceil(size.rows / values["batch_size"])
    return {"epochs": max(least[1], math.ceil(least[0] / max(steps, 1))), **values}


def check_values(recipe: str) -> Mapping[str, int]:
    """`validate` values to write."""
    return CHECKS if recipe == "standard" else CHECKS_OF_FEW


def _pooling(size: TrainingSize) -> str:
    """What the head reads. The default base model is a sentence encoder of mean-pooled states."""
    if not size.pools:
        return "own"
    return "mean" if size.usual_base else "auto"
