"""The alias `champion`, written so that the late write of a paused process is told from a person's.

MLflow's alias has no compare-and-set: a process that is paused just before it writes undoes, when it wakes, whatever was written
meanwhile. A writer therefore announces its write first, as a tag of the registered model (`ratchet.writing.ID`: the move's number, its
version, the time), and takes the tag away after it has read back that the alias holds the newest move.

So an alias that is not what the newest move says was written late if the announcement of an *earlier* move names that very version:
whoever looks puts it right. Without such an announcement a person has moved it, which is told and left. What a killed writer announced
counts for a day; a person who moves the alias to that same version meanwhile is told that it was put back.
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
    """The alias as it stands.

    version  what it points at; None where it is not set
    writing  announced writes: (number of the move, version)
    expired  announcements that count no more
    """

    version: int | None = None
    writing: frozenset[tuple[int, int]] = frozenset()
    expired: tuple[str, ...] = field(default=(), compare=False)

    def is_late(self, newest_move: int) -> bool:
        """Whether what it holds was written by a process that was paused since before the newest move."""
        return any(move < newest_move and version == self.version for move, version in self.writing)


def read_alias(client: MlflowClient, name: str) -> Alias:
    """One reading of the alias and of the writes that are under way."""
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return Alias()
    oldest = (datetime.now(UTC) - LONGEST_PAUSE).isoformat()
    found = {key: json.loads(text) for key, text in model.tags.items() if key.startswith(WRITING)}
    writing = frozenset(
        (int(said["move"]), int(said["version"]))
        for said in found.values()
        if said["time"] > oldest
    )
    version = model.aliases.get(CHAMPION)
    return Alias(
        None if version is None else int(version),
        writing,
        tuple(key for key, said in found.items() if said["time"] <= oldest),
    )


def write_alias(client: MlflowClient, name: str, move: int, version: int) -> str:
    """Announce the write and point the alias at the version; the announcement's key, to be taken away once the alias was read back."""
    key = f"{WRITING}{uuid.uuid4().hex}"
    client.set_registered_model_tag(
        name,
        key,
        json.dumps({"move": move, "version": version, "time": datetime.now(UTC).isoformat()}),
    )
    client.set_registered_model_alias(name, CHAMPION, str(version))
    return key
