"""The model's most confident errors on the test rows, for people to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.data.tables.label_lists import several
from tasks.data.tables.loaded import FILE, LINE
from tasks.reports.stage_reports import ErrorReport

if TYPE_CHECKING:
    from tasks.evaluation import ScoredTest

MOST, MOST_PER_LABEL = 30, 3
_MOST_TEXT = 300  # characters kept of a text


def worst_errors(scored: ScoredTest, slices: Sequence[str]) -> list[ErrorReport]:
    """At most MOST errors, MOST_PER_LABEL of each actual label, the most confident first.

    slices  columns whose values are shown beside
    None for a problem without labels, whose rows are not simply right or wrong.
    """
    row_format, decoding, rows = scored.problem.rows, scored.problem.decoding, scored.rows
    label_column = row_format.label_column
    if label_column is None:
        return []
    right = scored.problem.scoring.correct(scored.outputs, scored.test.references)
    wrong = np.flatnonzero(~np.asarray(right)).tolist()
    chosen = {name: [values[i] for i in wrong] for name, values in rows.items()}
    predictions = decoding.decode(
        scored.test.outputs[wrong], chosen, scored.labels, scored.calibration
    )
    errors = [
        ErrorReport(
            texts={name: str(chosen[name][i])[:_MOST_TEXT] for name in row_format.text_columns},
            actual=", ".join(several(chosen[label_column][i])) or "none",
            predicted=decoding.describe(prediction).strip(),
            confidence=prediction.get("score"),
            slices={name: str(chosen[name][i]) for name in slices if name in chosen},
            file=str(chosen[FILE][i]) if FILE in chosen else "",
            line=int(chosen[LINE][i] or 0) if LINE in chosen else 0,
        )
        for i, prediction in enumerate(predictions)
    ]
    # the same for any order of the rows
    errors.sort(key=lambda error: (-(error.confidence or 0.0), *error.texts.values()))
    return _spread(errors)


def _spread(errors: Sequence[ErrorReport]) -> list[ErrorReport]:
    """The first errors, few of each label, so that one bad label does not hide the others."""
    count: Counter[str] = Counter()
    kept: list[ErrorReport] = []
    for error in errors:
        if count[error.actual] < MOST_PER_LABEL and len(kept) < MOST:
            count[error.actual] += 1
            kept.append(error)
    return kept
