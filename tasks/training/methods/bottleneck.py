"""Bottleneck adapters: a narrow network after each layer's feed-forward part (Houlsby et al. 2019, where Pfeiffer et al. 2021 put it)."""

from __future__ import annotations

import torch
from torch import nn

NAME = "bottleneck"  # of the module that a linear module is given


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))); it starts as x."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """states  (rows, tokens, width)"""
        changed: torch.Tensor = states + self.up(nn.functional.gelu(self.down(states)))
        return changed


def attach_bottleneck(linear: nn.Module, bottleneck: Bottleneck) -> None:
    """Let what `linear` puts out go through the bottleneck; a hook, so that the names of the model's own weights stay."""
    linear.add_module(NAME, bottleneck)
    linear.register_forward_hook(lambda module, inputs, output: module.get_submodule(NAME)(output))
