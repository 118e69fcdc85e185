"""Check, before training, that a method works with the problem, machine and base model."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from tasks.core.errors import ParamsError, did_you_mean
from tasks.params.finetuning import FinetuneParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.training.objective import Objective


VIRTUAL = frozenset({"prefix-tuning", "prompt-tuning", "p-tuning"})
QLORA_REMEDY = (
    "Run it on a machine with a CUDA GPU and `pip install bitsandbytes` there, or set "
    "finetune.method to lora."
)


def check_method(problem: str, objective: Objective, params: FinetuneParams, device: str) -> None:
    """Raise ParamsError if the problem type or the machine does not support what params.yaml says.

    problem  the type's name
    """
    losses = objective.losses
    if params.pooling != "own" and not objective.pools:
        raise ParamsError(
            f"finetune.pooling: {params.pooling}: the head of {problem} reads every token.",
            "Set finetune.pooling to own.",
        )
    if params.head_start == "solved" and objective.solve_head is None:
        raise ParamsError(
            f"finetune.head_start: the head of {problem} has no classes to solve for.",
            "Set finetune.head_start to random.",
        )
    if params.loss is not None and params.loss not in losses:
        raise ParamsError(
            f"finetune.loss: {problem} has no loss '{params.loss}'."
            f"{did_you_mean(params.loss, losses)}",
            f"Possible: {', '.join(losses)}.",
        )
    if params.method == "qlora":
        _check_quantization(device)


def check_positions(model: PreTrainedModel, params: FinetuneParams, max_length: int) -> None:
    """Raise ParamsError if the longest row and its virtual tokens exceed the model's positions."""
    positions, tokens = _positions(model), params.sizes.virtual_tokens
    if params.method in VIRTUAL and positions is not None and max_length + tokens > positions:
        raise ParamsError(
            f"finetune.sizes.virtual_tokens: {tokens} virtual tokens and {max_length} of the text "
            f"(tokenize.max_length) exceed the {positions} that the base model can read.",
            f"Set tokenize.max_length to {positions - tokens} or less, or use fewer virtual "
            "tokens.",
        )


def _positions(model: PreTrainedModel) -> int | None:
    from torch import nn

    positions = getattr(model.config, "max_position_embeddings", None)
    tables = [
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings == positions
    ]
    # RoBERTa and its variants leave the positions up to the padding index unused
    unused = max(
        (table.padding_idx + 1 for table in tables if table.padding_idx is not None), default=0
    )
    return positions - unused if isinstance(positions, int) else None


def _check_quantization(device: str) -> None:
    import torch

    missing, other_device = [], device not in ("auto", "cuda")
    if other_device or not torch.cuda.is_available():
        missing.append("a CUDA device" + (f" (found `device: {device}`)" if other_device else ""))
    if find_spec("bitsandbytes") is None:
        missing.append("the package bitsandbytes")
    if missing:
        raise ParamsError(
            f"finetune.method: qlora needs {' and '.join(missing)}, which this machine lacks.",
            QLORA_REMEDY,
        )
