"""The parts of a pretrained model, found by what they are: the layers, the embeddings below, the head above, the linear modules.

No table of names: an architecture that nobody has heard of yet is taken apart as well as BERT.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import ParamsError
from tasks.data.sources.base_models import weight_files

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def layer_stack(model: PreTrainedModel) -> nn.ModuleList:
    """The body's layers: the longest list of modules, whatever the architecture calls it."""
    from torch import nn

    return max((module for module in model.modules() if isinstance(module, nn.ModuleList)), key=len)


def embedding_block(model: PreTrainedModel) -> nn.Module:
    """The outermost module named for embeddings (token, position and their norm), else the token embedding alone."""
    blocks = [
        module for name, module in model.named_modules() if name.split(".")[-1] == "embeddings"
    ]
    block: nn.Module = blocks[0] if blocks else model.get_input_embeddings()
    return block


def head_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """What the problem's model has beyond its body, by name; weights that it shares with the body are the body's."""
    body = {id(parameter) for parameter in model.base_model.parameters()}
    return {
        name: parameter for name, parameter in model.named_parameters() if id(parameter) not in body
    }


def untrained_parameters(model: PreTrainedModel, base: Path) -> dict[str, nn.Parameter]:
    """What above the layers has no weights in the base model's files and was drawn at random, by name."""
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
    """The body's linear modules, by name, in the order that they are made in; GPT-2's Conv1D is one too."""
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
    """The names of the linear modules that end each layer's feed-forward part: the last that narrows to the layer's own width."""
    width, linears, found = model.config.hidden_size, linear_modules(model), []
    for layer in layer_stack(model):
        inside = set(layer.modules())
        names = [name for name, module in linears.items() if module in inside]
        narrowing = [
            name
            for name in names
            if linear_shape(linears[name])[0] > width == linear_shape(linears[name])[1]
        ]
        found += (narrowing or names)[-1:]
    return found


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear module."""
    from torch import nn

    rows, columns = module.weight.shape  # type: ignore[misc]
    return (columns, rows) if isinstance(module, nn.Linear) else (rows, columns)


def parameter_depths(model: PreTrainedModel) -> dict[int, int]:
    """How deep below the top each parameter of the embeddings and layers lies, by id: 0 in the uppermost layer. Others lie above."""
    stack = layer_stack(model)
    depths = {id(parameter): len(stack) for parameter in embedding_block(model).parameters()}
    for below, layer in enumerate(reversed(stack)):
        depths |= {id(parameter): below for parameter in layer.parameters()}
    return depths


def run_on_two_tokens(model: PreTrainedModel) -> None:
    """The body, once, for what is to be seen on the way; it is left in the mode it was in."""
    import torch

    was_training = model.training
    with torch.no_grad():
        model.eval().base_model(
            input_ids=torch.tensor([[1, 2]], device=model.get_input_embeddings().weight.device)
        )
    model.train(was_training)


def freeze(model: PreTrainedModel, *, embeddings: bool, layers: int) -> None:
    """Stop training the input embeddings, or the lowest `layers` of the body (and with them all that lies below)."""
    stack = layer_stack(model)
    if layers > len(stack):
        raise ParamsError(
            f"finetune.freeze_layers: {layers} layers, the base model has {len(stack)}.",
            f"Set it to {len(stack)} or less.",
        )
    for module in [*stack[:layers], *([embedding_block(model)] if embeddings else [])]:
        module.requires_grad_(False)
    for parameter in below_layers(model) if layers else ():
        parameter.requires_grad_(False)


def frozen_depth(model: PreTrainedModel) -> int:
    """How many of the lowest layers say the same of a text however long is trained: nothing in or below them is."""

    layers = list(layer_stack(model))
    if any(parameter.requires_grad for parameter in below_layers(model)):
        return 0
    return next(
        (
            depth
            for depth, layer in enumerate(layers)
            if any(one.requires_grad for one in layer.parameters())
        ),
        len(layers),
    )


def below_layers(model: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters that work before the lowest layer does: the model is run on two tokens to see which."""
    called: list[nn.Module] = []
    watched = list(model.base_model.modules())
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: called.append(module))
        for module in watched
    ]
    run_on_two_tokens(model)
    for hook in hooks:
        hook.remove()
    before = called[: called.index(layer_stack(model)[0])]
    return [parameter for module in before for parameter in module.parameters(recurse=False)]


def without_dropout(model: PreTrainedModel, depth: int) -> None:
    """Take dropout from the lowest `depth` layers of a body in training, and from what is neither in a layer nor in the head."""
    stack = layer_stack(model)
    for layer in stack[:depth]:
        layer.eval()
    inside = {module for layer in stack for module in layer.modules()}
    for module in model.base_model.modules():
        if module not in inside and not any(module.children()):
            module.eval()


def reads_left_to_right(model: PreTrainedModel) -> bool:
    """Whether a token's state rests on those before it alone: asked of the model, for configurations do not say."""
    import torch

    device = model.get_input_embeddings().weight.device
    was_training = model.training
    with torch.no_grad():
        one, other = (
            model.eval().base_model(input_ids=torch.tensor([[1, token]], device=device))[0][0, 0]
            for token in (2, 3)
        )
    model.train(was_training)
    return bool(torch.equal(one, other))


def _stored_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(directory):
        with safe_open(file, "pt") as opened:
            shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118, it is no mapping
    return shapes


def _plain_name(name: str, prefix: str) -> str:
    """A parameter's name without the body's own, and as it has been called since TensorFlow's names were given up."""
    return name.removeprefix(f"{prefix}.").replace(".gamma", ".weight").replace(".beta", ".bias")
