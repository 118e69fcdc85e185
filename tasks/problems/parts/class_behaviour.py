"""Behavioural tests of texts' classes, one or several a text (CheckList, Ribeiro et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Bools, Columns, Floats
from tasks.params.evaluation import Direction, check_behaviour
from tasks.scoring.behaviour import (
    BehaviourTest,
    by_column,
    invariance_rows,
    spread_rows,
)

if TYPE_CHECKING:
    from tasks.params.schema import EvaluateParams


@dataclass(frozen=True)
class ClassBehaviour:
    """What behavioural tests know of the classes of texts.

    text_columns   what is altered
    label_column   where a written case has its answer
    several        whether a row has a list of labels
    probabilities  outputs -> (n, c)
    decisions      outputs -> (n, c): which labels each row gets
    same           (outputs, outputs of the altered rows) -> (n,): the answer has stayed the same
    """

    text_columns: tuple[str, ...]
    label_column: str
    several: bool
    probabilities: Callable[[Floats], Floats]
    decisions: Callable[[Floats], Bools]
    same: Callable[[Floats, Floats], Bools]

    def tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        """See `Scorer.behaviour_tests`."""
        wanted = evaluate.behaviour
        check_behaviour(wanted, labels, self.text_columns)
        invariances = [
            BehaviourTest(altered.name, "invariance", altered.after, self._stays, altered.before)
            for altered in invariance_rows(rows, self.text_columns, wanted.names, wanted.rows, seed)
        ]
        texts = zip(*(rows[column] for column in self.text_columns), strict=True)
        chosen = spread_rows(texts, seed)[: wanted.rows]
        directions = [self._directional(entry, chosen, labels) for entry in wanted.directional]
        written = [
            self._written(cases.name, cases.label, cases.texts, labels)
            for cases in wanted.minimum_functionality
        ]
        return [*invariances, *directions, *written]

    def _stays(self, outputs: Floats, before: Floats | None) -> Bools:
        assert before is not None
        return self.same(outputs, before)

    def _directional(
        self, direction: Direction, rows: Sequence[tuple[str, ...]], labels: Sequence[str]
    ) -> BehaviourTest:
        label = labels.index(direction.label)
        sign = 1 if direction.expect == "not_lower" else -1
        after = [(*row[:-1], direction.prepend + row[-1] + direction.append) for row in rows]

        def passes(outputs: Floats, before: Floats | None) -> Bools:
            assert before is not None
            moved = self.probabilities(outputs)[:, label] - self.probabilities(before)[:, label]
            return np.asarray(sign * moved >= -direction.tolerance)

        return BehaviourTest(
            direction.name,
            "directional",
            by_column(self.text_columns, after),
            passes,
            by_column(self.text_columns, rows),
        )

    def _written(
        self, name: str, label: str, texts: Sequence[Any], labels: Sequence[str]
    ) -> BehaviourTest:
        rows = [(text,) if isinstance(text, str) else text for text in texts]
        answer: Any = [label] if self.several else label
        column = labels.index(label)

        def passes(outputs: Floats, _: Floats | None) -> Bools:
            return self.decisions(outputs)[:, column]

        written = {
            **by_column(self.text_columns, rows),
            self.label_column: [answer] * len(rows),
        }
        return BehaviourTest(name, "minimum-functionality", written, passes)
