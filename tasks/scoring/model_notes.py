"""What a user must hear of a model before its numbers are believed, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIDE = 0.1  # of an interval of the problem's metric, from which on the test rows are called few


def model_notes(evaluation: Mapping[str, Any], only_answer: str) -> list[str]:
    """Sentences about one evaluation, the gravest first; none for a model that is well measured and better than the plain method.

    only_answer  of tasks.scoring.statistics.chance
    """
    metric, rows = evaluation["metric"], evaluation["rows"]
    found = evaluation["metrics"][metric]
    notes = []
    if only_answer:
        notes.append(f"Predicts one class only: {only_answer} for each of {rows} test rows.")
    if plain := evaluation["baseline"]:
        notes += _against_plain(plain, metric)
    if found["high"] - found["low"] > WIDE:
        notes.append(
            f"{rows} test rows: intervals are wide ({metric} {found['value']:.3f} is {found['low']:.3f} to {found['high']:.3f})."
        )
    return notes


def _against_plain(plain: Mapping[str, Any], metric: str) -> list[str]:
    apart = plain["difference"]
    numbers = f"{metric} {apart['value']:+.3f}, {apart['low']:+.3f} to {apart['high']:+.3f} on the same rows"
    if apart["high"] < 0:
        return [f"Worse than {plain['name']} ({numbers})."]
    if apart["low"] <= 0:
        return [f"No better than {plain['name']}, as far as the test rows can show ({numbers})."]
    return []
