"""Whether a way to fine-tune goes with a problem, a machine and a base model: said before anything is trained."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, get_args

from tasks.core.errors import ParamsError, did_you_mean
from tasks.params.finetuning import FinetuneParams, Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.problems.base import Problem

VIRTUAL = frozenset({"prefix-tuning", "prompt-tuning", "p-tuning"})
QLORA_REMEDY = "Run it on a machine with a CUDA card and `pip install bitsandbytes` there, or set finetune.method to lora."


def check_method(problem: Problem, params: FinetuneParams, device: str) -> None:
    """ParamsError, with the reason, where the problem or this machine cannot do what `method` says."""
    reason = problem.unsupported_methods.get(params.method)
    if reason:
        possible = ", ".join(
            name for name in get_args(Method) if name not in problem.unsupported_methods
        )
        raise ParamsError(
            f"finetune.method: {params.method} does not go with {problem.name}: {reason}",
            f"Possible: {possible}.",
        )
    losses = problem.losses()
    if params.loss is not None and params.loss not in losses:
        raise ParamsError(
            f"finetune.loss: {problem.name} has no loss '{params.loss}'.{did_you_mean(params.loss, losses)}",
            f"Possible: {', '.join(losses)}.",
        )
    if params.method == "qlora":
        _check_quantization(device)


def check_positions(model: PreTrainedModel, params: FinetuneParams, max_length: int) -> None:
    """ParamsError where the longest row and its virtual tokens are more than the model has positions for."""
    positions, tokens = _positions(model), params.sizes.virtual_tokens
    if params.method in VIRTUAL and positions is not None and max_length + tokens > positions:
        raise ParamsError(
            f"finetune.sizes.virtual_tokens: {tokens}, and {max_length} of the text (tokenize.max_length): "
            f"the base model reads at most {positions} together.",
            f"Set tokenize.max_length to {positions - tokens} or less, or take fewer virtual tokens.",
        )


def _positions(model: PreTrainedModel) -> int | None:
    from torch import nn

    positions = getattr(model.config, "max_position_embeddings", None)
    tables = [
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings == positions
    ]
    # RoBERTa and its like leave the places up to that of padding unused
    unused = max(
        (table.padding_idx + 1 for table in tables if table.padding_idx is not None), default=0
    )
    return positions - unused if isinstance(positions, int) else None


def _check_quantization(device: str) -> None:
    import torch

    lacking = []
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        lacking.append(
            "a CUDA device" + ("" if device in ("auto", "cuda") else f" (`device: {device}`)")
        )
    if find_spec("bitsandbytes") is None:
        lacking.append("the package bitsandbytes")
    if lacking:
        raise ParamsError(
            f"finetune.method: qlora needs {' and '.join(lacking)}, which this machine has not.",
            QLORA_REMEDY,
        )
