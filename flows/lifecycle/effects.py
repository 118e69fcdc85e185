"""An effect and its answer: what a command has begun is kept until its answer was given, so that a repeat after a kill is known as one.

Before a command changes anything outside it keeps an idempotency key in the workspace's store, with what was asked. The key becomes the
decision's id, in the ledger. A command that is killed leaves it behind; the same command finds it, looks the decision up and answers what
was done, or does it now under that key. Once an answer was printed the key is gone: the same command is a new wish.
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
    from flows.lifecycle.contestants import Registry
    from tasks.lifecycle.decisions import Decision


@dataclass(frozen=True)
class Effect:
    """A command's effect; `file` is where its key is kept until the answer was given."""

    file: Path | None = None

    def begin(self, asked: Mapping[str, Any]) -> str:
        """The key of what is asked: that of an earlier attempt that gave no answer, or a new one.

        asked  plain values that tell one wish from another
        """
        if (left := self.left()) and left["asked"] == asked:
            return str(left["key"])
        key = uuid.uuid4().hex
        if self.file is not None:
            write_json(self.file, {"key": key, "asked": asked})
        return key

    def done(self, asked: Mapping[str, Any], registry: Registry) -> Decision | None:
        """The decision that an earlier attempt at the same took and gave no answer about, if it came so far."""
        left = self.left()
        if left is None or left["asked"] != asked:
            return None
        return next(
            (decision for decision in registry.decisions() if decision.id == left["key"]), None
        )

    def left(self) -> dict[str, Any] | None:
        """`key` and `asked` of an attempt that gave no answer."""
        return None if self.file is None else read_kept(self.file, "key", "asked")


UNKEPT = Effect()  # of a caller that is not repeated


@contextmanager
def answering(workspace: Workspace, command: str) -> Iterator[Effect]:
    """The effect of a command that answers within the block.

    A refusal is an answer too. A kill is none, nor is an error after which nobody knows how far it came: the registry's, the disk's, a bug.
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
