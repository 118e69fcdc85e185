"""The metrics that params.yaml names, checked before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.errors import ParamsError, did_you_mean

if TYPE_CHECKING:
    from tasks.scoring.scorer import Scorer


def promotion_metric(scoring: Scorer, wanted: str | None) -> str:
    """`promotion.metric`, or the type's own; ParamsError unless higher is better."""
    if wanted is None:
        return scoring.metric
    known = [name for name, sign in scoring.metric_signs.items() if sign > 0]
    if wanted not in known:
        raise ParamsError(
            f"promotion.metric: '{wanted}' cannot be the promotion metric."
            f"{did_you_mean(wanted, known)}",
            f"Metrics where higher is better: {', '.join(known)}.",
        )
    return wanted


def validation_metric(scoring: Scorer, wanted: str | None) -> str:
    """`finetune.early_stopping_metric`, or the type's own; ParamsError if it has no such metric."""
    name = wanted or scoring.metric
    if name not in scoring.metric_signs:
        raise ParamsError(
            f"finetune.early_stopping_metric: unknown metric '{name}'."
            f"{did_you_mean(name, scoring.metric_signs)}",
            f"Known: {', '.join(scoring.metric_signs)}.",
        )
    return name
