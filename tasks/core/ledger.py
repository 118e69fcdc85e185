"""The ledger: every decision about what is champion, and the moves of the alias, of which each is all or nothing.

A decision stands as a tag on the version it is about, and as a line of an append-only JSONL file in the workspace's store.

MLflow's alias is a plain write: of two writers the last wins, and neither is told. A move of the champion is therefore claimed first,
by the one thing that every MLflow store makes at most once: an experiment's name. Move n of a model is the experiment
'ratchet MODEL champion move n', hidden once the move is done. Whoever makes it owns the move; the loser is refused before anything
changed. The claim names its decision, so whoever comes after a crash completes the move: the alias holds the old champion or the new.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlflow.exceptions import MlflowException

from tasks.core.errors import GateError, RegistryError
from tasks.core.registry import CHAMPION, find_champion, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.entities.model_registry import ModelVersion

DECISION = "ratchet.decision."
Outcome = Literal["promoted", "refused", "rolled back"]


@dataclass(frozen=True)
class Decision:
    """One decision, for or against.

    previous    the champion when it was taken
    move        number of the alias's move, from 1; None for a decision that moved nothing
    settled     whether that move was carried out
    high_water  the best champion so far, this decision included
    test        fingerprint, sketch and number of the rows that judged; None where none did
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


class Ledger:
    """The decisions about one registered model; `file` is the workspace's copy."""

    def __init__(self, client: MlflowClient, name: str, file: Path) -> None:
        self.client, self.name, self.file = client, name, file
        self.completed: Decision | None = None  # the move that a crash had cut short and this process completed, if there was one

    def decisions(self) -> list[Decision]:
        """All of them, oldest first: those on the versions and those of this workspace."""
        self.settle()
        found = {decision.id: decision for decision in _read_lines(self.file)}
        found |= {decision.id: decision for decision in self._tagged() if decision.move is None or decision.settled}
        return sorted(found.values(), key=lambda decision: (decision.time, decision.move or 0))

    def champion(self) -> int | None:
        """The version that the alias points at."""
        found = find_champion(self.client, self.name)
        return None if found is None else int(found.version)

    def record(self, decision: Decision) -> Decision:
        """Write down a decision that moves nothing."""
        self._tag(decision)
        self._append(decision)
        return decision

    def move(self, decision: Decision) -> Decision:
        """Make the decision's version champion and write it down; GateError, and nothing moved, if another got there first."""
        done = self.settle()
        if self.champion() != decision.previous:
            raise GateError(
                f"{self.name}: the champion is version {self.champion()} now; this was judged against version {decision.previous}.",
                "Run the command again: it is judged against the new champion.",
            )
        decision = replace(decision, move=done + 1)
        self._tag(decision)
        if not self._claim(decision):
            self.client.delete_model_version_tag(self.name, str(decision.version), DECISION + decision.id)
            self.settle()
            raise GateError(
                f"{self.name}: another promotion made version {self.champion()} champion at the same time.",
                "Run the command again: it is judged against the new champion.",
            )
        self.settle()
        return decision

    def settle(self) -> int:
        """Complete moves that were claimed and not carried out; the number of moves so far."""
        last = max((decision.move or 0 for decision in self._tagged() if decision.settled), default=0)
        while self._find_claim(last + 1):
            last += 1
        if last and (claim := self._find_claim(last)) and claim.lifecycle_stage == "active":
            self._carry_out(claim)
        return last

    def _carry_out(self, claim: Experiment) -> None:
        decision = next((known for known in self._tagged() if known.id == claim.tags["decision"]), None)
        if decision is None or decision.move is None:
            raise RegistryError(
                f"{self.name}: '{claim.name}' names a decision that is on no version.",
                "The version was deleted while it was promoted: set the alias `champion` by hand, then delete that experiment.",
            )
        self.client.set_registered_model_alias(self.name, CHAMPION, str(decision.version))
        decision = replace(decision, settled=True)
        self._tag(decision)
        if decision.id not in {known.id for known in _read_lines(self.file)}:
            self._append(decision)
        self.completed = decision
        if newer := self._find_claim((decision.move or 0) + 1):  # somebody was faster: theirs is the last word
            self._carry_out(newer)
        with suppress(MlflowException):  # hidden already, by another who completed it
            self.client.delete_experiment(claim.experiment_id)

    def _claim(self, decision: Decision) -> bool:
        try:
            self.client.create_experiment(self._claim_name(decision.move), tags={"decision": decision.id})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # ours, too, where MLflow's client had to send it twice
        claim = self._find_claim(decision.move or 0)
        return claim is not None and claim.tags.get("decision") == decision.id

    def _find_claim(self, number: int) -> Experiment | None:
        return self.client.get_experiment_by_name(self._claim_name(number))

    def _claim_name(self, number: int | None) -> str:
        return f"ratchet {self.name} champion move {number}"

    def _versions(self) -> list[ModelVersion]:
        return versions(self.client, self.name)

    def _tagged(self) -> list[Decision]:
        tags = [tag for version in self._versions() for tag in version.tags.items()]
        return [_parse(text) for key, text in tags if key.startswith(DECISION)]

    def _tag(self, decision: Decision) -> None:
        self.client.set_model_version_tag(self.name, str(decision.version), DECISION + decision.id, json.dumps(asdict(decision)))

    def _append(self, decision: Decision) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        torn = self.file.is_file() and not self.file.read_bytes().endswith(b"\n") and self.file.stat().st_size > 0
        line = ("\n" if torn else "") + json.dumps(asdict(decision), ensure_ascii=False) + "\n"
        with self.file.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class Standing:
    """What the moves so far come to.

    champions    those that a rollback can go back to, oldest first, the present one last
    rolled_back  those that were taken back and have not been promoted since
    high_water   the best champion so far, as the last promotion found it
    """

    champions: list[int] = field(default_factory=list)
    rolled_back: set[int] = field(default_factory=set)
    high_water: int | None = None


def standing(decisions: list[Decision]) -> Standing:
    """Follow the moves from the first to the last."""
    stack: list[int] = []
    taken: set[int] = set()
    mark: int | None = None
    for decision in sorted((d for d in decisions if d.move is not None), key=lambda d: d.move or 0):
        if decision.outcome == "rolled back":
            place = max((i for i, version in enumerate(stack) if version == decision.version), default=-1)
            taken |= set(stack[place + 1 :])
            stack = stack[: place + 1] if place >= 0 else [decision.version]
            mark = decision.version if mark in taken else mark  # what was taken back is no measure for others
        elif decision.version not in stack[-1:]:
            stack.append(decision.version)
        taken.discard(decision.version)
        mark = decision.high_water or mark
    return Standing(stack, taken, mark)


def looks(decisions: list[Decision]) -> list[list[str]]:
    """Sketches of the test rows of every decision that rows judged."""
    return [decision.test["sketch"] for decision in decisions if decision.test]


def _parse(text: str) -> Decision:
    values: Mapping[str, Any] = json.loads(text)
    known = Decision.__dataclass_fields__
    return Decision(**{key: value for key, value in values.items() if key in known})


def _read_lines(file: Path) -> list[Decision]:
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            found.append(_parse(line))
        except (ValueError, TypeError, AttributeError):
            continue  # empty, or torn by a crash: the decision stands on its version too
    return found


def _who() -> str:
    import getpass
    import socket

    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container's user may have no name
        return f"uid {os.getuid()}@{socket.gethostname()}"
