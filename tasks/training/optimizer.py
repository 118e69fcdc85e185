"""Which learning rate and weight decay each trained parameter gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.training.networks.architecture import head_parameters, parameter_depths

if TYPE_CHECKING:
    from torch import nn

    from tasks.params.finetuning import FinetuneParams
    from tasks.training.methods.tuning import Tuning


def parameter_groups(tuning: Tuning, params: FinetuneParams) -> list[dict[str, Any]]:
    """AdamW's groups, the uppermost layer's first and the head's last; biases and norms (vectors) are not decayed.

    Each layer's learning rate is `layer_decay` times that of the one above it (Howard & Ruder 2018), the embeddings' lies below
    the lowest layer's; what is neither layer, embedding nor head has `learning_rate`.
    """
    head = {id(parameter) for parameter in head_parameters(tuning.model).values()}
    head_rate = params.head_learning_rate or params.learning_rate
    depths = parameter_depths(tuning.model)
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for parameter in tuning.model.parameters():
        if parameter.requires_grad:
            of_head = id(parameter) in head
            rate = (
                head_rate
                if of_head
                else params.learning_rate * params.layer_decay ** depths.get(id(parameter), 0)
            )
            groups.setdefault((of_head, -rate, parameter.ndim < 2), []).append(parameter)
    return [
        {
            "params": groups[key],
            "lr": -key[1],
            "weight_decay": 0.0 if key[2] else params.weight_decay,
        }
        for key in sorted(groups)
    ]
