"""Bottleneck adapters (Houlsby et al. 2019), placed as in Pfeiffer et al. 2021.

Each is a narrow network after a layer's feed-forward block.
"""

from __future__ import annotations

import torch
from torch import nn

NAME = "bottleneck"  # name of the submodule added to a linear module


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))); initially the identity."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """states  (rows, tokens, width)"""
        adapted: torch.Tensor = states + self.up(nn.functional.gelu(self.down(states)))
        return adapted


def attach_bottleneck(linear: nn.Module, bottleneck: Bottleneck) -> None:
    """Pass the outputs of `linear` through the bottleneck.

    Done with a hook, so that the names of the model's own weights do not change.
    """
    linear.add_module(NAME, bottleneck)
    linear.register_forward_hook(lambda module, inputs, output: module.get_submodule(NAME)(output))
