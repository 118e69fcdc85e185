"""Rows on their way through the checks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.core.checks import COPIES_LABELS, FIRST_COPY, LABEL_PRESENT, LABEL_ROWS, LABEL_SHARE, LABEL_UNKNOWN, Check
from tasks.core.expectations import Outcome, concerns_rows, judge
from tasks.core.label_lists import is_list
from tasks.core.normalization import normalize_rows
from tasks.core.personal_data import mask
from tasks.core.quarantine import place_of, set_aside
from tasks.core.row_facts import duplicate_of, label_lists, labels_of_text, rows_of_label, text_codes
from tasks.core.text_facts import text_facts

EXAMPLES = 20  # rows of a check that the report shows
_ALIKE = 4  # of them with the same value; a message names three
PHASES = 4


def phase_of(check: Check) -> int:
    """When a check is run: rows by themselves, copies among the rows that stay, classes among what then stays, the table at last."""
    if not concerns_rows(check):
        return 3
    column = check.kwargs.get("column")
    return 1 if column in (FIRST_COPY, COPIES_LABELS) else 2 if column in (LABEL_ROWS, LABEL_SHARE) else 0


class Judged:
    """The rows, and what the checks so far have made of them.

    texts      names of the text columns;  label  the label column's, if there is one;  labels  those that are known
    own_facts  the problem's, a row each
    alive      (rows,) bool: not quarantined
    outcomes   of the checks so far; their rows are places in `rows`
    """

    def __init__(
        self, rows: pa.Table, texts: Sequence[str], label: str | None, labels: Sequence[str], script: str | None,
        own_facts: pa.Table | None = None,
    ) -> None:  # fmt: skip
        self.rows = rows
        self.alive: npt.NDArray[np.bool_] = np.ones(len(rows), bool)
        self.outcomes: list[Outcome] = []
        self._texts, self._label, self._labels = texts, label, labels
        self._found: dict[str, dict[int, Any]] = {}  # a check's name -> some places that miss it, and the value judged
        self._reasons: dict[int, list[Check]] = {}
        self._facts = rows
        for column in texts:
            self._facts = _beside(self._facts, text_facts(rows, column, script))
        if own_facts is not None:
            self._facts = _beside(self._facts, own_facts)
        self._single = label is not None and not is_list(rows[label])
        if label is not None and self._single:  # a blank label is a missing one
            blank = pc.equal(pc.utf8_trim_whitespace(rows[label]), "")
            named = pc.if_else(blank, pa.scalar(None, rows[label].type), rows[label])
            self._facts = self._facts.set_column(rows.column_names.index(label), label, named)
        elif label is not None:
            unknown = pa.array(label_lists(rows[label], labels).unknown, pa.string())
            self._facts = self._facts.append_column(LABEL_UNKNOWN, unknown)
        self._codes = text_codes(normalize_rows([rows[column] for column in texts]))

    def run(self, checks: Sequence[Check], phase: int) -> None:
        """Judge the rows that are alive; those that miss a check whose action is `quarantine` are not any more."""
        alive = np.flatnonzero(self.alive)
        if not len(alive) or not checks:
            return
        facts = self._facts if len(alive) == len(self.rows) else self._facts.take(pa.array(alive))
        facts = self._with_facts_of(phase, facts, alive)
        for outcome in judge(facts, checks):
            found = replace(outcome, missed=alive[outcome.missed].tolist())
            column = outcome.check.kwargs.get("column")
            if column in facts.column_names:
                self._found[found.check.name] = _varied(found.missed, facts[column].take(pa.array(outcome.missed, pa.int64())))
            self.outcomes.append(found)
            if found.check.action == "quarantine":
                for place in found.missed:
                    self._reasons.setdefault(place, []).append(found.check)
                self.alive[found.missed] = False

    def _with_facts_of(self, phase: int, facts: pa.Table, alive: npt.NDArray[np.int64]) -> pa.Table:
        """The rows with facts that depend on which rows there are."""
        if phase == 1:
            codes = self._codes.take(pa.array(alive))
            facts = facts.append_column(FIRST_COPY, duplicate_of(codes, facts["row"]))
            if self._label is not None:
                labels = facts[self._label]
                joined = labels if self._single else pa.chunked_array([pa.array(label_lists(labels, self._labels).labels, pa.string())])
                facts = facts.append_column(COPIES_LABELS, labels_of_text(codes, joined))
        elif phase > 1 and self._label is not None:
            facts = self._with_counts(facts, self._label)
        return facts

    def _with_counts(self, facts: pa.Table, label: str) -> pa.Table:
        """The rows with how many have their labels."""
        if self._single:
            counts = most = rows_of_label(facts[label], self._labels)
        else:
            found = label_lists(facts[label], self._labels)
            counts, most = pa.array(found.rows, pa.int64()), pa.array(found.most_rows, pa.int64())
            present = [*found.present, *[None] * len(facts)][: len(facts)]
            facts = facts.append_column(LABEL_PRESENT, pa.array(present, pa.string()))
        shares = pc.divide(pc.cast(most, pa.float64()), float(len(facts)))
        return facts.append_column(LABEL_ROWS, counts).append_column(LABEL_SHARE, shares)

    def quarantine(self) -> list[dict[str, Any]]:
        """The rows that do not stay, in order."""
        missed = [checks for _, checks in sorted(self._reasons.items())]
        reasons = [{"check": checks[0].name, "reason": "; ".join(check.says for check in checks)} for checks in missed]
        return set_aside(self.rows, sorted(self._reasons), reasons)

    def examples(self, outcome: Outcome) -> list[dict[str, Any]]:
        """The first rows that miss a check: where they came from, what was found, and an excerpt, both masked."""
        columns = [name for name in self.rows.column_names if _concerns(outcome.check, name)] or list(self._texts)
        found = self._found.get(outcome.check.name) or dict.fromkeys(outcome.missed[:EXAMPLES])
        places = list(found)
        rows = self.rows.take(pa.array(places, pa.int64())).to_pylist()
        excerpts = [" | ".join("(none)" if row[name] is None else str(row[name]) for name in columns) for row in rows]
        return [
            place_of(row) | {"found": _plain(value), "excerpt": mask(excerpt)}
            for row, value, excerpt in zip(rows, found.values(), excerpts, strict=True)
        ]


def _beside(rows: pa.Table, facts: pa.Table) -> pa.Table:
    for name in facts.column_names:
        rows = rows.append_column(name, facts[name])
    return rows


def _concerns(check: Check, column: str) -> bool:
    named = check.kwargs.get("column")
    return isinstance(named, str) and (named == column or named.startswith(f"{column}."))


def _varied(places: Sequence[int], values: pa.ChunkedArray) -> dict[int, Any]:
    """Up to EXAMPLES places and their values, the first few of each value."""
    seen: Counter[int | None] = Counter()
    chosen: dict[int, Any] = {}
    if pa.types.is_nested(values.type):
        values = pa.chunked_array([pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())])
    codes = values.combine_chunks().dictionary_encode()
    for place, code in zip(places, codes.indices.to_pylist(), strict=True):
        seen[code] += 1
        if seen[code] <= _ALIKE:
            chosen[place] = None if code is None else codes.dictionary[code].as_py()
            if len(chosen) == EXAMPLES:
                break
    return chosen


def _plain(value: object) -> int | float | str | None:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value if isinstance(value, int | None) else mask(str(value))
