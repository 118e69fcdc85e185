"""What a method adds to a model and cannot be merged into its weights: virtual tokens and bottlenecks, in training and as they ship.

The names say what each is: `virtual_tokens.DEPTH` for states, `MODULE.bottleneck.*` for weights.
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
        """The virtual tokens' states, as their source makes them."""
        states = self.model.base_model.get_submodule(virtual_tokens.NAME)()
        return {
            f"{virtual_tokens.NAME}.{depth}": state.detach() for depth, state in enumerate(states)
        }

    def merge(self) -> PreTrainedModel:
        """The model without them."""
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
    """Give the model what `additions` gave of another."""
    tokens = [name for name in additions if name.startswith(f"{virtual_tokens.NAME}.")]
    if tokens:
        attach_tokens(
            model,
            VirtualTokens(
                [additions[f"{virtual_tokens.NAME}.{depth}"] for depth in range(len(tokens))]
            ),
        )
        return
    for name in sorted({full.partition(f".{bottleneck.NAME}.")[0] for full in additions}):
        weights = {
            part: additions[f"{name}.{bottleneck.NAME}.{part}"]
            for part in ("down.weight", "down.bias", "up.weight", "up.bias")
        }
        inner, width = weights["down.weight"].shape
        made = Bottleneck(width, inner)
        made.load_state_dict(weights)
        attach_bottleneck(model.get_submodule(name), made)
