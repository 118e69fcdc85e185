"""The ledger: every decision about what is champion, and the moves of the alias, of which each is all or nothing.

A decision stands as a tag on the version it is about, and as a line of an append-only JSONL file in the workspace's store.

MLflow's alias is a plain write: of two writers the last wins, and neither is told. A move of the champion is therefore claimed first,
by the one thing that every MLflow store makes at most once: an experiment's name. Move n of a model is the experiment
'ratchet MODEL champion move n', hidden once the move is done. Whoever makes it owns the move; the loser is refused before anything
changed. The claim names its decision, so whoever comes after a crash completes the move: the alias holds the old champion or the new.
The newest claim is therefore the last word, and whoever looks brings the alias to it (tasks.lifecycle.alias says how a late write differs
from a person's).
"""

from __future__ import annotations

import hashlib
import json
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


@dataclass(frozen=True)
class Position:
    """Where the moves have come to.

    move      number of the newest, 0 before the first
    champion  the version that the alias points at; other than the newest move's only if a person moved the alias
    """

    move: int
    champion: int | None


class Ledger:
    """The decisions about one registered model; `file` is the workspace's copy."""

    def __init__(self, client: MlflowClient, name: str, file: Path) -> None:
        self.client, self.name, self.file = client, name, file

    def decisions(self) -> list[Decision]:
        """All of them, oldest first: those on the versions and those of this workspace."""
        newest = self.settle().move
        found = {decision.id: decision for decision in read_lines(self.file)}
        found |= {
            d.id: d
            for d in self._tagged()
            if d.move is None or d.settled or (d.move <= newest and self._owns_its_claim(d))
        }
        return sorted(found.values(), key=lambda decision: (decision.time, decision.move or 0))

    def champion(self) -> int | None:
        """The version that the alias points at, once every move that was begun is carried out."""
        return self.settle().champion

    def champion_version(self) -> ModelVersion | None:
        """The same as a version."""
        number = self.champion()
        return next(
            (
                version
                for version in versions(self.client, self.name)
                if int(version.version) == number
            ),
            None,
        )

    def record(self, decision: Decision) -> Decision:
        """Write down a decision that moves nothing."""
        self._tag(decision)
        append_line(self.file, decision)
        return decision

    def move(self, decision: Decision) -> Decision:
        """Make the decision's version champion and write it down; GateError, and nothing moved, if another got there first.

        A decision that was carried out before, by its id, is returned as it was.
        """
        position = self.settle()
        if done := next(
            (known for known in self._tagged() if known.id == decision.id and known.settled), None
        ):
            return done
        if position.champion != decision.previous:
            raise GateError(
                f"{self.name}: the champion is version {position.champion} now; this was judged against version {decision.previous}.",
                "Run the command again: it is judged against the new champion.",
            )
        decision = replace(decision, move=position.move + 1)
        self._tag(decision)
        if not self._claim(decision):
            self.client.delete_model_version_tag(
                self.name, str(decision.version), DECISION + decision.id
            )
            raise GateError(
                f"{self.name}: another promotion made version {self.champion()} champion at the same time.",
                "Run the command again: it is judged against the new champion.",
            )
        self.settle()
        return replace(decision, settled=True)

    def settle(self) -> Position:
        """Carry out a move that was only claimed and put right an alias that was written late; where that leaves the champion."""
        announced: list[str] = []
        seen = None
        while True:
            number, decision, claim = self._newest()
            alias = read_alias(self.client, self.name)  # read after the newest move was asked for
            if decision is None or alias.version == decision.version:
                break
            if decision.settled and not announced and not alias.is_late(number):
                if seen == (
                    number,
                    alias,
                ):  # twice the same with no late write under way: a person moved it
                    break
                seen = (number, alias)
                continue
            if decision.settled and not announced:
                print(
                    f"{self.name}: an interrupted command of an earlier move had set the alias `{CHAMPION}` to version {alias.version}; "
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
        """Number and decision of the newest move, and its claim while that is shown; no decision once its version is deleted."""
        there = self._tagged_versions()
        known = self._known(there)
        settled = max(
            (decision.move or 0 for decision in known.values() if decision.settled), default=0
        )
        last, claim = (
            settled,
            self._find_claim(settled) if settled else None,
        )  # `mlflow gc` removes it for good
        while following := self._find_claim(last + 1):
            last, claim = last + 1, following
        if (
            last > settled
        ):  # its decision was written down before it was claimed, maybe since the versions were read
            there = self._tagged_versions()
            known = self._known(there)
        shown = claim if claim is not None and claim.lifecycle_stage == "active" else None
        carried_out = (
            decision for decision in known.values() if decision.settled and decision.move == last
        )
        decision = next(carried_out, None) or (
            known.get(claim.tags.get("decision", "")) if claim else None
        )
        if decision is None or decision.version not in {int(version.version) for version in there}:
            if shown is None:
                return last, None, None
            raise RegistryError(
                f"{self.name}: '{shown.name}' names a decision that is on no version.",
                "The version was deleted while it was promoted: set the alias `champion` by hand, then delete that experiment.",
            )
        return last, replace(decision, move=last, settled=decision.settled or shown is None), shown

    def _finish(self, decision: Decision, claim: Experiment) -> None:
        """Write down that the move was carried out, and hide its claim."""
        decision = replace(decision, settled=True)
        if decision.id == claim.tags.get("decision"):
            self._tag(decision)
        if decision.id not in {known.id for known in read_lines(self.file)}:
            append_line(self.file, decision)
        with suppress(MlflowException):  # hidden already, by another who completed it
            self.client.delete_experiment(claim.experiment_id)

    def _claim(self, decision: Decision) -> bool:
        try:
            self.client.create_experiment(
                self._claim_name(decision.move), tags={"decision": decision.id}
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # ours, too, where MLflow's client had to send it twice
        if not self._owns_its_claim(decision):
            return False
        if all(
            known.move != decision.move or known.id == decision.id
            for known in self._tagged()
            if known.settled
        ):
            return True
        # `mlflow gc` had removed the claim of a move that was made while this one was paused, and its name was free again
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
        """Every version with its tags; a search leaves the aliases out."""
        found: list[ModelVersion] = self.client.search_model_versions(
            f"name = '{self.name}'", max_results=10_000
        )
        return found

    def _tagged(self) -> list[Decision]:
        return decisions_on(self._tagged_versions())

    def _known(self, there: list[ModelVersion]) -> dict[str, Decision]:
        return {
            decision.id: decision for decision in [*read_lines(self.file), *decisions_on(there)]
        }

    def _tag(self, decision: Decision) -> None:
        self.client.set_model_version_tag(
            self.name, str(decision.version), DECISION + decision.id, json.dumps(asdict(decision))
        )


def open_ledger(client: MlflowClient, uri: str, store: Path, name: str) -> Ledger:
    """The ledger of a model in the registry at `uri`, with its copy in a workspace's store, one for each registry."""
    place = hashlib.sha256(public_address(uri).encode()).hexdigest()[:8]
    own, elsewhere = (store / "ledger" / f"{name}{end}.jsonl" for end in ("", f"-{place}"))
    if uri != f"sqlite:///{store / 'mlflow.db'}":
        return Ledger(client, name, elsewhere)
    if (
        elsewhere.is_file() and not own.exists()
    ):  # of a time when a workspace that was moved lost it
        elsewhere.rename(own)
    return Ledger(client, name, own)


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
            place = max(
                (i for i, version in enumerate(stack) if version == decision.version), default=-1
            )
            taken |= set(stack[place + 1 :])
            stack = stack[: place + 1] if place >= 0 else [decision.version]
            mark = (
                decision.version if mark in taken else mark
            )  # what was taken back is no measure for others
        elif decision.version not in stack[-1:]:
            stack.append(decision.version)
        taken.discard(decision.version)
        mark = decision.high_water or mark
    return Standing(stack, taken, mark)


def looks(decisions: list[Decision]) -> list[list[str]]:
    """Sketches of the test rows of every decision that rows judged."""
    return [decision.test["sketch"] for decision in decisions if decision.test]
