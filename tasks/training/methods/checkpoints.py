"""Checkpoint directories: plain Hugging Face files, plus the additions that cannot be merged.

config.json, model.safetensors   the model, with everything mergeable merged into its weights
additions.safetensors            virtual tokens or bottlenecks, if the method trains any
adapter/                         the adapter-only checkpoint, if the method makes one
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import ParamsError
from tasks.training.methods.adapter_files import WEIGHTS, AdapterFacts, read_adapter
from tasks.training.networks.architecture import head_parameters
from tasks.training.networks.weights import load_trained

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.training.methods.tuning import Tuning
    from tasks.training.objective import Objective

ADDITIONS = "additions.safetensors"
ADAPTER = "adapter"


def save_checkpoint(tuning: Tuning, directory: Path) -> None:
    """Write the model as it ships; the tuning cannot be used afterwards."""
    from safetensors.torch import save_file

    additions = {name: tensor.cpu().contiguous() for name, tensor in tuning.additions().items()}
    model = tuning.merge()
    weights = {name: tensor for name, tensor in model.state_dict().items() if name not in additions}
    model.save_pretrained(directory, state_dict=weights)
    if additions:
        save_file(additions, directory / ADDITIONS)


def load_checkpoint(
    objective: Objective, directory: Path, labels: Sequence[str]
) -> PreTrainedModel:
    """Load the model of a checkpoint directory, whichever method trained it."""
    model = objective.load_model(directory, labels)
    if (directory / ADDITIONS).is_file():
        from safetensors.torch import load_file

        from tasks.training.methods.additions import attach_additions

        attach_additions(model, load_file(directory / ADDITIONS))
    return model


def take_additions(tuning: Tuning, start: Path, wanted: AdapterFacts) -> None:
    """Load the additions of the checkpoint `start`, if any, to train on; the head is not changed.

    Raises ParamsError if they are from another method or have other sizes.
    """
    if not (start / ADDITIONS).is_file():
        return
    facts = read_adapter(start / ADAPTER)
    if (facts.method, facts.sizes) != (wanted.method, wanted.sizes):
        raise ParamsError(
            f"finetune.start_from: the champion was trained with {facts.method} ({facts.sizes}), "
            f"which could not be merged into its weights; {wanted.method} ({wanted.sizes}) would "
            "start without what it learned.",
            "Set finetune.method and finetune.sizes to the champion's, or finetune.start_from to "
            "base.",
        )
    head = {id(parameter) for parameter in head_parameters(tuning.model).values()}
    without = [name for name, parameter in tuning.model.named_parameters() if id(parameter) in head]
    load_trained(tuning.model, start / ADAPTER / WEIGHTS, without)
