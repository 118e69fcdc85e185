"""What a method adds to a model and cannot be merged into its weights: virtual tokens and bottlenecks, in training and as they ship.

A checkpoint keeps them beside its Hugging Face files, in ADDITIONS, whose names say what each is: `virtual_tokens.DEPTH`,
`MODULE.bottleneck.*`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from tasks.core.bottleneck import NAME, Bottleneck, attach
from tasks.core.tuning import Tuning
from tasks.core.virtual_tokens import PromptedModel, VirtualTokens

TOKENS = "virtual_tokens."


class PromptTuning(Tuning):
    """Trains virtual tokens."""

    def __init__(self, base: PreTrainedModel, source: nn.Module) -> None:
        super().__init__(base, PromptedModel(base, source.to(base.device)))
        self.source = source

    def additions(self) -> dict[str, torch.Tensor]:
        """The virtual tokens' states, as the source makes them."""
        return {f"{TOKENS}{depth}": states.detach() for depth, states in enumerate(self.source())}


class BottleneckTuning(Tuning):
    """Trains bottleneck adapters."""

    def additions(self) -> dict[str, torch.Tensor]:
        """The bottlenecks' weights."""
        return {name: weight for name, weight in self.base.state_dict().items() if f".{NAME}." in name}


def rebuild(model: PreTrainedModel, additions: Mapping[str, torch.Tensor]) -> nn.Module:
    """The model with what `additions` gave built around or into it again."""
    tokens = {name: states for name, states in additions.items() if name.startswith(TOKENS)}
    if tokens:
        return PromptedModel(model, VirtualTokens([tokens[f"{TOKENS}{depth}"] for depth in range(len(tokens))]))
    for name in sorted({full.partition(f".{NAME}.")[0] for full in additions}):
        weights = {part: additions[f"{name}.{NAME}.{part}"] for part in ("down.weight", "down.bias", "up.weight", "up.bias")}
        inner, width = weights["down.weight"].shape
        bottleneck = Bottleneck(width, inner)
        bottleneck.load_state_dict(weights)
        attach(model.get_submodule(name), bottleneck)
    built: nn.Module = model
    return built
