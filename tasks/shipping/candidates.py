"""What was found of each way to compute a model, whether it is accurate enough, and which ships.

Accuracy alone decides, in the order of `export.recipes`: outputs are the same however busy the machine is, and times are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.inference.calibration import Calibration
from tasks.params.schema import VerifyParams
from tasks.shipping.timing import Speedup, Timings

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats
    from tasks.problems.base import Problem

FP32 = "fp32"
TORCH = "pytorch"

SHIPS, PASSED, REJECTED, FAILED, NOT_EXAMINED = (
    "ships",
    "passed",
    "rejected",
    "failed",
    "not examined",
)  # a candidate's verdict

# of each candidate: on validation, against the checkpoint; and how far a probability moves between batches of 1 and of many
FOUND = ("metric", "metric_loss", "agreement", "max_probability_difference", "max_batch_difference")
SPEED = ("latency_ms_p50", "latency_ms_p95", "throughput", "speedup")

MAX_BATCH_DIFFERENCE = 0.01  # of a probability between the two


@dataclass
class Variant:
    """One way to compute the model, and what was found of it. `failure` is empty while nothing went wrong."""

    name: str
    model: Path
    size_bytes: int
    failure: str = ""
    outputs: Floats | None = None  # of all validation rows; None: not examined
    alone: Floats | None = None  # of the first timing rows, each by itself
    timings: Timings = field(default_factory=Timings)
    decoding: list[float] = field(
        default_factory=list
    )  # of a model that writes: tokens a second, a value a round

    def speed(self) -> dict[str, float]:
        """Latency and throughput, and of a model that writes the tokens a second."""
        writes = (
            {"tokens_per_second": round(float(np.median(self.decoding)), 2)}
            if self.decoding
            else {}
        )
        return {**self.timings.summary(), **writes}

    def speedup_over(self, other: Variant) -> Speedup:
        """How many times faster: by the tokens it writes where it writes any, for that is what takes its time."""
        if self.decoding and other.decoding:
            return Speedup.of(np.divide(self.decoding, other.decoding).tolist())
        return self.timings.speedup_over(other.timings)


@dataclass(frozen=True)
class Judge:
    """What all are held against: `torch` and its thresholds; `rows` are those that were run one by one as well."""

    kind: Problem
    references: Array
    labels: tuple[str, ...]
    verify: VerifyParams
    rows: list[int]
    torch: Variant
    thresholds: Calibration

    def metric(self, variant: Variant) -> float:
        """The problem's metric on validation."""
        assert variant.outputs is not None
        return self.kind.metrics(
            self.thresholds.decide(variant.outputs), self.references, self.labels
        )[self.kind.metric]

    def verdict(self, variant: Variant) -> dict[str, Any]:
        """Everything the report says of a candidate but its speed; `reason` says why it did not pass."""
        entry = {
            "recipe": variant.name,
            **dict.fromkeys(FOUND),
            "size_bytes": variant.size_bytes or None,
            **dict.fromkeys(SPEED),
        }
        if variant.failure:
            return {**entry, "verdict": FAILED, "reason": f"failed: {variant.failure}"}
        if variant.outputs is None or variant.alone is None:
            return {**entry, "verdict": NOT_EXAMINED, "reason": NOT_EXAMINED}
        assert self.torch.outputs is not None
        metric = self.metric(variant)
        outputs, alone = (
            self.thresholds.decide(variant.outputs),
            self.thresholds.decide(variant.alone),
        )
        agreement, difference = self.kind.agreement(
            outputs, self.thresholds.decide(self.torch.outputs)
        )
        _, moved = self.kind.agreement(outputs[self.rows[: len(alone)]], alone)
        found = dict(
            zip(
                FOUND,
                (metric, self.metric(self.torch) - metric, agreement, difference, moved),
                strict=True,
            )
        )
        wrong = self._shortcomings(found)
        return {
            **entry,
            **found,
            "verdict": REJECTED if wrong else PASSED,
            "reason": "; ".join(wrong) or PASSED,
        }

    def _shortcomings(self, found: Mapping[str, float]) -> list[str]:
        wrong, loss, moved = [], found["metric_loss"], found["max_batch_difference"]
        if not loss <= self.verify.max_metric_loss:
            wrong.append(
                f"loses {loss:.4f} of {self.kind.metric} on validation, the budget is {self.verify.max_metric_loss:g}"
            )
        if not moved <= MAX_BATCH_DIFFERENCE:
            wrong.append(
                f"a probability moves by {moved:.3f} with the rows it is batched with, allowed are {MAX_BATCH_DIFFERENCE:g}"
            )
        return wrong


def first_passing(judged: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The earliest recipe that passed; fp32 is what ships without one."""
    return next(
        (entry for entry in judged if entry["verdict"] == PASSED and entry["recipe"] != FP32), None
    )


def choose_recipe(
    judged: list[dict[str, Any]], metric: str, verify: VerifyParams
) -> tuple[str, str]:
    """(the recipe that ships, why); writes into each candidate its final verdict, and why it does not ship.

    judged  in the order of `export.recipes`
    """
    chosen = first_passing(judged)
    if chosen is None:
        tried = "; ".join(
            f"{entry['recipe']}: {entry['reason']}" for entry in judged if entry["recipe"] != FP32
        )
        next(entry for entry in judged if entry["recipe"] == FP32)["verdict"] = SHIPS
        return FP32, f"fp32 ONNX ships, no recipe passed. {tried or 'No recipe was asked for.'}"
    name = chosen["recipe"]
    for entry in judged:
        if entry["verdict"] == NOT_EXAMINED:
            entry["reason"] = (
                f"not examined, {name} comes first in export.recipes and passed; verify.examine_all measures it all the same"
            )
        elif entry["verdict"] == PASSED:
            entry["reason"] = (
                f"passed; {name} comes first in export.recipes"
                if entry["recipe"] != FP32
                else PASSED
            )
    chosen["verdict"] = SHIPS
    loss = f"{metric} on validation {-chosen['metric_loss']:+.4f} against the checkpoint (budget -{verify.max_metric_loss:g})"
    chosen["reason"] = (
        f"the first of export.recipes that is accurate enough: {loss}, the same answers in any batch"
    )
    return name, f"{name} is {chosen['reason']}."


def speed_notes(shipped: str, speedup: Speedup) -> list[str]:
    """A sentence where what ships is shown to be slower than fp32 ONNX."""
    if not speedup.shown_slower:
        return []
    remedy = "Accuracy alone decides what ships: take it out of export.recipes, or put a faster recipe before it."
    return [f"{shipped} is slower than fp32 ONNX on this machine, {speedup} as fast. {remedy}"]
