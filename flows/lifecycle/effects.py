"""Idempotency keys: a command repeated after a kill is recognised and takes effect once.

Before a command changes anything outside, it stores a key and its request in the workspace. The key
becomes the decision's id in the ledger. A killed command leaves the key behind: the same command,
run again, looks up the decision and reports it, or takes effect now under that key. Once the result
is printed, the key is deleted, and the same command is a new request.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tasks.core.errors import PipelineError, RegistryError, StorageError
from tasks.core.files import read_kept, write_json
from tasks.params.workspace import Workspace

if TYPE_CHECKING:
    from tasks.lifecycle.decisions import Decision
    from tasks.lifecycle.model_registry import ModelRegistry


@dataclass(frozen=True)
class Effect:
    """A command's effect; `file` holds its key until the result is printed."""

    file: Path | None = None

    def begin(self, asked: Mapping[str, Any]) -> str:
        """The request's key: that of an earlier attempt that never reported, or a new one.

        asked  JSON values that identify the request
        """
        if (left := self.left()) and left["asked"] == asked:
            return str(left["key"])
        key = uuid.uuid4().hex
        if self.file is not None:
            write_json(self.file, {"key": key, "asked": asked})
        return key

    def done(self, asked: Mapping[str, Any], registry: ModelRegistry) -> Decision | None:
        """The decision that an earlier attempt made but never reported, if it got that far."""
        left = self.left()
        if left is None or left["asked"] != asked:
            return None
        return next(
            (decision for decision in registry.decisions() if decision.id == left["key"]), None
        )

    def left(self) -> dict[str, Any] | None:
        """`key` and `asked` of an earlier attempt that never reported."""
        return None if self.file is None else read_kept(self.file, "key", "asked")


NO_KEY = Effect()  # for callers that are never repeated


@contextmanager
def answering(workspace: Workspace, command: str) -> Iterator[Effect]:
    """The effect of a command that prints its result within the block.

    A refusal counts as a result. A kill does not, nor does an error that leaves open how far the
    command got: the registry's, the disk's, a bug.
    """
    effect = Effect(workspace.store / "pending" / f"{command}.json")
    answered = False
    try:
        yield effect
        answered = True
    except (typer.Exit, PipelineError) as refusal:
        answered = not isinstance(refusal, RegistryError | StorageError)
        raise
    finally:
        if answered and effect.file is not None:
            sys.stdout.flush()
            effect.file.unlink(missing_ok=True)
