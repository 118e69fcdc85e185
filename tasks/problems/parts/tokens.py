"""Objective, scoring and figures of language models, which guess tokens (scoring/tokens.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.core.arrays import Array, Bools, Columns, Floats
from tasks.encoding.windows import IGNORE_INDEX
from tasks.problems.parts.absent import (
    as_they_are,
    check_no_label_tests,
    metrics_once,
    no_calibration,
    no_calibration_loss,
    no_class_weights,
    no_clusters,
    no_labels,
    no_threshold_details,
)
from tasks.problems.parts.classes import start_as_drawn
from tasks.scoring.tokens import (
    logits_only_at,
    loss_details,
    losses_figure,
    mostly_right,
    token_agreement,
    token_cross_entropy,
    token_metrics,
)
from tasks.training.networks.pooling import OWN

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from tasks.params.schema import EvaluateParams
    from tasks.reports.stage_reports import EvaluationReport
    from tasks.scoring.behaviour import BehaviourTest
    from tasks.scoring.statistics.draws import Resampled
    from tasks.training.objective import HeadSolver, Loss

INFERENCE_TOKENS = 512  # each token has an output as wide as the vocabulary


def token_loss(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    label_smoothing: float,
    class_weights: torch.Tensor | None,
) -> torch.Tensor:
    """Cross-entropy of the tokens that have a target."""
    return token_cross_entropy(outputs, targets, label_smoothing)


@dataclass(frozen=True)
class TokenObjective:
    """Cross-entropy of tokens.

    auto_class  of transformers, such as AutoModelForCausalLM
    """

    auto_class: str
    losses: ClassVar[Mapping[str, Loss]] = {"default": token_loss}
    labels_of = staticmethod(no_labels)
    start_head = staticmethod(start_as_drawn)
    pools: ClassVar[bool] = False
    solve_head: ClassVar[HeadSolver | None] = None
    class_weights = staticmethod(no_class_weights)

    def load_model(
        self,
        directory: Path,
        labels: Sequence[str],
        dropout: float | None = None,
        pooling: str = OWN,
    ) -> PreTrainedModel:
        import transformers

        from tasks.training.networks.pretrained import load_pretrained

        return load_pretrained(getattr(transformers, self.auto_class), directory, dropout)

    def skip_unused_outputs(
        self, model: PreTrainedModel, targets: torch.Tensor
    ) -> AbstractContextManager[None]:
        return logits_only_at(model, targets != IGNORE_INDEX)


@dataclass(frozen=True)
class TokenScorer:
    """Accuracy, log-loss in nats and perplexity over all tokens that have a reference.

    metric     name of the accuracy
    generates  whether the model writes answers, which are compared with the base model's
    """

    metric: str
    generates: bool = False
    label_metrics: tuple[str, ...] | None = None
    baseline_name: str = "the base model"
    baseline_is_base: bool = True

    @property
    def metric_signs(self) -> Mapping[str, int]:
        return {self.metric: 1, "log_loss": -1, "perplexity": -1}

    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        return metrics_once(self.resampled_metrics(outputs, references, labels), len(outputs))

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        of = token_metrics(outputs, references)
        return lambda draws: dict(zip(self.metric_signs, of(draws), strict=True))

    clusters = staticmethod(no_clusters)

    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        return loss_details(outputs, references)

    threshold_details = staticmethod(no_threshold_details)
    fit_calibration = staticmethod(no_calibration)
    calibration_loss = staticmethod(no_calibration_loss)

    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        return token_agreement(outputs, others)

    def correct(self, outputs: Floats, references: Array) -> Bools:
        return mostly_right(outputs, references)

    align_labels = staticmethod(as_they_are)

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        return None

    def behaviour_tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        check_no_label_tests(evaluate)
        return []

    def compare_answers(
        self,
        models: Mapping[str, PreTrainedModel],
        tokenizer: Tokenizer,
        rows: Columns,
        evaluate: EvaluateParams,
    ) -> dict[str, Any] | None:
        if not self.generates:
            return None
        from tasks.encoding.dialogues import as_turns
        from tasks.scoring.answers import compare_answers

        dialogues = list(map(as_turns, rows["messages"]))
        return compare_answers(models, tokenizer, dialogues, evaluate.generation)


def _loss_figure(title: str, evaluation: EvaluationReport) -> dict[str, Figure]:
    return {title: losses_figure(evaluation.details)}


def loss_figure(title: str) -> partial[dict[str, Figure]]:
    """Figures of an evaluation: the distribution of the tokens' log-loss."""
    return partial(_loss_figure, title)
