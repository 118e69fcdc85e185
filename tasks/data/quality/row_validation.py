"""Runs the checks on the rows batch by batch, keeping only a few numbers per row in memory."""

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
from tasks.data.quality.expectations import PLACE, CheckRunner, Outcome, concerns_rows
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
    """The phase a check runs in; each phase sees only the rows that survived the ones before.

    0: each row by itself; 1: copies of a text; 2: class sizes; 3: the table as a whole.
    """
    if not concerns_rows(check):
        return 3
    column = check.kwargs.get("column")
    if column in (FIRST_COPY, COPIES_LABELS):
        return 1
    return 2 if column in (LABEL_ROWS, LABEL_SHARE) else 0


class CheckedRows:
    """The rows, and the results of the checks run so far.

    texts      names of the text columns
    label      name of the label column, if there is one
    labels     the known labels
    script     expected Unicode script of the texts, if any
    own_facts  computes the problem's facts for some rows, one row each
    scratch    file for the texts' digests
    alive      (rows,) bool: not quarantined
    outcomes   of the checks run so far
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
        self._texts, self._label, self._labels = texts, label, labels
        self._script, self._own_facts = script, own_facts
        self._single_label = label is not None and not is_list(rows.schema.field(label))
        self._counts = LabelCounts(labels)
        self._missing: Bools = np.empty(len(rows), bool)  # no text
        self._copies = self._survey(SameTexts(scratch))

    def _survey(self, same_texts: SameTexts) -> tuple[Codes, Codes]:
        """Read all texts and labels; return the rows with a repeated text, and its first row."""
        columns = [*self._texts, *([self._label] if self._label else [])]
        for first, rows in self.rows.batches(columns):
            normalized = normalize_rows([rows[column] for column in self._texts])
            same_texts.add(normalized)
            self._missing[first : first + len(rows)] = pc.is_null(normalized).to_numpy()
            if self._label is not None:
                self._counts.see(self._blank_labels_as_null(rows)[self._label])
        copies, originals = same_texts.repeated()
        has_text = ~self._missing[copies]
        return copies[has_text], originals[has_text]

    def run(self, checks: Sequence[Check], phase: int) -> None:
        """Run checks on the alive rows; those that fail a `quarantine` check are alive no more."""
        if not self.alive.any() or not checks:
            return
        user_columns = [name for name in self.rows.column_names if name not in ("row", FILE, LINE)]
        labels = None if self._label is None else self._counts.codes
        counts = None if labels is None else self._counts.of(labels[self.alive])
        columns = self.rows.schema.empty_table().select(user_columns)
        judge = CheckRunner(checks, self._label_table(counts), columns)
        for rows in self._batches(judge, self._facts_of(phase, labels, counts)):
            judge.see(rows)
        for outcome in judge.outcomes():
            self.outcomes.append(outcome)
            if outcome.check.action == "quarantine":
                self.alive[outcome.missed] = False

    def _batches(self, judge: CheckRunner, facts: _FactsOf) -> Iterator[pa.Table]:
        """The alive rows, with every column and fact that the checks may read."""
        own_facts = self._own_facts(self.rows.schema.empty_table())
        row_facts = [fact(column, name) for column in self._texts for name in FACTS]
        row_facts += [*(own_facts.column_names if own_facts is not None else []), LABEL_UNKNOWN]
        needs_row_facts = any(judge.mentions(name) for name in row_facts)
        others = [name for name in self.rows.column_names if name != "row" and judge.mentions(name)]

        def prepare(batch: tuple[int, pa.Table]) -> pa.Table:
            first, rows = batch
            places = np.flatnonzero(self.alive[first : first + len(rows)])
            table = self._with_facts(rows) if needs_row_facts else self._blank_labels_as_null(rows)
            table = table.take(pa.array(places)) if len(places) < len(rows) else table
            places += first
            for name, values in facts(places).items():
                table = table.append_column(name, values)
            return table.append_column(PLACE, pa.array(places))

        # DuckDB computes the facts of one batch while Great Expectations judges the one before
        columns = None if needs_row_facts else ["row", *others]
        return (rows for rows in map_ahead(prepare, self.rows.batches(columns), 2) if len(rows))

    def _with_facts(self, rows: pa.Table) -> pa.Table:
        """The rows with the facts that depend on each row alone."""
        tables = [text_facts(rows, column, self._script) for column in self._texts]
        own_facts = self._own_facts(rows)
        if own_facts is not None:
            tables.append(own_facts)
        if self._label is not None and not self._single_label:
            unknown = unknown_labels(rows[self._label], self._labels)
            tables.append(pa.table({LABEL_UNKNOWN: unknown}))
        rows = self._blank_labels_as_null(rows)
        for facts in tables:
            for name in facts.column_names:
                rows = rows.append_column(name, facts[name])
        return rows

    def _blank_labels_as_null(self, rows: pa.Table) -> pa.Table:
        label = self._label
        if label is None or label not in rows.column_names or not self._single_label:
            return rows
        blank = pc.equal(pc.utf8_trim_whitespace(rows[label]), "")
        labels = pc.if_else(blank, pa.scalar(None, rows[label].type), rows[label])
        return rows.set_column(rows.column_names.index(label), label, labels)

    def _facts_of(self, phase: int, labels: Codes | None, counts: SetCounts | None) -> _FactsOf:
        """Facts about selected rows that depend on the rows that remain."""
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
        selected = pa.array(codes[places])
        # the last entry of the counts is for rows without labels
        sets = pc.if_else(pc.less(selected, 0), len(counts.rarest) - 1, selected)
        share = pc.divide(pc.cast(counts.most_frequent.take(sets), pa.float64()), float(rows))
        return {LABEL_ROWS: counts.rarest.take(sets), LABEL_SHARE: share}

    def _label_table(self, counts: SetCounts | None) -> pa.Table:
        """One row per label that occurs, known or not; only known ones have a share of the rows."""
        if counts is None:
            return pa.table({})
        rows = int(self.alive.sum())
        shares = [
            count / rows if label in self._labels else None
            for label, count in counts.labels.items()
        ]
        present = pa.array([*counts.labels], pa.string())
        return pa.table({LABEL_PRESENT: present, LABEL_SHARE: pa.array(shares, pa.float64())})

    def quarantine(self) -> Iterator[dict[str, Any]]:
        """Entries for the quarantined rows, in order."""
        return self.missing(
            [outcome for outcome in self.outcomes if outcome.check.action == "quarantine"]
        )

    def missing(self, outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
        """Entries for the rows that fail any of these checks, in order, with what is wrong."""
        if not any(len(outcome.missed) for outcome in outcomes):
            return
        for first, rows in self.rows.batches():
            failed_checks: dict[int, list[Check]] = {}
            for outcome in outcomes:
                start, stop = np.searchsorted(outcome.missed, (first, first + len(rows)))
                for row_index in (outcome.missed[start:stop] - first).tolist():
                    failed_checks.setdefault(row_index, []).append(outcome.check)
            reasons = [
                {"check": checks[0].name, "reason": "; ".join(check.says for check in checks)}
                for _, checks in sorted(failed_checks.items())
            ]
            yield from set_aside(rows, sorted(failed_checks), reasons)

    def examples(self, outcome: Outcome) -> list[dict[str, Any]]:
        """The first rows that fail a check: origin, value judged and excerpt, both masked."""
        names = [name for name in self.rows.column_names if _concerns(outcome.check, name)]
        columns = names or list(self._texts)
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
