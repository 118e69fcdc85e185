"""Read and write the alias `champion` so that a paused process's late write can be recognized.

MLflow's alias has no compare-and-set: a process paused just before its write overwrites, when it
resumes, whatever was written in the meantime. A writer therefore announces its write first, as a
tag of the registered model (`ratchet.writing.ID`: move number, version, time), and removes the tag
once it has read back that the alias holds the newest move.

An alias that differs from the newest move was written late if the announcement of an *earlier* move
names its version; whoever reads it next puts it right. Without such an announcement a person moved
it, which is reported and left alone. A killed writer's announcement counts for a day; a person who
moves the alias to that same version within it is told that it was put back.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from tasks.lifecycle.registry import CHAMPION

if TYPE_CHECKING:
    from mlflow import MlflowClient

WRITING = "ratchet.writing."
LONGEST_PAUSE = timedelta(days=1)


@dataclass(frozen=True)
class Alias:
    """One reading of the alias.

    version  version it points at; None if it is not set
    writing  announced writes: (move number, version)
    expired  tag keys of announcements older than LONGEST_PAUSE
    """

    version: int | None = None
    writing: frozenset[tuple[int, int]] = frozenset()
    expired: tuple[str, ...] = field(default=(), compare=False)

    def is_late(self, newest_move: int) -> bool:
        """Whether it was written by a process that had been paused since before the newest move."""
        return any(move < newest_move and version == self.version for move, version in self.writing)


def read_alias(client: MlflowClient, name: str) -> Alias:
    """Read the alias and the announced writes."""
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return Alias()
    oldest = (datetime.now(UTC) - LONGEST_PAUSE).isoformat()
    writes = {key: json.loads(text) for key, text in model.tags.items() if key.startswith(WRITING)}
    writing = frozenset(
        (int(write["move"]), int(write["version"]))
        for write in writes.values()
        if write["time"] > oldest
    )
    expired = tuple(key for key, write in writes.items() if write["time"] <= oldest)
    version = model.aliases.get(CHAMPION)
    return Alias(None if version is None else int(version), writing, expired)


def write_alias(client: MlflowClient, name: str, move: int, version: int) -> str:
    """Announce the write, then point the alias at the version.

    Returns the announcement's tag key, to be deleted once the alias has been read back.
    """
    key = f"{WRITING}{uuid.uuid4().hex}"
    write = {"move": move, "version": version, "time": datetime.now(UTC).isoformat()}
    client.set_registered_model_tag(name, key, json.dumps(write))
    client.set_registered_model_alias(name, CHAMPION, str(version))
    return key
