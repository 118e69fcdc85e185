"""The ledger: every decision about the champion, and atomic moves of the alias.

A decision is stored as a tag of its version and as a line of an append-only JSONL file in the
workspace's store.

MLflow's alias is a plain write: of two writers the last wins, and neither notices. A move of the
champion is therefore claimed first, through the one thing that every MLflow store creates at most
once: an experiment name. Move n of a model is the experiment 'ratchet MODEL champion move n',
hidden once the move is done. Whoever creates it owns the move; the loser is refused before anything
changed. The claim names its decision, so after a crash the next process completes the move: the
alias holds the old champion or the new. The newest claim is authoritative, and every reader brings
the alias in line with it (tasks.lifecycle.alias tells a late write from a person's).
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from tasks.core.addresses import public_address
from tasks.core.errors import GateError, RegistryError
from tasks.lifecycle.alias import read_alias, write_alias
from tasks.lifecycle.decisions import Decision, append_line, decisions_on, read_lines
from tasks.lifecycle.registry import CHAMPION, DECISION, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """The newest move and the alias.

    move      number of the newest move, 0 before the first
    champion  version that the alias points at; differs from the newest move's version only if a
              person moved the alias
    """

    move: int
    champion: int | None


class Ledger:
    """The decisions about one registered model; `file` is the workspace's JSONL copy."""

    def __init__(self, client: MlflowClient, name: str, file: Path) -> None:
        self.client, self.name, self.file = client, name, file

    def decisions(self) -> list[Decision]:
        """All decisions, oldest first: those tagged on versions and those of this workspace."""
        newest = self.settle().move
        by_id = {decision.id: decision for decision in read_lines(self.file)}
        by_id |= {
            d.id: d
            for d in self._tagged()
            if d.move is None or d.settled or (d.move <= newest and self._owns_its_claim(d))
        }
        return sorted(by_id.values(), key=lambda decision: (decision.time, decision.move or 0))

    def champion(self) -> int | None:
        """The version that the alias points at, after completing every claimed move."""
        return self.settle().champion

    def champion_version(self) -> ModelVersion | None:
        """The champion as MLflow's object; None without one."""
        number = self.champion()
        for version in versions(self.client, self.name):
            if int(version.version) == number:
                return version
        return None

    def record(self, decision: Decision) -> Decision:
        """Record a decision that does not move the alias."""
        self._tag(decision)
        append_line(self.file, decision)
        return decision

    def move(self, decision: Decision) -> Decision:
        """Make the decision's version champion and record the decision.

        A decision that was already carried out, by its id, is returned unchanged.
        Raises GateError, and moves nothing, if another promotion came first.
        """
        remedy = "Run the command again: it is judged against the new champion."
        position = self.settle()
        for known in self._tagged():
            if known.id == decision.id and known.settled:
                return known
        if position.champion != decision.previous:
            raise GateError(
                f"{self.name}: the champion is version {position.champion} now; "
                f"this was judged against version {decision.previous}.",
                remedy,
            )
        decision = replace(decision, move=position.move + 1)
        self._tag(decision)
        log.debug("move %s: version %s", decision.move, decision.version)
        if not self._claim(decision):
            tag = DECISION + decision.id
            self.client.delete_model_version_tag(self.name, str(decision.version), tag)
            raise GateError(
                f"{self.name}: another promotion made version {self.champion()} champion "
                "at the same time.",
                remedy,
            )
        self.settle()
        return replace(decision, settled=True)

    def settle(self) -> Position:
        """Complete a move that was only claimed, correct a late write, return the position."""
        announced: list[str] = []
        last_reading = None
        while True:
            number, decision, claim = self._newest()
            alias = read_alias(self.client, self.name)  # only after the newest move is known
            if decision is None or alias.version == decision.version:
                break
            if decision.settled and not announced and not alias.is_late(number):
                if last_reading == (number, alias):
                    break  # twice the same, and no late write announced: a person moved it
                last_reading = (number, alias)
                continue
            if decision.settled and not announced:
                print(
                    f"{self.name}: an interrupted command set the alias `{CHAMPION}` to version "
                    f"{alias.version} for an earlier move; "
                    f"it is put back to version {decision.version}.",
                    file=sys.stderr,
                )
            announced.append(write_alias(self.client, self.name, number, decision.version))
        if decision is not None and claim is not None:
            self._finish(decision, claim)
        for key in {*announced, *alias.expired}:
            self.client.delete_registered_model_tag(self.name, key)
        return Position(number, alias.version)

    def _newest(self) -> tuple[int, Decision | None, Experiment | None]:
        """(number, decision, claim) of the newest move.

        The decision is None if its version was deleted, the claim once it is hidden.
        """
        tagged_versions = self._tagged_versions()
        known = self._known(tagged_versions)
        last_settled = max((d.move or 0 for d in known.values() if d.settled), default=0)
        # None after `mlflow gc`, which removes hidden experiments for good
        last, claim = last_settled, self._find_claim(last_settled) if last_settled else None
        while following := self._find_claim(last + 1):
            last, claim = last + 1, following
        if last > last_settled:  # its decision may have been tagged after the first read
            tagged_versions = self._tagged_versions()
            known = self._known(tagged_versions)
        active = claim if claim is not None and claim.lifecycle_stage == "active" else None
        carried_out = (d for d in known.values() if d.settled and d.move == last)
        decision = next(carried_out, None)
        if decision is None and claim:
            decision = known.get(claim.tags.get("decision", ""))
        numbers = {int(version.version) for version in tagged_versions}
        if decision is None or decision.version not in numbers:
            if active is None:
                return last, None, None
            raise RegistryError(
                f"{self.name}: '{active.name}' names a decision that no version has.",
                "The version was deleted while it was promoted: set the alias `champion` by hand, "
                "then delete that experiment.",
            )
        settled = decision.settled or active is None
        return last, replace(decision, move=last, settled=settled), active

    def _finish(self, decision: Decision, claim: Experiment) -> None:
        """Record that the move was carried out, and hide its claim."""
        decision = replace(decision, settled=True)
        if decision.id == claim.tags.get("decision"):
            self._tag(decision)
        if decision.id not in {known.id for known in read_lines(self.file)}:
            append_line(self.file, decision)
        with suppress(MlflowException):  # another process completed the move and hid it already
            self.client.delete_experiment(claim.experiment_id)

    def _claim(self, decision: Decision) -> bool:
        """Try to claim the decision's move; whether it is ours."""
        name, tags = self._claim_name(decision.move), {"decision": decision.id}
        try:
            self.client.create_experiment(name, tags=tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # "already exists" may still be ours: MLflow's client resends a request
        if not self._owns_its_claim(decision):
            return False
        settled = [known for known in self._tagged() if known.settled]
        if all(known.move != decision.move or known.id == decision.id for known in settled):
            return True
        # while this process was paused, another made this move and `mlflow gc` freed its name
        if claim := self._find_claim(decision.move or 0):
            self.client.delete_experiment(claim.experiment_id)
        return False

    def _owns_its_claim(self, decision: Decision) -> bool:
        claim = self._find_claim(decision.move or 0)
        return claim is not None and claim.tags.get("decision") == decision.id

    def _find_claim(self, number: int) -> Experiment | None:
        return self.client.get_experiment_by_name(self._claim_name(number))

    def _claim_name(self, number: int | None) -> str:
        return f"ratchet {self.name} champion move {number}"

    def _tagged_versions(self) -> list[ModelVersion]:
        """Every version with its tags, but without aliases, which a search leaves out."""
        matches: list[ModelVersion] = self.client.search_model_versions(
            f"name = '{self.name}'", max_results=10_000
        )
        return matches

    def _tagged(self) -> list[Decision]:
        return decisions_on(self._tagged_versions())

    def _known(self, tagged_versions: list[ModelVersion]) -> dict[str, Decision]:
        decisions = [*read_lines(self.file), *decisions_on(tagged_versions)]
        return {decision.id: decision for decision in decisions}

    def _tag(self, decision: Decision) -> None:
        self.client.set_model_version_tag(
            self.name, str(decision.version), DECISION + decision.id, json.dumps(asdict(decision))
        )


def open_ledger(client: MlflowClient, uri: str, store: Path, name: str) -> Ledger:
    """The ledger of a model in the registry at `uri`; the store keeps one copy per registry."""
    directory = store / "ledger"
    by_address = directory / f"{name}-{_digest(public_address(uri))}.jsonl"
    # earlier releases named these files by the address with its password, and that of the
    # workspace's own registry by an address that changed when the workspace moved
    earlier = directory / f"{name}-{_digest(uri)}.jsonl"
    is_own = uri == f"sqlite:///{store / 'mlflow.db'}"
    file = directory / f"{name}.jsonl" if is_own else by_address
    if earlier.is_file() and not file.exists():
        earlier.rename(file)
    return Ledger(client, name, file)


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class ChampionHistory:
    """The state after all moves so far.

    champions    versions that a rollback can return to, oldest first, the present champion last
    rolled_back  versions that were rolled back and have not been promoted since
    high_water   the best champion so far, as of the last promotion
    """

    champions: list[int] = field(default_factory=list)
    rolled_back: set[int] = field(default_factory=set)
    high_water: int | None = None


def champion_history(decisions: list[Decision]) -> ChampionHistory:
    """Replay the moves from first to last."""
    stack: list[int] = []
    rolled_back: set[int] = set()
    high_water: int | None = None
    for decision in sorted((d for d in decisions if d.move is not None), key=lambda d: d.move or 0):
        if decision.outcome == "rolled back":
            matches = (i for i, version in enumerate(stack) if version == decision.version)
            index = max(matches, default=-1)
            rolled_back |= set(stack[index + 1 :])
            stack = stack[: index + 1] if index >= 0 else [decision.version]
            if high_water in rolled_back:  # what was rolled back is no benchmark for others
                high_water = decision.version
        elif decision.version not in stack[-1:]:
            stack.append(decision.version)
        rolled_back.discard(decision.version)
        high_water = decision.high_water or high_water
    return ChampionHistory(stack, rolled_back, high_water)


def looks(decisions: list[Decision]) -> list[list[str]]:
    """The test rows' sketch of each decision that scored test rows."""
    return [decision.test["sketch"] for decision in decisions if decision.test]
