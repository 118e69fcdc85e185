"""Which device a model runs on, and in which precision."""

from __future__ import annotations

from tasks.core.errors import ParamsError


def pick_device(wanted: str) -> str:
    """'cuda', 'mps' or 'cpu'; `auto` takes the first that is there. ParamsError if the one asked for is not."""
    import torch

    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return next(device for device, there in present.items() if there)
    if not present[wanted]:
        there = ", ".join(device for device, there in present.items() if there)
        raise ParamsError(
            f"device: '{wanted}' was asked for, torch finds only: {there}.",
            "Set `device: auto` in params.yaml, or install torch for that device.",
        )
    return wanted


def in_bfloat16(wanted: str, device: str) -> bool:
    """Whether a training computes in bfloat16, by `finetune.precision`; ParamsError for a card that cannot."""
    import torch

    card = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "bf16" and device == "cuda" and not card:
        raise ParamsError(
            "finetune.precision: this card does not compute in bfloat16.", "Set it to auto or fp32."
        )
    return wanted == "bf16" or (wanted == "auto" and card)
