"""Judge the export candidates: what each measured, whether it is accurate enough, which ships.

Accuracy alone decides, in the order of `export.recipes`: a busy machine changes times, not outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.inference.calibration import Calibration
from tasks.params.schema import VerifyParams
from tasks.reports.stage_reports import CandidateReport, MeasuredSpeed
from tasks.shipping.timing import Speedup, Timings

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Floats
    from tasks.scoring.scorer import Scorer

FP32 = "fp32"
TORCH = "pytorch"

# a candidate's verdict
SHIPS, PASSED, REJECTED, FAILED = "ships", "passed", "rejected", "failed"
NOT_EXAMINED = "not examined"

MAX_BATCH_DIFFERENCE = 0.01  # of a probability


@dataclass
class Variant:
    """One way to compute the model, with its measurements; `failure` is empty unless it failed."""

    name: str
    model: Path
    size_bytes: int
    failure: str = ""
    outputs: Floats | None = None  # for all validation rows; None: not examined
    alone: Floats | None = None  # for the first timing rows, run at batch size 1
    timings: Timings = field(default_factory=Timings)
    decoding: list[float] = field(default_factory=list)  # generation: tokens/s of each round

    def speed(self) -> MeasuredSpeed:
        """Latency and throughput, plus tokens per second for a model that generates."""
        rate = round(float(np.median(self.decoding)), 2) if self.decoding else None
        return MeasuredSpeed(**self.timings.summary(), tokens_per_second=rate)

    def speedup_over(self, other: Variant) -> Speedup:
        """How many times faster; by tokens per second for a model that generates."""
        if self.decoding and other.decoding:
            return Speedup.of(np.divide(self.decoding, other.decoding).tolist())
        return self.timings.speedup_over(other.timings)


@dataclass(frozen=True)
class RecipeJudge:
    """The reference for all candidates: `torch` and its thresholds; `rows` also ran one by one."""

    scorer: Scorer
    references: Array
    labels: tuple[str, ...]
    verify: VerifyParams
    rows: list[int]
    torch: Variant
    thresholds: Calibration

    def metric(self, variant: Variant) -> float:
        """The problem's metric on validation."""
        assert variant.outputs is not None
        outputs = self.thresholds.decide(variant.outputs)
        return self.scorer.metrics(outputs, self.references, self.labels)[self.scorer.metric]

    def verdict(self, variant: Variant) -> CandidateReport:
        """A candidate's report entry without its speed; `reason` says why it did not pass."""
        entry = CandidateReport(
            recipe=variant.name,
            size_bytes=variant.size_bytes or None,
            verdict=NOT_EXAMINED,
            reason=NOT_EXAMINED,
        )
        if variant.failure:
            entry.verdict, entry.reason = FAILED, f"failed: {variant.failure}"
            return entry
        if variant.outputs is None or variant.alone is None:
            return entry
        assert self.torch.outputs is not None
        decide = self.thresholds.decide
        outputs, alone = decide(variant.outputs), decide(variant.alone)
        entry.metric = self.metric(variant)
        entry.metric_loss = self.metric(self.torch) - entry.metric
        entry.agreement, entry.max_probability_difference = self.scorer.agreement(
            outputs, decide(self.torch.outputs)
        )
        _, entry.max_batch_difference = self.scorer.agreement(
            outputs[self.rows[: len(alone)]], alone
        )
        shortcomings = self._shortcomings(entry.metric_loss, entry.max_batch_difference)
        entry.verdict = REJECTED if shortcomings else PASSED
        entry.reason = "; ".join(shortcomings) or PASSED
        return entry

    def _shortcomings(self, loss: float, batch_difference: float) -> list[str]:
        shortcomings = []
        if not loss <= self.verify.max_metric_loss:  # also where it is NaN
            shortcomings.append(
                f"loses {loss:.4f} of {self.scorer.metric} on validation, "
                f"the budget is {self.verify.max_metric_loss:g}"
            )
        if not batch_difference <= MAX_BATCH_DIFFERENCE:
            shortcomings.append(
                f"a probability moves by {batch_difference:.3f} with the rows it is batched with, "
                f"the limit is {MAX_BATCH_DIFFERENCE:g}"
            )
        return shortcomings


def first_passing(judged: Sequence[CandidateReport]) -> CandidateReport | None:
    """The first recipe that passed; without one, fp32 ships."""
    return next(
        (entry for entry in judged if entry.verdict == PASSED and entry.recipe != FP32), None
    )


def choose_recipe(
    judged: Sequence[CandidateReport], metric: str, verify: VerifyParams
) -> tuple[str, str]:
    """(recipe that ships, reason); writes the final verdict and reason into each candidate.

    judged  in the order of `export.recipes`
    """
    chosen = first_passing(judged)
    if chosen is None:
        tried = "; ".join(
            f"{entry.recipe}: {entry.reason}" for entry in judged if entry.recipe != FP32
        )
        next(entry for entry in judged if entry.recipe == FP32).verdict = SHIPS
        return FP32, f"fp32 ONNX ships, no recipe passed. {tried or 'No recipe was asked for.'}"
    name = chosen.recipe
    for entry in judged:
        if entry.verdict == NOT_EXAMINED:
            entry.reason = (
                f"not examined, {name} comes first in export.recipes and passed; "
                "set verify.examine_all to measure it all the same"
            )
        elif entry.verdict == PASSED and entry.recipe != FP32:
            entry.reason = f"passed; {name} comes first in export.recipes"
    assert chosen.metric_loss is not None
    chosen.verdict = SHIPS
    chosen.reason = (
        f"the first of export.recipes that is accurate enough: {metric} on validation "
        f"{-chosen.metric_loss:+z.4f} against the checkpoint "
        f"(budget -{verify.max_metric_loss:g}), the same answers in any batch"
    )
    return name, f"{name} is {chosen.reason}."


def speed_notes(shipped: str, speedup: Speedup) -> list[str]:
    """A note if the shipped recipe is shown to be slower than fp32 ONNX."""
    if not speedup.shown_slower:
        return []
    return [
        f"{shipped} is slower than fp32 ONNX on this machine, {speedup} as fast. Accuracy alone "
        "decides what ships: take it out of export.recipes, or put a faster recipe before it."
    ]
