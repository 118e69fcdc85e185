"""What can go wrong through no bug of ours. The CLI prints one message for each of these and exits with 2.

PipelineError
├── ParamsError       params.yaml, or an option, is wrong
├── SourceError       an address cannot be resolved, fetched or read
├── DataError         the rows themselves are not fit to train on
├── TrainingError     the fine-tuning cannot go on
├── ExportError       the model cannot be exported
│   └── ParityError   what was exported does not compute what the checkpoint computes
├── BundleError       a servable directory is incomplete or altered
├── WorkspaceError    the directory is no workspace, or another run holds it
├── StorageError      no space or no permission
├── GateError         a promotion was refused
└── RegistryError     MLflow does not have, or cannot be asked for, what is wanted
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


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


class WorkspaceError(PipelineError):
    """The directory is no workspace, or another run holds it."""


class StorageError(PipelineError):
    """No space, or no permission."""


class GateError(PipelineError):
    """A promotion was refused."""


class RegistryError(PipelineError):
    """MLflow does not have, or cannot be asked for, what is wanted."""


_STORAGE_REMEDIES = {
    errno.ENOSPC: "Free some space (`dvc gc --workspace` removes old data versions), then run the command again.",
    errno.EDQUOT: "Free some of your quota, then run the command again.",
    errno.EACCES: "Give yourself write permission there, then run the command again.",
    errno.EPERM: "Give yourself write permission there, then run the command again.",
    errno.EROFS: "The file system is read-only: work in another directory.",
}


def as_storage_error(error: OSError) -> StorageError | None:
    """The operating system's refusal in our words; None where the error is of another kind."""
    if error.errno not in _STORAGE_REMEDIES:
        return None
    where = f"{error.filename}: " if error.filename else ""
    remedy = _STORAGE_REMEDIES[error.errno]
    return StorageError(f"{where}{error.strerror}.", f"{remedy} Finished stages are kept.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
