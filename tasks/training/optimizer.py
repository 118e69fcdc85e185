"""Learning rate and weight decay of each trained parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.training.networks.architecture import head_parameters, parameter_depths

if TYPE_CHECKING:
    from torch import nn

    from tasks.params.finetuning import FinetuneParams
    from tasks.training.methods.tuning import Tuning


def parameter_groups(tuning: Tuning, params: FinetuneParams) -> list[dict[str, Any]]:
    """AdamW's parameter groups, from the top layer down, the head's last.

    Each layer's learning rate is `layer_decay` times that of the layer above it (Howard & Ruder
    2018), and the embeddings' is one step below the lowest layer's. Anything outside the layers,
    embeddings and head has `learning_rate`. Biases and norms (vectors) get no weight decay.
    """
    head = {id(parameter) for parameter in head_parameters(tuning.model).values()}
    head_rate = params.head_learning_rate or params.learning_rate
    depths = parameter_depths(tuning.model)
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for parameter in tuning.model.parameters():
        if parameter.requires_grad:
            in_head, depth = id(parameter) in head, depths.get(id(parameter), 0)
            rate = head_rate if in_head else params.learning_rate * params.layer_decay**depth
            groups.setdefault((in_head, -rate, parameter.ndim < 2), []).append(parameter)
    return [
        {
            "params": groups[in_head, negative_rate, is_vector],
            "lr": -negative_rate,
            "weight_decay": 0.0 if is_vector else params.weight_decay,
        }
        for in_head, negative_rate, is_vector in sorted(groups)
    ]
