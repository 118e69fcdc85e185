"""Device and precision of a model."""

from __future__ import annotations

from tasks.core.errors import ParamsError


def pick_device(wanted: str) -> str:
    """'cuda', 'mps' or 'cpu'; `auto` takes the first available, in this order.

    Raises ParamsError if the wanted device is not available.
    """
    import torch

    is_available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    available = [device for device in is_available if is_available[device]]
    if wanted == "auto":
        return available[0]
    if wanted not in available:
        raise ParamsError(
            f"device: '{wanted}' is not available, torch finds only: {', '.join(available)}.",
            "Set `device: auto` in params.yaml, or install torch for that device.",
        )
    return wanted


def in_bfloat16(wanted: str, device: str) -> bool:
    """Whether training computes in bfloat16, by `finetune.precision`.

    Raises ParamsError if it asks for bfloat16 on a GPU without it.
    """
    import torch

    gpu_has_it = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "bf16" and device == "cuda" and not gpu_has_it:
        raise ParamsError(
            "finetune.precision: this GPU does not support bfloat16.", "Set it to auto or fp32."
        )
    return wanted == "bf16" or (wanted == "auto" and gpu_has_it)
