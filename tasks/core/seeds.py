"""Seeds the random number generators; saves and restores torch's state to resume a run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """torch's random state, of the CPU and every CUDA device."""
    import torch

    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore a state from `random_state`."""
    import torch

    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
