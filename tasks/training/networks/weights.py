"""Save and load only the trained weights of a model, in one safetensors file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require gradients, by name."""
    return {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def save_trained(model: nn.Module, file: Path) -> None:
    """Write the trained parameters."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    trained = trained_parameters(model).items()
    save_file({name: parameter.detach().cpu().contiguous() for name, parameter in trained}, file)


def load_trained(model: nn.Module, file: Path, without: Collection[str] = ()) -> None:
    """Load a file of `save_trained` into a model with the same trained parameters.

    without  names of parameters to leave as they are
    Raises TrainingError if the parameters or their shapes differ.
    """
    import torch
    from safetensors.torch import load_file

    stored = {name: tensor for name, tensor in load_file(file).items() if name not in without}
    parameters = {
        name: parameter
        for name, parameter in trained_parameters(model).items()
        if name not in without
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    wanted = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if shapes != wanted:
        differing = sorted(
            name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name)
        )
        more = " ..." if len(differing) > 5 else ""
        raise TrainingError(
            f"{file}: its weights are not those of this training run: "
            f"{', '.join(differing[:5])}{more}.",
            "They are from another method, other sizes or another base model.",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(stored[name])
