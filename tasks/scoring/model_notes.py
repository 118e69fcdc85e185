"""Caveats that a user must know before trusting a model's metrics."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.reports.stage_reports import BaselineReport, Interval

WIDE = 0.1  # width of the metric's interval above which the test rows are too few


def model_notes(
    metric: str,
    metrics: Mapping[str, Interval],
    rows: int,
    baseline: BaselineReport | None,
    only_answer: str,
) -> list[str]:
    """Caveats of one evaluation, the gravest first; none if it is precise and beats the baseline.

    metric       the problem's main metric, one of `metrics`
    rows         number of test rows
    only_answer  see tasks.scoring.statistics.chance
    """
    interval = metrics[metric]
    notes = []
    if only_answer:
        notes.append(f"Predicts one class only: {only_answer} for each of {rows} test rows.")
    if baseline:
        notes += _against_baseline(baseline)
    if interval["high"] - interval["low"] > WIDE:
        notes.append(
            f"{rows} test rows: intervals are wide ({metric} {interval['value']:.3f} "
            f"is {interval['low']:.3f} to {interval['high']:.3f})."
        )
    return notes


def _against_baseline(baseline: BaselineReport) -> list[str]:
    difference = baseline.difference
    low, high = difference.low, difference.high
    numbers = (
        f"{difference.metric} {difference.value:+z.3f}, "
        f"{low:+z.3f} to {high:+z.3f} on the same rows"
    )
    if high < 0:
        return [f"Worse than {baseline.name} ({numbers})."]
    if low <= 0:
        return [f"No better than {baseline.name}, as far as the test rows can show ({numbers})."]
    return []
