"""What was found of each way to compute a model, whether it passes, and which ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.calibration import Calibration
from tasks.core.params import VerifyParams
from tasks.core.timing import Timings

if TYPE_CHECKING:
    from tasks.problems.base import Array, Floats, Problem

FP32 = "fp32"
TORCH = "pytorch"

# of each candidate: on validation, against the checkpoint; and how far a probability moves between batches of 1 and of many
FOUND = ("metric", "metric_loss", "agreement", "max_probability_difference", "max_batch_difference")

MAX_BATCH_DIFFERENCE = 0.01  # of a probability between the two


@dataclass
class Variant:
    """One way to compute the model, and what was found of it. `failure` is empty while nothing went wrong."""

    name: str
    size_bytes: int = 0
    failure: str = ""
    outputs: Floats | None = None  # of all validation rows
    alone: Floats | None = None  # of the first timing rows, each by itself
    timings: Timings = field(default_factory=Timings)
    decoding: list[float] = field(default_factory=list)  # of a model that writes: tokens a second, a value a round

    def speed(self) -> dict[str, float]:
        """Latency and throughput, and of a model that writes the tokens a second."""
        writes = {"tokens_per_second": round(float(np.median(self.decoding)), 2)} if self.decoding else {}
        return {**self.timings.summary(), **writes}

    def speedup_over(self, other: Variant) -> float:
        """How many times faster: by the tokens it writes where it writes any, for that is what takes its time."""
        if self.decoding and other.decoding:
            return round(float(np.median(np.divide(self.decoding, other.decoding))), 3)
        return self.timings.speedup_over(other.timings)


@dataclass(frozen=True)
class Judge:
    """What all are held against: `torch` and its thresholds for what is computed, `fp32` for speed; `rows` are those that were timed."""

    kind: Problem
    references: Array
    labels: tuple[str, ...]
    verify: VerifyParams
    rows: list[int]
    torch: Variant
    fp32: Variant
    thresholds: Calibration

    def metric(self, variant: Variant) -> float:
        """The problem's metric on validation."""
        assert variant.outputs is not None
        return self.kind.metrics(self.thresholds.decide(variant.outputs), self.references, self.labels)[self.kind.metric]

    def verdict(self, variant: Variant) -> dict[str, Any]:
        """Everything the report says of a candidate; `reason` says why it did not pass."""
        if variant.failure or variant.outputs is None or variant.alone is None or self.torch.outputs is None:
            nothing = dict.fromkeys((*FOUND, "latency_ms_p50", "latency_ms_p95", "throughput", "speedup"))
            size = variant.size_bytes or None
            return {"recipe": variant.name, **nothing, "size_bytes": size, "passed": False, "reason": f"failed: {variant.failure}"}
        metric = self.metric(variant)
        outputs, alone = self.thresholds.decide(variant.outputs), self.thresholds.decide(variant.alone)
        agreement, difference = self.kind.agreement(outputs, self.thresholds.decide(self.torch.outputs))
        _, moved = self.kind.agreement(outputs[self.rows[: len(alone)]], alone)
        found = dict(zip(FOUND, (metric, self.metric(self.torch) - metric, agreement, difference, moved), strict=True))
        speedup = variant.speedup_over(self.fp32)
        wrong = self._shortcomings(variant.name, found, speedup)
        speed = {**variant.speed(), "speedup": speedup}
        return {
            "recipe": variant.name, **found, "size_bytes": variant.size_bytes, **speed,
            "passed": not wrong, "reason": "; ".join(wrong) or "passed",
        }  # fmt: skip

    def _shortcomings(self, name: str, found: Mapping[str, float], speedup: float) -> list[str]:
        wrong, loss, moved = [], found["metric_loss"], found["max_batch_difference"]
        if not loss <= self.verify.max_metric_loss:
            wrong.append(f"loses {loss:.4f} of {self.kind.metric} on validation, the budget is {self.verify.max_metric_loss:g}")
        if not moved <= MAX_BATCH_DIFFERENCE:
            wrong.append(f"a probability moves by {moved:.3f} with the rows it is batched with, allowed are {MAX_BATCH_DIFFERENCE:g}")
        if name != FP32 and not speedup > self.verify.min_speedup:
            wrong.append(f"not faster: {speedup:.2f}x fp32 ONNX, wanted more than {self.verify.min_speedup:g}x")
        return wrong


def choose_recipe(judged: list[dict[str, Any]], metric: str, verify: VerifyParams) -> tuple[str, str]:
    """(the recipe that ships, why); writes into each candidate why it does not."""
    passing = sorted((entry for entry in judged if entry["passed"] and entry["recipe"] != FP32), key=lambda entry: -entry["speedup"])
    if not passing:
        tried = "; ".join(f"{entry['recipe']}: {entry['reason']}" for entry in judged if entry["recipe"] != FP32)
        return FP32, f"fp32 ONNX ships, no recipe passed. {tried or 'No recipe was asked for.'}"
    best, *slower = passing
    for entry in slower:
        entry["reason"] = f"passed; {best['recipe']} is faster ({best['speedup']:.2f}x against {entry['speedup']:.2f}x fp32 ONNX)"
    loss = f"{metric} on validation {-best['metric_loss']:+.4f} against the checkpoint (budget -{verify.max_metric_loss:g})"
    best["reason"] = f"the fastest within the budget: {best['speedup']:.2f}x fp32 ONNX, {loss}"
    return best["recipe"], f"{best['recipe']} is {best['reason']}."
