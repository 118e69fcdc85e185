"""The inputs and the progress of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tasks.core.errors import TrainingError
from tasks.params.finetuning import FinetuneParams

if TYPE_CHECKING:
    from tasks.core.arrays import Array, Features, Floats
    from tasks.encoding.encoder import Encoder
    from tasks.training.objective import Objective, ValidationMetrics


@dataclass(frozen=True)
class TrainingInputs:
    """The inputs of a training run.

    work        directory of checkpoints; survives a kill
    unlabelled  rows for self-training, without references
    """

    objective: Objective
    encoder: Encoder
    metrics: ValidationMetrics
    labels: tuple[str, ...]
    train: pa.Table
    validation: Features
    pad_token_id: int
    params: FinetuneParams
    class_weights: Floats | None
    seed: int
    device: str
    work: Path
    unlabelled: pa.Table | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every row is used once."""
        return math.ceil(len(self.train) / self.params.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run; none if the head alone is trained and was solved."""
        if self.params.head_only and self.params.starts_solved:
            return 0
        return max(1, round(self.steps_per_epoch * self.params.epochs))

    @property
    def metric(self) -> str:
        """Of the validation rows: decides which weights are kept."""
        return self.params.early_stopping_metric or self.metrics.metric

    def validate(self, outputs: Floats) -> dict[str, float]:
        """Metrics of the validation rows' outputs.

        Raises TrainingError if the one that decides is not among them.
        """
        references = self.encoder.references(self.validation)
        found = self.metrics.metrics(outputs, references, self.labels)
        if self.metric not in found:
            raise TrainingError(
                f"finetune.early_stopping_metric: the validation rows give no {self.metric}.",
                f"Set it to one of {', '.join(found)}.",
            )
        return found

    @cached_property
    def references(self) -> Array:
        """Of all training rows."""
        return all_references(self.encoder, self.train)


def all_references(encoder: Encoder, rows: pa.Table) -> Array:
    """The references of tokenized rows, without reading their other columns."""
    return encoder.references(rows.select(["references"]).to_pydict())


@dataclass
class TrainingState:
    """The progress of a run; saved with every checkpoint as plain JSON.

    curve          {"step", "epoch", "loss", "learning_rate"} every few steps; loss is the mean
                   since the last point
    evaluations    {"step", "epoch", validation metrics}
    without_gain   evaluations in a row that did not improve on the best
    accumulation   gradient accumulation: parts that each batch is computed in
    out_of_memory  {"step", "accumulation"} for each time memory ran out, with the raised value
    self_training  a SelfTrainingReport, of the head that was solved last; None: there is none
    """

    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    pending_losses: list[float] = field(default_factory=list)
    best_step: int = 0
    best_score: float = -math.inf
    without_gain: int = 0
    stopped_early: bool = False
    accumulation: int = 1
    out_of_memory: list[dict[str, int]] = field(default_factory=list)
    self_training: dict[str, Any] | None = None

    def add_point(self, epoch: float, learning_rate: float) -> dict[str, float]:
        """Add a point to the learning curve: the mean loss since the last; the point's values."""
        mean_loss = sum(self.pending_losses) / len(self.pending_losses)
        self.pending_losses.clear()
        point = {"epoch": epoch, "loss": mean_loss, "learning_rate": learning_rate}
        self.curve.append({"step": self.step, **point})
        return point

    def add_evaluation(self, epoch: float, metrics: Mapping[str, float], score: float) -> bool:
        """Add an evaluation; whether its score (higher is better) is the best so far."""
        self.evaluations.append({"step": self.step, "epoch": epoch, **metrics})
        if score > self.best_score:
            self.best_score, self.best_step, self.without_gain = score, self.step, 0
            return True
        self.without_gain += 1
        return False
