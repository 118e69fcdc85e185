"""Memory: out-of-memory errors, peak use, and the frequency of garbage collection."""

from __future__ import annotations

import gc
import resource
import sys

from tasks.core.errors import StorageError

# bytes of address space that a command takes, whatever the model: a tiny one of 400 rows failed
# with 3,550 MiB and trained with 3,800, on one thread; `status` hung with 1,300 and failed with
# 2,500; `init` and `predict` failed with 1,000 and 1,500, and worked with 2,000
TO_TRAIN, TO_READ = 3_750 * 2**20, 2_000 * 2**20

# torch's messages on the CPU and on Apple GPUs; CUDA has its own exception
_MESSAGES = ("out of memory", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that memory ran out."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MESSAGES)


def free_cached_memory() -> None:
    """Free the GPU memory that torch caches."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory_mb(device: str) -> float:
    """Peak memory since the process started, in MB: of the GPU on CUDA, else of the process."""
    import torch

    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def require_address_space(least: int) -> None:
    """Raise StorageError if a limit leaves the process fewer bytes of address space.

    least  TO_TRAIN, also for a command that judges models, or TO_READ
    With less, libraries abort the process, or wait for threads that never started.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < least:
        raise StorageError(
            f"the address space of this process is limited to {limit / 2**20:,.0f} MiB; this "
            f"command takes at least {least / 2**20:,.0f}, whatever the size of the model.",
            "Raise the limit (`ulimit -v unlimited`), then run the command again.",
        )


def collect_rarely() -> None:
    """Run the garbage collector less often.

    Imports and lists of token ids create hundreds of thousands of long-lived objects, which the
    collector scans over and over at its default threshold of 700. A command with nothing to do
    takes a tenth less time, lists of ids take half (benchmarks/TRIED.md).
    """
    gc.set_threshold(50_000, 20, 20)
