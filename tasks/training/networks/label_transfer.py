"""The output layer of a model that learns on: old labels keep their weights, new ones are added, those gone are dropped."""

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

_REMEDY = (
    "Set finetune.start_from to base, or base_model to the one that the champion was trained from."
)
# what a configuration says beside what the model computes; dropout is the training's own affair
_ASIDE = {
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
class CarriedLabels:
    """What became of the labels: in both models, in the new one alone, in the old one alone."""

    kept: tuple[str, ...]
    added: tuple[str, ...]
    dropped: tuple[str, ...]


def checkpoint_labels(checkpoint: Path) -> tuple[str, ...]:
    """The labels of a checkpoint's directory, in the order of its outputs."""
    return _in_order(read_json(checkpoint / "config.json")["id2label"])


def carry_over(model: PreTrainedModel, old: PreTrainedModel) -> CarriedLabels:
    """Give `model` the weights of `old`, the output layer's label by label; what is new in it stays as it was drawn.

    Raises ParamsError where the two are of different architectures.
    """
    import torch

    _check_configs(model.config, old.config)
    labels, old_labels = _in_order(model.config.id2label), _in_order(old.config.id2label)
    kept = [label for label in labels if label in old_labels]
    places, old_places = (
        torch.tensor([of.index(label) for label in kept]) for of in (labels, old_labels)
    )
    axes = label_axes(model)
    weights, old_weights = model.state_dict(), old.state_dict()
    _check_shapes(_shapes(weights, axes), _shapes(old_weights, axes))
    for name, values in weights.items():
        if name in axes:
            axis = axes[name]
            values.index_copy_(axis, places, old_weights[name].index_select(axis, old_places))
        else:
            values.copy_(old_weights[name])
    added = tuple(label for label in labels if label not in old_labels)
    return CarriedLabels(
        tuple(kept), added, tuple(label for label in old_labels if label not in labels)
    )


def label_axes(model: PreTrainedModel) -> dict[str, int]:
    """The weights that grow with the number of labels, by name, and along which axis they do.

    Found by building the model once more with one label more, without memory: a layer's width alone would not tell the output
    layer from a hidden one of the same width.
    """
    import torch

    config = copy.deepcopy(model.config)
    config.num_labels = model.config.num_labels + 1
    with torch.device("meta"):
        wider = type(model)(config).state_dict()
    axes: dict[str, int] = {}
    for name, values in model.state_dict().items():
        grown = [
            axis
            for axis, (size, wide) in enumerate(zip(values.shape, wider[name].shape, strict=True))
            if size != wide
        ]
        if len(grown) > 1:
            raise ParamsError(
                f"{type(model).__name__}: {name} cannot be extended by a label, it grows along {len(grown)} axes.",
                _REMEDY,
            )
        if grown:
            axes[name] = grown[0]
    return axes


def _in_order(id2label: Mapping[Any, str]) -> tuple[str, ...]:
    """In the one form that rows have: an older checkpoint may know 'True' for 'true'."""
    return canonical_labels([id2label[key] for key in sorted(id2label, key=int)], merge=False)


def _check_configs(config: PretrainedConfig, old: PretrainedConfig) -> None:
    ours, theirs = config.to_dict(), old.to_dict()
    keys = {key for key in ours.keys() | theirs.keys() if key not in _ASIDE and "drop" not in key}
    _tell(
        "its configuration",
        [
            f"{key}: {theirs.get(key)!r}, not {ours.get(key)!r}"
            for key in sorted(keys)
            if ours.get(key) != theirs.get(key)
        ],
    )


def _shapes(weights: Mapping[str, Any], axes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(size for axis, size in enumerate(values.shape) if axis != axes.get(name))
        for name, values in weights.items()
    }


def _check_shapes(
    shapes: Mapping[str, tuple[int, ...]], old: Mapping[str, tuple[int, ...]]
) -> None:
    names = sorted(shapes.keys() | old.keys())
    _tell(
        "its weights",
        [
            f"{name}: {old.get(name)}, not {shapes.get(name)}"
            for name in names
            if shapes.get(name) != old.get(name)
        ],
    )


def _tell(what: str, differences: list[str]) -> None:
    if differences:
        more = f" and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise ParamsError(
            f"finetune.start_from: the champion is of another architecture than the base model, {what} differ: "
            f"{'; '.join(differences[:5])}{more}.",
            _REMEDY,
        )
