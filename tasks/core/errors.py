"""What can go wrong through no bug of ours. The CLI prints one message for each of these and exits with 2.

PipelineError
├── ParamsError       params.yaml, or an option, is wrong
├── SourceError       an address cannot be resolved, fetched or read
├── DataError         the rows themselves are not fit to train on
├── TrainingError     the fine-tuning cannot go on
├── ExportError       the model cannot be exported
│   └── ParityError   what was exported does not compute what the checkpoint computes
├── BundleError       a servable directory is incomplete or altered
├── DamagedError      a file that is kept cannot be read: cut short, altered, of another kind
├── WorkspaceError    the directory is no workspace, or another run holds it
├── StorageError      no space or no permission
├── GateError         a promotion was refused
├── ScheduleError     Prefect does not have, or cannot be asked for, what is wanted
└── RegistryError     MLflow does not have, or cannot be asked for, what is wanted
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable
from pathlib import Path


class PipelineError(Exception):
    """A user's problem with its remedy.

    message   what is wrong, where, what was found and what was wanted
    remedy    the next thing to do
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class ParamsError(PipelineError):
    """params.yaml, or an option that overrides it, is wrong."""


class SourceError(PipelineError):
    """An address cannot be resolved, fetched or read."""


class DataError(PipelineError):
    """The rows are not fit to train on."""


class TrainingError(PipelineError):
    """The fine-tuning cannot go on."""


class ExportError(PipelineError):
    """The model cannot be exported."""


class ParityError(ExportError):
    """The exported model does not compute what the checkpoint computes."""


class BundleError(PipelineError):
    """A servable directory is incomplete or altered."""


class DamagedError(PipelineError, ValueError, LookupError):
    """A file that is kept cannot be read: cut short, altered, of another kind.

    Also the ValueError and LookupError that it would be without the file's name, for whoever can do without a value, as templates do.
    """

    def __init__(self, path: Path, why: str) -> None:
        remedy = "`ratchet train` makes again what it made; restore a file of your own, or delete this one if it is neither."
        super().__init__(f"{path}: damaged: {' '.join(why.split())[:300].rstrip('.')}.", remedy)


class WorkspaceError(PipelineError):
    """The directory is no workspace, or another run holds it."""


class StorageError(PipelineError):
    """No space, or no permission."""


class GateError(PipelineError):
    """A promotion was refused."""


class ScheduleError(PipelineError):
    """Prefect does not have, or cannot be asked for, what is wanted."""


class RegistryError(PipelineError):
    """MLflow does not have, or cannot be asked for, what is wanted."""


_FULL = (
    "Free some space (`dvc gc --workspace` removes old data versions), then run the command again."
)
_FORBIDDEN = "Give yourself write permission there, then run the command again."
_IN_THE_WAY = "A file is where a directory belongs: move it away, then run the command again."
_STORAGE_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "The file system, or `ulimit -f`, refuses files this large: raise the limit, then run the command again.",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EISDIR: "A directory is in the way: name a file, or move it away.",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EIO: "The disk reports an error: see the system's log, then run the command again.",
    errno.EROFS: "The file system is read-only: work in another directory.",
}
# libraries that do their own writing report the system's words inside errors of their own
_WORDS = {os.strerror(number): number for number in _STORAGE_REMEDIES} | {
    "disk is full": errno.ENOSPC,
    "disk I/O error": errno.EFBIG,
    "readonly database": errno.EACCES,
    "unable to open database file": errno.EACCES,
}


def as_storage_error(error: BaseException) -> StorageError | None:
    """The system's refusal to write, in our words, also where a library wrapped it; None where the error is of another kind."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _STORAGE_REMEDIES:
            where = f"{cause.filename}: " if cause.filename else ""
            return _storage_error(f"{where}{os.strerror(cause.errno)}", cause.errno)
        for words, number in _WORDS.items():
            if words in str(cause):
                return _storage_error(" ".join(str(cause).split())[:300], number)
        cause = cause.__cause__ or cause.__context__
    return None


def _storage_error(message: str, number: int) -> StorageError:
    return StorageError(f"{message}.", f"{_STORAGE_REMEDIES[number]} Finished stages are kept.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
