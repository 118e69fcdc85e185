"""Which device a model runs on, and in which precision."""

from __future__ import annotations

from tasks.core.errors import ParamsError


def pick_device(wanted: str) -> str:
    """'cuda', 'mps' or 'cpu'; `auto` takes the first that is there. ParamsError if the one asked for is not."""
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, there in present.items() if there)
    if not present[wanted]:
        there = ", ".join(device for device, there in present.items() if there)
        raise ParamsError(
            f"device: '{wanted}' was asked for, torch finds only: {there}.",
            "Set `device: auto` in params.yaml, or install torch for that device.",
        )
    return wanted


def mixed_precision(device: str) -> str:
    """'bf16' on a card that computes in it, else 'no' (accelerate's words)."""
    import torch

    return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "no"
