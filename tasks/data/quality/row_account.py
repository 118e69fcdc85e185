"""Row accounting: how many rows the sources hold, how many each stage set aside, and why.

The numbers always add up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from tasks.core.files import read_json, write_json
from tasks.data.tables.quarantine import say_place

FILE_NAME = "account.json"
PLACES = 3  # example rows per reason
_LISTED = 5  # reasons listed in a message
# directories where the stages keep rows and the account
STAGE_ROWS = {"ingest": "data/raw", "validate": "data/valid", "split": "data/splits"}
# the parts of a reason that are about one row only, and their replacement in the general reason
_ROW_SPECIFIC = (
    (re.compile(r" at character \d+|(?<=of a field): .*|(?<=convert string) '.*'"), ""),
    (re.compile(r"(?<=: )turn \d+: |(?<=wanted 0 or 1), found .*"), ""),
    (re.compile(r"(?<=the span) \d+ to \d+(?= holds| overlaps| is )"), ""),
    (re.compile(r"(?<=nearly the same text as ).*, which"), "a row that"),
)


@dataclass(frozen=True)
class Loss:
    """Rows that one stage set aside for one reason, and where the first of them came from."""

    stage: str
    reason: str
    rows: int
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = ", ..." if self.rows > len(self.places) else ""
        places = f" ({', '.join(self.places)}{more})" if self.places else ""
        return f"{self.rows}: {self.reason}{places}"


@dataclass(frozen=True)
class Account:
    """What became of the rows so far; `held` = `used` + `set_aside`.

    records  in the source files
    held     rows to account for: equal to `records` unless `ingest.query` selects or joins
    losses   stage by stage, the most frequent reason first
    mended   rows with a repaired text; they are used
    warning  set if more rows are set aside than params.yaml allows, else ''
    """

    records: int
    held: int
    losses: tuple[Loss, ...] = ()
    mended: Loss | None = None
    warning: str = ""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Inverse of `plain`."""
        losses = tuple(map(_loss, plain["losses"]))
        mended = plain["mended"] and _loss(plain["mended"])
        return cls(plain["records"], plain["held"], losses, mended, plain["warning"])

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the account from a stage's directory."""
        return cls.of(read_json(directory / FILE_NAME))

    def write(self, directory: Path) -> None:
        """Write the account to a stage's directory, next to its rows."""
        write_json(directory / FILE_NAME, self.plain())

    @property
    def set_aside(self) -> int:
        """Number of rows set aside by all stages so far."""
        return sum(loss.rows for loss in self.losses)

    @property
    def used(self) -> int:
        """Number of rows left."""
        return self.held - self.set_aside

    def less(self, losses: Iterable[Loss]) -> Self:
        """The account after the next stage's losses."""
        return replace(self, losses=(*self.losses, *losses))

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"used": self.used, "set_aside": self.set_aside}

    def lines(self) -> list[str]:
        """Lines for people: the counts, then one line per reason."""
        lines = [self._counts(), *(f"  {loss}" for loss in self.losses[:_LISTED])]
        if rest := self.losses[_LISTED:]:
            lines.append(f"  {sum(loss.rows for loss in rest)}: {len(rest)} other reasons")
        if self.mended:
            lines.append(f"  mended {self.mended}")
        if self.warning:
            lines.append(f"  {self.warning}")
        return lines

    @property
    def stages(self) -> list[str]:
        """The stages that set rows aside."""
        return [*dict.fromkeys(loss.stage for loss in self.losses)]

    def before(self, failure: str) -> str:
        """The failure message, preceded by the account if rows were set aside."""
        return "\n".join([*self.lines(), failure]) if self.losses else failure

    def _counts(self) -> str:
        source = (
            f"the sources hold {self.held}"
            if self.held == self.records
            else f"ingest.query turns {self.records} records into {self.held}"
        )
        if not self.losses:
            return f"Rows: {source}; none was set aside."
        were = "was" if self.set_aside == 1 else "were"
        return f"Rows: {source}; {self.set_aside} {were} set aside, {self.used} are left:"


class Losses:
    """Counts a stage's quarantine by reason, as it is written."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._by_reason: dict[str, Loss] = {}

    def watch(self, entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass the entries through, counting them."""
        for entry in entries:
            reason = _general_reason(entry["reason"])
            loss = self._by_reason.get(reason, Loss(self._stage, reason, 0))
            places = loss.places if len(loss.places) == PLACES else (*loss.places, say_place(entry))
            self._by_reason[reason] = replace(loss, rows=loss.rows + 1, places=places)
            yield entry

    def found(self) -> list[Loss]:
        """One loss per reason, the most frequent first."""
        return sorted(self._by_reason.values(), key=lambda loss: -loss.rows)


def _general_reason(reason: str) -> str:
    for pattern, replacement in _ROW_SPECIFIC:
        reason = pattern.sub(replacement, reason)
    return reason


def _loss(plain: Mapping[str, Any]) -> Loss:
    return Loss(plain["stage"], plain["reason"], plain["rows"], tuple(plain["places"]))
