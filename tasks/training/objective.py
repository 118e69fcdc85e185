"""The training objective of a problem type: the model, its loss, and the weights of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from tasks.core.arrays import Array, Bools, Floats

# (vectors, references, outputs, class weights or None, seed) -> weights (outputs, width) and biases
# (outputs,) of the best linear head; vectors: (rows, width), what the output layer reads
HeadSolver = Callable[..., "tuple[Floats, Floats]"]
# (outputs, targets, *, label_smoothing, class_weights) -> mean loss of a batch, a scalar
Loss = Callable[..., "torch.Tensor"]


class Objective(Protocol):
    """The part of a problem type that training uses.

    losses      what `finetune.loss` may name, the default first
    pools       whether its head reads one vector a row, which `finetune.pooling` chooses
    solve_head  None: `finetune.head_start` cannot be `solved`
    """

    @property
    def losses(self) -> Mapping[str, Loss]: ...

    def labels_of(self, output_labels: Sequence[str]) -> Sequence[str]:
        """The labels behind the names that a model's configuration has for its outputs."""
        ...

    def load_model(
        self,
        directory: Path,
        labels: Sequence[str],
        dropout: float | None = None,
        pooling: str = "own",
    ) -> PreTrainedModel:
        """Load a base model or a checkpoint; safetensors only, no remote code.

        pooling  what the head reads, `finetune.pooling`, if the type `pools`
        A head that a base model does not have is drawn from torch's global RNG.
        """
        ...

    def start_head(
        self, new: Mapping[str, nn.Parameter], train: pa.Table, class_weights: Floats | None
    ) -> None:
        """Set drawn parameters to a better start.

        new            parameters that the base model does not have, by name
        train          tokenized training rows, with `references`
        class_weights  of `class_weights`
        """
        ...

    @property
    def pools(self) -> bool: ...
    @property
    def solve_head(self) -> HeadSolver | None: ...

    def skip_unused_outputs(
        self, model: PreTrainedModel, targets: torch.Tensor
    ) -> AbstractContextManager[None]:
        """Inside the context the model may omit outputs that the loss of `targets` ignores."""
        ...

    def class_weights(
        self, references: Array, labels: Sequence[str], wanted: str | Mapping[str, float]
    ) -> Floats | None:
        """Weight of each class in the loss: 'none', 'balanced', or label -> weight.

        Raises ParamsError where that makes no sense.
        """
        ...


class ValidationMetrics(Protocol):
    """What chooses the best checkpoint; a Scorer (tasks/scoring/scorer.py) has these members."""

    @property
    def metric(self) -> str: ...
    @property
    def metric_signs(self) -> Mapping[str, int]: ...

    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        """See Scorer."""
        ...

    def correct(self, outputs: Floats, references: Array) -> Bools:
        """See Scorer."""
        ...
