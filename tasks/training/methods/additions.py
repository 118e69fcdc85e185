"""Additions that cannot be merged into a model's weights: virtual tokens and bottleneck adapters.

Their tensors are named `virtual_tokens.DEPTH` (states) and `MODULE.bottleneck.*` (weights).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from tasks.training.methods import bottleneck, virtual_tokens
from tasks.training.methods.bottleneck import Bottleneck, attach_bottleneck
from tasks.training.methods.tuning import Tuning
from tasks.training.methods.virtual_tokens import VirtualTokens, attach_tokens, detach_tokens


class PromptTuning(Tuning):
    """Trains virtual tokens."""

    def additions(self) -> dict[str, torch.Tensor]:
        """The virtual tokens' states, as computed by their source module."""
        states = self.model.base_model.get_submodule(virtual_tokens.NAME)()
        return {
            f"{virtual_tokens.NAME}.{depth}": state.detach() for depth, state in enumerate(states)
        }

    def merge(self) -> PreTrainedModel:
        """The model without the virtual tokens."""
        detach_tokens(self.model)
        return self.model


class BottleneckTuning(Tuning):
    """Trains bottleneck adapters."""

    def additions(self) -> dict[str, torch.Tensor]:
        """The bottlenecks' weights."""
        return {
            name: weight
            for name, weight in self.model.state_dict().items()
            if f".{bottleneck.NAME}." in name
        }


def attach_additions(model: PreTrainedModel, additions: Mapping[str, torch.Tensor]) -> None:
    """Attach the tensors that `Tuning.additions` returned, to a model without them."""
    tokens = [name for name in additions if name.startswith(f"{virtual_tokens.NAME}.")]
    if tokens:
        states = [additions[f"{virtual_tokens.NAME}.{depth}"] for depth in range(len(tokens))]
        attach_tokens(model, VirtualTokens(states))
        return
    for module_name in sorted({name.partition(f".{bottleneck.NAME}.")[0] for name in additions}):
        weights = {
            name: additions[f"{module_name}.{bottleneck.NAME}.{name}"]
            for name in ("down.weight", "down.bias", "up.weight", "up.bias")
        }
        inner, width = weights["down.weight"].shape
        adapter = Bottleneck(width, inner)
        adapter.load_state_dict(weights)
        attach_bottleneck(model.get_submodule(module_name), adapter)
