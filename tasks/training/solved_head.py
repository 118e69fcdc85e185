"""Solve a classifier's output layer instead of training it step by step.

For a frozen body this is the best head there is. As the start of a fine-tuning it keeps the body
from being distorted by the gradients of a random head (LP-FT, Kumar et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.errors import ParamsError
from tasks.encoding.encoder import OUTPUT_NAME
from tasks.encoding.token_files import take
from tasks.training.networks.label_transfer import label_axes
from tasks.training.networks.torch_outputs import predict_torch

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from tasks.training.inputs import TrainingInputs

MOST_ROWS = 20_000


def solve_head(model: PreTrainedModel, inputs: TrainingInputs) -> None:
    """Set the output layer's weights and biases to the solution on the training rows.

    Of more than MOST_ROWS rows, a sample is enough. The model is left on its device.
    """
    import torch

    solve, encoder = inputs.objective.solve_head, inputs.encoder
    assert solve is not None
    rows = np.random.default_rng(inputs.seed).permutation(len(inputs.train))[:MOST_ROWS]
    features, layer = take(inputs.train, np.sort(rows)), output_layer(model)
    body: Any = model
    home = model.device
    body.to(inputs.device)
    with head_inputs_as_outputs(model, layer):
        vectors = predict_torch(model, encoder, features, inputs.pad_token_id, inputs.device)
    body.to(home)
    references = encoder.references(features)
    weights, biases = solve(
        vectors, references, len(layer.weight), inputs.class_weights, inputs.seed
    )
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(biases))


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """The linear layer with an output for each label.

    Raises ParamsError if the architecture's own head has none with biases.
    """
    names = [name for name in label_axes(model) if name.endswith(".weight")]
    layers: list[Any] = [model.get_submodule(name.removesuffix(".weight")) for name in names]
    if len(layers) != 1 or layers[0].bias is None:
        raise ParamsError(
            f"finetune.head_start: the head of {type(model).__name__} does not end in one linear "
            "layer with biases, so it cannot be solved.",
            "Set finetune.pooling to mean, cls or last, or finetune.head_start to random.",
        )
    found: nn.Linear = layers[0]
    return found


@contextmanager
def head_inputs_as_outputs(model: PreTrainedModel, layer: nn.Linear) -> Iterator[None]:
    """Context in which the model returns what `layer`, its output layer, reads: (rows, width)."""
    read: dict[str, torch.Tensor] = {}
    hooks = (
        layer.register_forward_pre_hook(
            lambda module, inputs: read.__setitem__(OUTPUT_NAME, inputs[0])
        ),
        # the model's own output is left out: what was read takes its place
        model.register_forward_hook(lambda module, inputs, outputs: read),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
