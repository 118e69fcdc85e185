"""What the language models' problem types share: their outputs are how well tokens were guessed (tasks.scoring.tokens)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Array, Columns, Features, Floats
from tasks.encoding.padding import pad_features, pad_rows
from tasks.encoding.windows import NO_WORD
from tasks.problems.unlabelled import Unlabelled
from tasks.scoring.statistics.draws import Resampled
from tasks.scoring.tokens import (
    guess_loss,
    loss_details,
    mostly_right,
    same_guesses,
    token_metrics,
    vocabulary_only_where,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class TokenGuesses(Unlabelled):
    """A problem whose references are tokens; `metric_signs` are the share guessed right, the log-loss and the perplexity, in this order."""

    baseline_is_base = True
    baseline_name = "the base model"
    batch_tokens = 512  # each token has an output as wide as the vocabulary

    def collate(self, features: Features, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
        return pad_features(features, pad_token_id)

    def references(self, features: Features) -> Array:
        return pad_rows(features["references"], NO_WORD)

    def loss(
        self,
        outputs: torch.Tensor,
        references: torch.Tensor,
        *,
        label_smoothing: float,
        class_weights: torch.Tensor | None,
    ) -> torch.Tensor:
        return guess_loss(outputs, references, label_smoothing)

    def outputs_needed(
        self, model: PreTrainedModel, references: torch.Tensor
    ) -> AbstractContextManager[None]:
        return vocabulary_only_where(model, references != NO_WORD)

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        """Over all tokens with a reference: how many are guessed right, the mean log-loss in nats, and e to it."""
        of = token_metrics(outputs, references)
        return lambda draws: dict(zip(self.metric_signs, of(draws), strict=True))

    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        return loss_details(outputs, references)

    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        return same_guesses(outputs, others)

    def right(self, outputs: Floats, references: Array) -> npt.NDArray[np.bool_]:
        return mostly_right(outputs, references)

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        return None
