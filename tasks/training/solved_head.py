"""Solve a classifier's output layer instead of training it step by step.

For a frozen body this is the best head there is. As the start of a fine-tuning it keeps the body
from being distorted by the gradients of a random head (LP-FT, Kumar et al. 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.errors import ParamsError
from tasks.encoding.encoder import OUTPUT_NAME
from tasks.encoding.token_files import take
from tasks.training.networks.label_transfer import label_axes
from tasks.training.networks.torch_outputs import predict_torch

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from tasks.core.arrays import Features, Floats
    from tasks.encoding.encoder import Encoder
    from tasks.training.objective import Objective

MOST_ROWS = 20_000


def solve_head(
    model: PreTrainedModel,
    objective: Objective,
    encoder: Encoder,
    train: pa.Table,
    pad: int,
    class_weights: Floats | None,
    seed: int,
    device: str,
) -> None:
    """Set the output layer's weights and biases to the solution on the training rows.

    Of more than MOST_ROWS rows, a sample is enough.
    """
    import torch

    assert objective.solve_head is not None
    rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:MOST_ROWS])
    features, layer = take(train, rows), output_layer(model)
    body: Any = model
    body.to(device)
    vectors = head_inputs(model, layer, encoder, features, pad, device)
    body.to("cpu")
    weights, biases = objective.solve_head(
        vectors, encoder.references(features), len(layer.weight), class_weights, seed
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


def head_inputs(
    model: PreTrainedModel,
    layer: nn.Linear,
    encoder: Encoder,
    features: Features,
    pad: int,
    device: str,
) -> Floats:
    """What the layer reads of each row, (rows, width), without dropout."""
    read: dict[str, torch.Tensor] = {}
    hook = layer.register_forward_pre_hook(
        lambda module, inputs: read.__setitem__(OUTPUT_NAME, inputs[0])
    )
    # the model's own output is left out: what the hook read takes its place
    forward = model.forward
    model.forward = lambda **inputs: (forward(**inputs), read)[1]
    try:
        return predict_torch(model, encoder, features, pad, device)
    finally:
        hook.remove()
        del model.forward
