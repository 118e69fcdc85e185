"""Transfer the classifier head when the labels change: keep, add and drop labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import ParamsError
from tasks.core.files import read_json
from tasks.params.labels import canonical_labels

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_REMEDY = "Set finetune.start_from to base, or base_model to the one the champion was trained from."
# configuration keys that do not change what the model computes
_IGNORED = {
    "_name_or_path",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "transformers_version",
}


@dataclass(frozen=True)
class LabelTransfer:
    """The labels in both models, in the new one only, and in the old one only."""

    kept: tuple[str, ...]
    added: tuple[str, ...]
    dropped: tuple[str, ...]


def checkpoint_labels(checkpoint: Path) -> tuple[str, ...]:
    """The labels of a checkpoint directory, in the order of its outputs."""
    from transformers import AutoConfig

    # the file leaves out the labels that its architecture has by default
    return output_labels(AutoConfig.for_model(**read_json(checkpoint / "config.json")))


def output_labels(config: PretrainedConfig) -> tuple[str, ...]:
    """Labels by output index, in canonical form: older checkpoints may have 'True' for 'true'."""
    id2label: Mapping[Any, str] | None = config.id2label
    assert id2label is not None
    return canonical_labels([id2label[key] for key in sorted(id2label, key=int)], merge=False)


def carry_over(model: PreTrainedModel, old: PreTrainedModel) -> LabelTransfer:
    """Copy the weights of `old` into `model`, label by label in the output layer.

    The weights of new labels keep their random initialization.
    Raises ParamsError if the two models have different architectures.
    """
    import torch

    _check_configs(model.config, old.config)
    labels, old_labels = output_labels(model.config), output_labels(old.config)
    kept = [label for label in labels if label in old_labels]
    indices, old_indices = (
        torch.tensor([names.index(label) for label in kept]) for names in (labels, old_labels)
    )
    axes = label_axes(model)
    weights, old_weights = model.state_dict(), old.state_dict()
    _check_shapes(_shapes(weights, axes), _shapes(old_weights, axes))
    for name, values in weights.items():
        if name in axes:
            axis = axes[name]
            values.index_copy_(axis, indices, old_weights[name].index_select(axis, old_indices))
        else:
            values.copy_(old_weights[name])
    added = tuple(label for label in labels if label not in old_labels)
    dropped = tuple(label for label in old_labels if label not in labels)
    return LabelTransfer(tuple(kept), added, dropped)


def label_axes(model: PreTrainedModel) -> dict[str, int]:
    """The axis along which each label-dependent weight grows with the labels, by weight name.

    Found by comparing with a copy on the meta device that has one more label: sizes alone cannot
    tell the output layer from a hidden layer of the same width. What a method added to the model is
    in no copy, and depends on no label.
    """
    import torch

    config = copy.deepcopy(model.config)
    config.num_labels = len(output_labels(model.config)) + 1
    with torch.device("meta"):
        wider = type(model)(config).state_dict()
    axes: dict[str, int] = {}
    for name, values in model.state_dict().items():
        if name not in wider:
            continue
        grown = [
            axis
            for axis, (size, wide) in enumerate(zip(values.shape, wider[name].shape, strict=True))
            if size != wide
        ]
        if len(grown) > 1:
            raise ParamsError(
                f"{type(model).__name__}: labels cannot be added to {name}, "
                f"which grows along {len(grown)} axes.",
                _REMEDY,
            )
        if grown:
            axes[name] = grown[0]
    return axes


def _check_configs(config: PretrainedConfig, old: PretrainedConfig) -> None:
    new_values, old_values = config.to_dict(), old.to_dict()
    keys = {key for key in new_values.keys() | old_values.keys() if key not in _IGNORED}
    differences = [
        f"{key}: {old_values.get(key)!r}, not {new_values.get(key)!r}"
        for key in sorted(keys)
        if "drop" not in key and new_values.get(key) != old_values.get(key)  # dropout may differ
    ]
    _refuse("configurations", differences)


def _shapes(weights: Mapping[str, Any], axes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(size for axis, size in enumerate(values.shape) if axis != axes.get(name))
        for name, values in weights.items()
    }


def _check_shapes(
    shapes: Mapping[str, tuple[int, ...]], old: Mapping[str, tuple[int, ...]]
) -> None:
    differences = [
        f"{name}: {old.get(name)}, not {shapes.get(name)}"
        for name in sorted(shapes.keys() | old.keys())
        if shapes.get(name) != old.get(name)
    ]
    _refuse("weights", differences)


def _refuse(compared: str, differences: list[str]) -> None:
    if differences:
        more = f" and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise ParamsError(
            "finetune.start_from: the champion and the base model have different architectures. "
            f"Their {compared} differ: {'; '.join(differences[:5])}{more}.",
            _REMEDY,
        )
