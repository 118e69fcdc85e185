"""Decisions about the champion, stored as tags of model versions and as lines of a JSONL file."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from tasks.core.files import flush_directory
from tasks.core.user import user_name
from tasks.lifecycle.registry import DECISION

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

Outcome = Literal["promoted", "refused", "rolled back"]
MAX_REASON = 5_000  # characters a person may give: a decision is one tag, and MLflow bounds those


@dataclass(frozen=True)
class Decision:
    """One decision about a version: promotion, refusal or rollback.

    previous    version that was champion when the decision was taken
    move        number of the alias move, from 1; None if the alias did not move
    settled     whether that move was carried out
    high_water  the best champion so far, this decision included
    test        fingerprint, sketch and number of the test rows; None if none were scored
    """

    outcome: Outcome
    version: int
    previous: int | None
    reason: str
    forced: bool = False
    gates: list[dict[str, Any]] = field(default_factory=list)
    high_water: int | None = None
    look: int | None = None
    test: dict[str, Any] | None = None
    trigger: str = ""
    move: int | None = None
    settled: bool = False
    who: str = field(default_factory=lambda: _who())
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


_DECISION = TypeAdapter(Decision)


def decisions_on(model_versions: Iterable[ModelVersion]) -> list[Decision]:
    """The decisions stored as tags of these versions."""
    tags = [tag for version in model_versions for tag in version.tags.items()]
    return [_parse(text) for key, text in tags if key.startswith(DECISION)]


def _parse(text: str) -> Decision:
    """Parse a decision; ValueError for other JSON, also if only a value's type is wrong."""
    return _DECISION.validate_python(json.loads(text))


def read_lines(file: Path) -> list[Decision]:
    """The decisions of a JSONL file; lines that cannot be parsed are skipped."""
    if not file.is_file():
        return []
    decisions = []
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            decisions.append(_parse(line))
        except ValueError:
            continue  # empty, or torn by a crash: the version's tag holds the decision too
    return decisions


def append_line(file: Path, decision: Decision) -> None:
    """Append a decision to a JSONL file, on its own line even if a crash tore the last one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torn = file.is_file() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
    line = ("\n" if torn else "") + json.dumps(asdict(decision), ensure_ascii=False) + "\n"
    with file.open("a", encoding="utf-8") as lines:
        lines.write(line)
        lines.flush()
        os.fsync(lines.fileno())
    flush_directory(file.parent)


def _who() -> str:
    import socket

    return f"{user_name()}@{socket.gethostname()}"
