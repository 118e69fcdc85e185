"""Adapter-only checkpoints: what a method trained, without the base model that it was trained on, which they pin by hash.

adapter.safetensors holds the trained weights (kilobytes for most methods), adapter.json what they are good for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import ParamsError, SourceError
from tasks.core.files import read_json, write_json
from tasks.training.networks.weights import load_trained, save_trained

if TYPE_CHECKING:
    from torch import nn

    from tasks.params.finetuning import FinetuneParams

WEIGHTS = "adapter.safetensors"
_FACTS = "adapter.json"
_ASIDE = ("dropout",)  # of the sizes: says nothing of the weights


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter was made for.

    base_sha256  of the weights that it was trained on: the base model's, or the champion's checkpoint's
    base_model   where those came from, for whoever looks for them
    """

    base_sha256: str
    base_model: str
    problem: str
    labels: Sequence[str]
    method: str
    sizes: dict[str, Any]

    @classmethod
    def of_run(
        cls,
        base_sha256: str,
        base_model: str,
        problem: str,
        labels: Sequence[str],
        params: FinetuneParams,
    ) -> AdapterFacts:
        """What an adapter that this run makes is good for."""
        return cls(
            base_sha256,
            base_model,
            problem,
            list(labels),
            params.method,
            params.sizes.model_dump(mode="json"),
        )


def save_adapter(model: nn.Module, directory: Path, facts: AdapterFacts) -> None:
    """Write the trained weights and what they are good for."""
    save_trained(model, directory / WEIGHTS)
    write_json(directory / _FACTS, asdict(facts))


def load_adapter(model: nn.Module, directory: Path, wanted: AdapterFacts) -> None:
    """Give the model, as its method trains it, the adapter's weights.

    Raises ParamsError for an adapter of another base model, problem or method, SourceError where there is none.
    """
    check_adapter(directory, wanted)
    load_trained(model, directory / WEIGHTS)


def read_adapter(directory: Path) -> AdapterFacts:
    """What the adapter in the directory is good for; SourceError where there is none."""
    missing = [name for name in (_FACTS, WEIGHTS) if not (directory / name).is_file()]
    if missing:
        raise SourceError(
            f"finetune.adapter: {directory}: no adapter-only checkpoint, it has no {', no '.join(missing)}.",
            "Name a directory as training writes it to models/checkpoint/adapter.",
        )
    return AdapterFacts(**read_json(directory / _FACTS))


def check_adapter(directory: Path, wanted: AdapterFacts) -> None:
    """Raise ParamsError, or SourceError, unless the directory holds an adapter of this very base model, problem and method."""
    found = read_adapter(directory)
    if found.base_sha256 != wanted.base_sha256:
        raise ParamsError(
            f"finetune.adapter: {directory} was made on another base model, {found.base_model} (sha256 {found.base_sha256[:12]}...), "
            f"not on {wanted.base_model} (sha256 {wanted.base_sha256[:12]}...).",
            "An adapter means nothing on other weights: set base_model to the one it was made on, or finetune.adapter to null.",
        )
    differing = [
        name
        for name in ("problem", "labels", "method")
        if getattr(found, name) != getattr(wanted, name)
    ]
    lines = [
        f"{name}: {getattr(found, name)!r}, not {getattr(wanted, name)!r}" for name in differing
    ]
    lines += [
        f"sizes.{name}: {found.sizes.get(name)!r}, not {value!r}"
        for name, value in wanted.sizes.items()
        if name not in _ASIDE and found.sizes.get(name) != value
    ]
    if lines:
        raise ParamsError(
            f"finetune.adapter: {directory} was made for something else: {'; '.join(lines)}.",
            "Set params.yaml to what it was made with, or finetune.adapter to null.",
        )
