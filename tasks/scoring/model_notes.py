"""Caveats that a user must know before trusting a model's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIDE = 0.1  # width of the metric's interval above which the test rows are too few


def model_notes(evaluation: Mapping[str, Any], only_answer: str) -> list[str]:
    """Caveats of one evaluation, the gravest first; none if it is precise and beats the baseline.

    only_answer  see tasks.scoring.statistics.chance
    """
    metric, rows = evaluation["metric"], evaluation["rows"]
    interval = evaluation["metrics"][metric]
    notes = []
    if only_answer:
        notes.append(f"Predicts one class only: {only_answer} for each of {rows} test rows.")
    if baseline := evaluation["baseline"]:
        notes += _against_baseline(baseline, metric)
    if interval["high"] - interval["low"] > WIDE:
        notes.append(
            f"{rows} test rows: intervals are wide ({metric} {interval['value']:.3f} "
            f"is {interval['low']:.3f} to {interval['high']:.3f})."
        )
    return notes


def _against_baseline(baseline: Mapping[str, Any], metric: str) -> list[str]:
    name, difference = baseline["name"], baseline["difference"]
    low, high = difference["low"], difference["high"]
    numbers = f"{metric} {difference['value']:+.3f}, {low:+.3f} to {high:+.3f} on the same rows"
    if high < 0:
        return [f"Worse than {name} ({numbers})."]
    if low <= 0:
        return [f"No better than {name}, as far as the test rows can show ({numbers})."]
    return []
