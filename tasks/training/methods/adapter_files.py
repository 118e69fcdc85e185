"""Adapter-only checkpoints: the trained weights alone, with the base model pinned by hash.

adapter.safetensors holds the trained weights (kilobytes for most methods), adapter.json what they
apply to.
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
_IGNORED = ("dropout",)  # of the sizes: does not affect the weights' shapes or use


@dataclass(frozen=True)
class AdapterFacts:
    """The base model, problem and method that an adapter applies to.

    base_sha256  hash of the weights it was trained on: the base model's or the champion's
    base_model   where those weights came from, for readers
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
        """The facts of an adapter that a run with these inputs makes."""
        return cls(
            base_sha256,
            base_model,
            problem,
            list(labels),
            params.method,
            params.sizes.model_dump(mode="json"),
        )


def save_adapter(model: nn.Module, directory: Path, facts: AdapterFacts) -> None:
    """Write the trained weights and their facts."""
    save_trained(model, directory / WEIGHTS)
    write_json(directory / _FACTS, asdict(facts))


def load_adapter(model: nn.Module, directory: Path, wanted: AdapterFacts) -> None:
    """Load the adapter's weights into a model that its method was applied to.

    Raises SourceError if there is no adapter, ParamsError if its base model, problem or method
    differ.
    """
    check_adapter(directory, wanted)
    load_trained(model, directory / WEIGHTS)


def read_adapter(directory: Path) -> AdapterFacts:
    """The facts of the adapter in a directory. Raises SourceError if there is none."""
    missing = [name for name in (_FACTS, WEIGHTS) if not (directory / name).is_file()]
    if missing:
        raise SourceError(
            f"finetune.adapter: {directory} is not an adapter-only checkpoint: it has no "
            f"{' and no '.join(missing)}.",
            "Set it to a directory like models/checkpoint/adapter, which training writes.",
        )
    return AdapterFacts(**read_json(directory / _FACTS))


def check_adapter(directory: Path, wanted: AdapterFacts) -> None:
    """Check that a directory holds an adapter for this base model, problem and method.

    Raises SourceError if it holds none, ParamsError if any of these differ.
    """
    facts = read_adapter(directory)
    if facts.base_sha256 != wanted.base_sha256:
        raise ParamsError(
            f"finetune.adapter: {directory} was made on another base model, {facts.base_model} "
            f"(sha256 {facts.base_sha256[:12]}...), not on {wanted.base_model} "
            f"(sha256 {wanted.base_sha256[:12]}...).",
            "An adapter works only on the weights it was trained on: set base_model to those, or "
            "finetune.adapter to null.",
        )
    differences = [
        f"{name}: {getattr(facts, name)!r}, not {getattr(wanted, name)!r}"
        for name in ("problem", "labels", "method")
        if getattr(facts, name) != getattr(wanted, name)
    ]
    differences += [
        f"sizes.{name}: {facts.sizes.get(name)!r}, not {value!r}"
        for name, value in wanted.sizes.items()
        if name not in _IGNORED and facts.sizes.get(name) != value
    ]
    if differences:
        raise ParamsError(
            f"finetune.adapter: {directory} was made with other settings: "
            f"{'; '.join(differences)}.",
            "Set params.yaml to the adapter's settings, or finetune.adapter to null.",
        )
