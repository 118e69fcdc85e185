"""Rows on their way through the checks, a batch at a time: what is kept of each is a few numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.core.arrays import Bools
from tasks.core.prefetch import map_ahead
from tasks.data.duplicates.normalization import normalize_rows
from tasks.data.duplicates.text_digests import SameTexts
from tasks.data.quality.checks import (
    COPIES_LABELS,
    FIRST_COPY,
    LABEL_PRESENT,
    LABEL_ROWS,
    LABEL_SHARE,
    LABEL_UNKNOWN,
    Check,
    fact,
)
from tasks.data.quality.expectations import PLACE, Judge, Outcome, concerns_rows
from tasks.data.quality.personal_data import mask
from tasks.data.quality.row_facts import (
    Codes,
    Copies,
    LabelCounts,
    Places,
    SetCounts,
    unknown_labels,
)
from tasks.data.quality.text_facts import FACTS, text_facts
from tasks.data.tables.label_lists import is_list
from tasks.data.tables.loaded import FILE, LINE
from tasks.data.tables.quarantine import place_of, set_aside
from tasks.data.tables.row_store import RowStore

PHASES = 4
Facts = Callable[[pa.Table], "pa.Table | None"]
_FactsOf = Callable[[Places], "dict[str, pa.Array]"]


def phase_of(check: Check) -> int:
    """When a check is run: rows by themselves, copies among the rows that stay, classes among what then stays, the table at last."""
    if not concerns_rows(check):
        return 3
    column = check.kwargs.get("column")
    return (
        1
        if column in (FIRST_COPY, COPIES_LABELS)
        else 2
        if column in (LABEL_ROWS, LABEL_SHARE)
        else 0
    )


class Judged:
    """The rows, and what the checks so far have made of them.

    texts      names of the text columns;  label  the label column's, if there is one;  labels  those that are known
    own_facts  makes the problem's facts of some rows, a row each
    scratch    a file for what is known of the texts
    alive      (rows,) bool: not quarantined
    outcomes   of the checks so far
    """

    def __init__(
        self,
        rows: RowStore,
        texts: Sequence[str],
        label: str | None,
        labels: Sequence[str],
        script: str | None,
        own_facts: Facts,
        scratch: Path,
    ) -> None:
        self.rows = rows
        self.alive: Bools = np.ones(len(rows), bool)
        self.outcomes: list[Outcome] = []
        self._texts, self._label, self._labels, self._script, self._own_facts = (
            texts,
            label,
            labels,
            script,
            own_facts,
        )
        self._single = label is not None and not is_list(rows.schema.field(label))
        self._counts = LabelCounts(labels)
        self._missing: Bools = np.empty(len(rows), bool)  # no text
        self._copies = self._survey(SameTexts(scratch))

    def _survey(self, same: SameTexts) -> tuple[Codes, Codes]:
        """See every row's texts and labels; returns the rows whose text others have, and for each the first that has it."""
        for first, rows in self.rows.batches(
            [*self._texts, *([self._label] if self._label else [])]
        ):
            normalized = normalize_rows([rows[column] for column in self._texts])
            same.add(normalized)
            self._missing[first : first + len(rows)] = pc.is_null(normalized).to_numpy()
            if self._label is not None:
                self._counts.see(self._named(rows)[self._label])
        copies, originals = same.repeated()
        there = ~self._missing[copies]
        return copies[there], originals[there]

    def run(self, checks: Sequence[Check], phase: int) -> None:
        """Judge the rows that are alive; those that miss a check whose action is `quarantine` are not any more."""
        if not self.alive.any() or not checks:
            return
        theirs = [name for name in self.rows.column_names if name not in ("row", FILE, LINE)]
        labels = None if self._label is None else self._counts.codes
        counts = None if labels is None else self._counts.of(labels[self.alive])
        judge = Judge(
            checks, self._label_table(counts), self.rows.schema.empty_table().select(theirs)
        )
        for rows in self._batches(judge, self._facts_of(phase, labels, counts)):
            judge.see(rows)
        for outcome in judge.outcomes():
            self.outcomes.append(outcome)
            if outcome.check.action == "quarantine":
                self.alive[outcome.missed] = False

    def _batches(self, judge: Judge, facts: _FactsOf) -> Iterator[pa.Table]:
        """The rows that are alive, with what the checks may be about."""
        own = self._own_facts(self.rows.schema.empty_table())
        names = (
            [fact(column, name) for column in self._texts for name in FACTS]
            + (own.column_names if own else [])
            + [LABEL_UNKNOWN]
        )
        by_themselves = any(judge.mentions(name) for name in names)
        columns = (
            None
            if by_themselves
            else [
                "row",
                *(
                    name
                    for name in self.rows.column_names
                    if name != "row" and judge.mentions(name)
                ),
            ]
        )

        def prepare(batch: tuple[int, pa.Table]) -> pa.Table:
            first, rows = batch
            places = np.flatnonzero(self.alive[first : first + len(rows)])
            found = self._with_facts(rows) if by_themselves else self._named(rows)
            found = found.take(pa.array(places)) if len(places) < len(rows) else found
            places += first
            for name, values in facts(places).items():
                found = found.append_column(name, values)
            return found.append_column(PLACE, pa.array(places))

        # DuckDB finds the facts of one batch while Great Expectations, which is Python, judges the one before
        return (rows for rows in map_ahead(prepare, self.rows.batches(columns), 2) if len(rows))

    def _with_facts(self, rows: pa.Table) -> pa.Table:
        """The rows with what can be said of each by itself."""
        parts = [text_facts(rows, column, self._script) for column in self._texts]
        parts += [own for own in [self._own_facts(rows)] if own is not None]
        if self._label is not None and not self._single:
            parts.append(pa.table({LABEL_UNKNOWN: unknown_labels(rows[self._label], self._labels)}))
        rows = self._named(rows)
        for facts in parts:
            for name in facts.column_names:
                rows = rows.append_column(name, facts[name])
        return rows

    def _named(self, rows: pa.Table) -> pa.Table:
        """The rows, null where a label is blank."""
        label = self._label
        if label is None or label not in rows.column_names or not self._single:
            return rows
        blank = pc.equal(pc.utf8_trim_whitespace(rows[label]), "")
        return rows.set_column(
            rows.column_names.index(label),
            label,
            pc.if_else(blank, pa.scalar(None, rows[label].type), rows[label]),
        )

    def _facts_of(self, phase: int, labels: Codes | None, counts: SetCounts | None) -> _FactsOf:
        """What depends on which rows there are, of those of them that are at some places."""
        if phase == 1:
            copies = Copies(*self._copies, self.alive, labels)
            numbers = self.rows.take(copies.originals, ["row"])["row"].to_numpy()
            return lambda places: copies.facts(places, self._missing, numbers)
        if phase == 0 or labels is None or counts is None:
            return lambda places: {}
        return partial(self._label_facts, labels, counts, int(self.alive.sum()))

    def _label_facts(
        self, codes: Codes, counts: SetCounts, rows: int, places: Places
    ) -> dict[str, pa.Array]:
        some = pa.array(codes[places])  # where there is none -1 is, the last
        sets = pc.if_else(pc.less(some, 0), len(counts.rarest) - 1, some)
        share = pc.divide(pc.cast(counts.most_frequent.take(sets), pa.float64()), float(rows))
        return {LABEL_ROWS: counts.rarest.take(sets), LABEL_SHARE: share}

    def _label_table(self, counts: SetCounts | None) -> pa.Table:
        """The labels that rows have, known or not, and of those that are known the share of the rows."""
        if counts is None:
            return pa.table({})
        rows = int(self.alive.sum())
        shares = [
            count / rows if label in self._labels else None
            for label, count in counts.labels.items()
        ]
        return pa.table(
            {
                LABEL_PRESENT: pa.array([*counts.labels], pa.string()),
                LABEL_SHARE: pa.array(shares, pa.float64()),
            }
        )

    def quarantine(self) -> Iterator[dict[str, Any]]:
        """The rows that do not stay, in order."""
        return self.missing(
            [outcome for outcome in self.outcomes if outcome.check.action == "quarantine"]
        )

    def missing(self, outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
        """The rows that miss one of these checks, in order, with what is wrong with them."""
        for first, rows in (
            self.rows.batches() if any(len(outcome.missed) for outcome in outcomes) else ()
        ):
            missed: dict[int, list[Check]] = {}
            for outcome in outcomes:
                start, stop = np.searchsorted(outcome.missed, (first, first + len(rows)))
                for place in (outcome.missed[start:stop] - first).tolist():
                    missed.setdefault(place, []).append(outcome.check)
            reasons = [
                {"check": checks[0].name, "reason": "; ".join(check.says for check in checks)}
                for _, checks in sorted(missed.items())
            ]
            yield from set_aside(rows, sorted(missed), reasons)

    def examples(self, outcome: Outcome) -> list[dict[str, Any]]:
        """The first rows that miss a check: where they came from, what was found, and an excerpt, both masked."""
        columns = [
            name for name in self.rows.column_names if _concerns(outcome.check, name)
        ] or list(self._texts)
        rows = self.rows.take(np.array([*outcome.examples], np.int64)).to_pylist()
        excerpts = [
            " | ".join("(none)" if row[name] is None else str(row[name]) for name in columns)
            for row in rows
        ]
        return [
            place_of(row) | {"found": _plain(value), "excerpt": mask(excerpt)}
            for row, value, excerpt in zip(rows, outcome.examples.values(), excerpts, strict=True)
        ]


def _concerns(check: Check, column: str) -> bool:
    named = check.kwargs.get("column")
    return isinstance(named, str) and (named == column or named.startswith(f"{column}."))


def _plain(value: object) -> int | float | str | None:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value if isinstance(value, int | None) else mask(str(value))
