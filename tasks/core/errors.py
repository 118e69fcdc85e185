"""Errors that are not bugs: the CLI prints one message for each and exits with 2.

PipelineError
├── ParamsError       params.yaml, or an option that overrides it, is invalid
├── SourceError       an address cannot be resolved, fetched or read
├── DataError         the rows are not fit to train on
├── TrainingError     the fine-tuning cannot continue
├── ExportError       the model cannot be exported
│   └── ParityError   the exported model's outputs differ from the checkpoint's
├── BundleError       a servable directory is incomplete or altered
├── DamagedError      a stored file cannot be read: truncated, altered, or of another format
├── WorkspaceError    the directory is not a workspace, or another run holds it
├── StorageError      no disk space, no memory or no permission
├── GateError         a promotion was refused
├── ScheduleError     Prefect lacks what was asked for, or cannot be reached
└── RegistryError     MLflow lacks what was asked for, or cannot be reached
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from tasks.core.addresses import redact


class PipelineError(Exception):
    """A problem the user can solve, with its remedy.

    message   what is wrong, where, what was found and what was wanted
    remedy    the next thing to do
    Neither shows credentials in an address.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = redact(message)
        self.remedy = redact(remedy)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class ParamsError(PipelineError):
    """params.yaml, or an option that overrides it, is invalid."""


class SourceError(PipelineError):
    """An address cannot be resolved, fetched or read."""


class DataError(PipelineError):
    """The rows are not fit to train on."""


class TrainingError(PipelineError):
    """The fine-tuning cannot continue."""


class ExportError(PipelineError):
    """The model cannot be exported."""


class ParityError(ExportError):
    """The exported model's outputs differ from the checkpoint's."""


class BundleError(PipelineError):
    """A servable directory is incomplete or altered."""


class DamagedError(PipelineError, ValueError, LookupError):
    """A stored file cannot be read: truncated, altered, or of another format.

    Also the ValueError or LookupError a plain read would raise, for callers that can do without a
    value, such as templates.
    """

    def __init__(self, path: Path, why: str) -> None:
        remedy = (
            "`ratchet train` rebuilds the files it made; restore a file of your own, "
            "or delete this one if it is neither."
        )
        super().__init__(f"{path}: damaged: {' '.join(why.split())[:300].rstrip('.')}.", remedy)


class WorkspaceError(PipelineError):
    """The directory is not a workspace, or another run holds it."""


class StorageError(PipelineError):
    """No disk space, no memory or no permission."""


class GateError(PipelineError):
    """A promotion was refused."""


class ScheduleError(PipelineError):
    """Prefect lacks what was asked for, or cannot be reached."""


class RegistryError(PipelineError):
    """MLflow lacks what was asked for, or cannot be reached."""


_FULL = (
    "Free some space (`dvc gc --workspace` removes old data versions), then run the command again."
)
_FORBIDDEN = "Give yourself write permission there, then run the command again."
_IN_THE_WAY = "A file is where a directory belongs: move it away, then run the command again."
_STORAGE_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: (
        "The file system, or `ulimit -f`, refuses files this large: "
        "raise the limit, then run the command again."
    ),
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EISDIR: "A directory is in the way: name a file, or move it away.",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EIO: "The disk reports an error: see the system log, then run the command again.",
    errno.EROFS: "The file system is read-only: work in another directory.",
}
# libraries that write files themselves quote the system's message in their own errors
_MESSAGES = {os.strerror(number): number for number in _STORAGE_REMEDIES} | {
    "disk is full": errno.ENOSPC,
    "disk I/O error": errno.EFBIG,
    "readonly database": errno.EACCES,
    "unable to open database file": errno.EACCES,
}


# libraries in C++ raise their own errors
_NO_MEMORY = (
    "bad_alloc",
    "can't allocate memory",
    "not enough memory",
    "Failed to allocate memory",
    "failed to map segment",  # of a library that is imported
    "Out of Memory Error",
    "MemoryError",
    "can't start new thread",
    os.strerror(errno.ENOMEM),
)
_MORE_MEMORY = (
    "Free some memory, or raise the limit on it, then run the command again. A training takes "
    "less with a lower finetune.batch_size or tokenize.max_length."
)


def lacks_memory(error: BaseException) -> bool:
    """Whether memory was refused, by what a library raised or quotes."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def as_storage_error(error: BaseException) -> StorageError | None:
    """A StorageError if disk or memory was refused, even if a library wrapped it; else None."""
    cause: BaseException | None = error
    while cause is not None:
        if lacks_memory(cause):
            reason = " ".join(str(cause).split())[:200].rstrip(".")
            told = f"out of memory{f': {reason}' if reason else ''}."
            return StorageError(told, f"{_MORE_MEMORY} Finished stages are kept.")
        if isinstance(cause, OSError) and cause.errno in _STORAGE_REMEDIES:
            where = f"{cause.filename}: " if cause.filename else ""
            return _storage_error(f"{where}{os.strerror(cause.errno)}", cause.errno)
        for text, number in _MESSAGES.items():
            if text in str(cause):
                return _storage_error(" ".join(str(cause).split())[:300], number)
        cause = cause.__cause__ or cause.__context__
    return None


def _storage_error(message: str, number: int) -> StorageError:
    return StorageError(f"{message}.", f"{_STORAGE_REMEDIES[number]} Finished stages are kept.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean 'X'?' for the closest known word, or ''; lr is learning_rate."""
    candidates = list(known)
    short = [name for name in candidates if word == "".join(part[:1] for part in name.split("_"))]
    longer = [name for name in candidates if word.endswith(name) or name in word.split("_")]
    closest = short or difflib.get_close_matches(word, candidates, n=1) or longer
    return f" Did you mean '{closest[0]}'?" if closest else ""
