"""A checkpoint's directory: plain Hugging Face files, and beside them what its method adds and cannot merge.

config.json, model.safetensors   the model, with all that could be merged into its weights
additions.safetensors            virtual tokens or bottlenecks, where the method trains some
adapter/                         the adapter-only checkpoint, where the method makes one
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

    from tasks.problems.base import Problem
    from tasks.training.methods.tuning import Tuning

ADDITIONS = "additions.safetensors"
ADAPTER = "adapter"


def save_checkpoint(tuning: Tuning, directory: Path) -> None:
    """Write the model as it ships; the tuning is done with."""
    from safetensors.torch import save_file

    additions = {name: tensor.cpu().contiguous() for name, tensor in tuning.additions().items()}
    merged = tuning.merge()
    own = {name: tensor for name, tensor in merged.state_dict().items() if name not in additions}
    merged.save_pretrained(directory, state_dict=own)
    if additions:
        save_file(additions, directory / ADDITIONS)


def load_checkpoint(kind: Problem, directory: Path, labels: Sequence[str]) -> PreTrainedModel:
    """The model that a checkpoint's directory holds, whichever method made it."""
    model = kind.load_model(directory, labels)
    if (directory / ADDITIONS).is_file():
        from safetensors.torch import load_file

        from tasks.training.methods.additions import attach_additions

        attach_additions(model, load_file(directory / ADDITIONS))
    return model


def take_additions(tuning: Tuning, start: Path, wanted: AdapterFacts) -> None:
    """Go on from what the checkpoint `start` adds to its model, if anything; the head is left as it is.

    Raises ParamsError where another method, or one of other sizes, added it.
    """
    if not (start / ADDITIONS).is_file():
        return
    found = read_adapter(start / ADAPTER)
    if (found.method, found.sizes) != (wanted.method, wanted.sizes):
        raise ParamsError(
            f"finetune.start_from: the champion was trained with {found.method} ({found.sizes}), which could not be merged into its "
            f"weights; {wanted.method} ({wanted.sizes}) would start without what it learnt.",
            "Set finetune.method and finetune.sizes to the champion's, or finetune.start_from to base.",
        )
    head = {id(parameter) for parameter in head_parameters(tuning.model).values()}
    without = [name for name, parameter in tuning.model.named_parameters() if id(parameter) in head]
    load_trained(tuning.model, start / ADAPTER / WEIGHTS, without)
