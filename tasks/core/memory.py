"""Memory: whether an error says that there is not enough, the most that was used, and how often Python looks for garbage."""

from __future__ import annotations

import gc
import resource
import sys

# torch's words on the CPU and on Apple's cards; CUDA has an error of its own
_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is for want of memory that something failed."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def free_cached_memory() -> None:
    """Give back to the card what torch keeps for later."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory_mb(device: str) -> float:
    """The most memory that was used since the process began, in MB: of the card on CUDA, else of the whole process."""
    import torch

    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def collect_rarely() -> None:
    """Let Python look for cycles of garbage less often.

    Imports and lists of token ids make hundreds of thousands of objects that stay: at the usual 700 it looks through them again and
    again. A command that has nothing to do takes a tenth less, lists of ids a half (benchmarks/TRIED.md).
    """
    gc.set_threshold(50_000, 20, 20)
