"""The account of the rows: how many the sources hold, how many were set aside on the way, and why. It always adds up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from tasks.core.files import read_json, write_json
from tasks.data.tables.quarantine import say_place

FILE_NAME = "account.json"
PLACES = 3  # of each reason
_TOLD = 5  # reasons that a message names
STAGE_ROWS = {
    "ingest": "data/raw",
    "validate": "data/valid",
    "split": "data/splits",
}  # where the stages keep rows and the account
# what a reason says of one row only, and what it comes to for all of its kind
_KINDS = (
    (re.compile(r" at character \d+|(?<=of a field): .*|(?<=convert string) '.*'"), ""),
    (
        re.compile(
            r"(?<=: )turn \d+: |(?<=wanted 0 or 1), found .*|(?<=the span) \d+ to \d+(?= holds| overlaps| is )"
        ),
        "",
    ),
    (re.compile(r"(?<=nearly the same text as ).*, which"), "a row that"),
)


@dataclass(frozen=True)
class Loss:
    """Rows that one stage set aside for one reason, and where the first of them stand."""

    stage: str
    reason: str
    rows: int
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = ", ..." if self.rows > len(self.places) else ""
        return (
            f"{self.rows}: {self.reason} ({', '.join(self.places)}{more})"
            if self.places
            else f"{self.rows}: {self.reason}"
        )


@dataclass(frozen=True)
class Account:
    """What became of the rows so far: `held` are `used` and `set_aside`.

    records  in the files of the sources
    held     rows to account for: as many, unless `ingest.query` selects or joins
    losses   of each stage, the most frequent reason first
    mended   rows in which a text was put right; they are used
    warning  that more are set aside than params.yaml allows; '' where they are not
    """

    records: int
    held: int
    losses: tuple[Loss, ...] = ()
    mended: Loss | None = None
    warning: str = ""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """From what `plain` gave."""
        mended = plain["mended"] and _loss(plain["mended"])
        return cls(
            plain["records"],
            plain["held"],
            tuple(map(_loss, plain["losses"])),
            mended,
            plain["warning"],
        )

    @classmethod
    def read(cls, directory: Path) -> Self:
        """From a stage's directory."""
        return cls.of(read_json(directory / FILE_NAME))

    def write(self, directory: Path) -> None:
        """Beside the rows of a stage."""
        write_json(directory / FILE_NAME, self.plain())

    @property
    def set_aside(self) -> int:
        """By all stages so far."""
        return sum(loss.rows for loss in self.losses)

    @property
    def used(self) -> int:
        """What is left."""
        return self.held - self.set_aside

    def less(self, losses: Iterable[Loss]) -> Self:
        """The account after the next stage."""
        return replace(self, losses=(*self.losses, *losses))

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"used": self.used, "set_aside": self.set_aside}

    def lines(self) -> list[str]:
        """For people: the counts, then a line for each reason."""
        told = [self._counts()]
        told += [f"  {loss}" for loss in self.losses[:_TOLD]]
        if rest := self.losses[_TOLD:]:
            told.append(f"  {sum(loss.rows for loss in rest)}: {len(rest)} other reasons")
        if self.mended:
            told.append(f"  mended {self.mended}")
        return [*told, *([f"  {self.warning}"] if self.warning else [])]

    @property
    def stages(self) -> list[str]:
        """Those that set rows aside."""
        return [*dict.fromkeys(loss.stage for loss in self.losses)]

    def before(self, failure: str) -> str:
        """A failure, after what was set aside before it."""
        return "\n".join([*self.lines(), failure]) if self.losses else failure

    def _counts(self) -> str:
        source = (
            "the sources hold"
            if self.held == self.records
            else f"ingest.query makes of {self.records} records"
        )
        if not self.losses:
            return f"Rows: {source} {self.held}; none was set aside."
        return f"Rows: {source} {self.held}; {self.set_aside} were set aside, {self.used} are left:"


class Losses:
    """Counts a stage's quarantine by reason, as it is written."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._found: dict[str, Loss] = {}

    def watch(self, entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same entries."""
        for entry in entries:
            reason = _kind(entry["reason"])
            loss = self._found.get(reason, Loss(self._stage, reason, 0))
            places = loss.places if len(loss.places) == PLACES else (*loss.places, say_place(entry))
            self._found[reason] = replace(loss, rows=loss.rows + 1, places=places)
            yield entry

    def found(self) -> list[Loss]:
        """By reason, the most frequent first."""
        return sorted(self._found.values(), key=lambda loss: -loss.rows)


def _kind(reason: str) -> str:
    for pattern, words in _KINDS:
        reason = pattern.sub(words, reason)
    return reason


def _loss(plain: Mapping[str, Any]) -> Loss:
    return Loss(plain["stage"], plain["reason"], plain["rows"], tuple(plain["places"]))
