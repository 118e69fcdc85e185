"""Find the parts of a pretrained model: layers, embeddings, head and linear modules.

Parts are found by structure rather than a table of names, so unknown architectures work too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks.core.errors import ParamsError
from tasks.data.sources.base_models import weight_files

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


def layer_stack(model: PreTrainedModel) -> nn.ModuleList:
    """The body's layers: the longest list of modules, whatever the architecture calls it."""
    from torch import nn

    return max((module for module in model.modules() if isinstance(module, nn.ModuleList)), key=len)


def embedding_block(model: PreTrainedModel) -> nn.Module:
    """The outermost module named `embeddings` (token, position, norm), else the token embedding."""
    blocks = [
        module for name, module in model.named_modules() if name.split(".")[-1] == "embeddings"
    ]
    block: nn.Module = blocks[0] if blocks else model.get_input_embeddings()
    return block


def token_embeddings(model: PreTrainedModel) -> torch.Tensor:
    """The embeddings of the vocabulary, (tokens, width)."""
    return cast("torch.Tensor", model.get_input_embeddings().weight)


def head_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Parameters outside the model's body, by name; weights shared with the body do not count."""
    body = {id(parameter) for parameter in model.base_model.parameters()}
    return {
        name: parameter for name, parameter in model.named_parameters() if id(parameter) not in body
    }


def untrained_parameters(model: PreTrainedModel, base: Path) -> dict[str, nn.Parameter]:
    """Randomly initialized parameters above the layers (not in the base's files), by name."""
    prefix = model.base_model_prefix
    stored = {(_plain_name(name, prefix), shape) for name, shape in _stored_shapes(base).items()}
    below = {
        id(parameter)
        for part in (layer_stack(model), embedding_block(model))
        for parameter in part.parameters()
    }
    above = {
        name: parameter
        for name, parameter in model.named_parameters()
        if id(parameter) not in below
    }
    return {
        name: parameter
        for name, parameter in above.items()
        if (_plain_name(name, prefix), tuple(parameter.shape)) not in stored
    }


def linear_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The body's linear modules, by name, in order of creation; includes GPT-2's Conv1D."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    body, output = set(model.base_model.modules()), model.get_output_embeddings()
    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }
    return {
        name: module for name, module in modules.items() if module in body and module is not output
    }


def feed_forward_outputs(model: PreTrainedModel) -> list[str]:
    """Names of the linear modules that end each layer's feed-forward block.

    That is the last module of a layer that projects down to the hidden size, else simply the last.
    """
    width, linears, outputs = model.config.hidden_size, linear_modules(model), []
    for layer in layer_stack(model):
        inside = set(layer.modules())
        shapes = {
            name: linear_shape(module) for name, module in linears.items() if module in inside
        }
        narrowing = [name for name, (n_in, n_out) in shapes.items() if n_in > width == n_out]
        outputs += (narrowing or list(shapes))[-1:]
    return outputs


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear module."""
    from torch import nn

    rows, columns = module.weight.shape  # type: ignore[misc]
    return (columns, rows) if isinstance(module, nn.Linear) else (rows, columns)


def parameter_depths(model: PreTrainedModel) -> dict[int, int]:
    """Distance from the top layer, which has 0, of each parameter of layers and embeddings, by id.

    Other parameters are not included.
    """
    stack = layer_stack(model)
    depths = {id(parameter): len(stack) for parameter in embedding_block(model).parameters()}
    for depth, layer in enumerate(reversed(stack)):
        depths |= {id(parameter): depth for parameter in layer.parameters()}
    return depths


def run_on_two_tokens(model: PreTrainedModel) -> None:
    """Run the body once, so that hooks can observe it; its training mode is restored."""
    import torch

    was_training = model.training
    with torch.no_grad():
        model.eval().base_model(
            input_ids=torch.tensor([[1, 2]], device=token_embeddings(model).device)
        )
    model.train(was_training)


def freeze(model: PreTrainedModel, *, embeddings: bool, layers: int) -> None:
    """Freeze the input embeddings, or the body's bottom `layers` with everything below them."""
    stack = layer_stack(model)
    if layers > len(stack):
        raise ParamsError(
            f"finetune.freeze_layers: {layers} layers, but the base model has {len(stack)}.",
            f"Set it to {len(stack)} or less.",
        )
    for module in [*stack[:layers], *([embedding_block(model)] if embeddings else [])]:
        module.requires_grad_(False)
    for parameter in below_layers(model) if layers else ():
        parameter.requires_grad_(False)


def frozen_depth(model: PreTrainedModel) -> int:
    """Number of bottom layers whose output never changes during training.

    Nothing in or below them is trained.
    """
    if any(parameter.requires_grad for parameter in below_layers(model)):
        return 0
    depth = 0
    for layer in layer_stack(model):
        if any(parameter.requires_grad for parameter in layer.parameters()):
            break
        depth += 1
    return depth


def below_layers(model: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters used before the bottom layer, found by running the model on two tokens."""
    called: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: called.append(module))
        for module in model.base_model.modules()
    ]
    run_on_two_tokens(model)
    for hook in hooks:
        hook.remove()
    before = called[: called.index(layer_stack(model)[0])]
    return [parameter for module in before for parameter in module.parameters(recurse=False)]


def disable_dropout(model: PreTrainedModel, depth: int) -> None:
    """Turn off dropout in the bottom `depth` layers, and in the body outside its layers."""
    stack = layer_stack(model)
    for layer in stack[:depth]:
        layer.eval()
    inside = {module for layer in stack for module in layer.modules()}
    for module in model.base_model.modules():
        if module not in inside and not any(module.children()):
            module.eval()


def is_causal(model: PreTrainedModel) -> bool:
    """Whether the model is causal: a token's state depends only on the tokens before it.

    Found by running the model, because configurations do not say.
    """
    import torch

    device = token_embeddings(model).device
    was_training = model.training
    with torch.no_grad():
        first_states = [
            model.eval().base_model(input_ids=torch.tensor([[1, token]], device=device))[0][0, 0]
            for token in (2, 3)
        ]
    model.train(was_training)
    return bool(torch.equal(*first_states))


def _stored_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(directory):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118, not a mapping
                shapes[name] = tuple(weights.get_slice(name).get_shape())
    return shapes


def _plain_name(name: str, prefix: str) -> str:
    """A parameter's name without the body's prefix; TensorFlow's gamma and beta are renamed."""
    return name.removeprefix(f"{prefix}.").replace(".gamma", ".weight").replace(".beta", ".bias")
