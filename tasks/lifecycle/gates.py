"""The gates between a challenger and production: passed, failed, warned or not applicable.

Absolute gates apply to the first version too: the first champion must beat chance and must not be
shown to be worse than the plain method. Against a champion the question is non-inferiority: the
lower bound of the paired difference must be above -margin, at the level that alpha_spending.py
leaves for this look. All gates must pass, so their levels need no correction for their number
(intersection-union test, Berger 1982). docs/gates.md has their error rates.
"""

from __future__ import annotations

from tasks.lifecycle.absolute_gates import (
    judge_answers,
    judge_behaviour,
    judge_data,
    judge_latency_ratio,
    judge_limits,
    judge_lineage,
    judge_parity,
    judge_plain,
    judge_rolled_back,
)
from tasks.lifecycle.evidence import Evidence, Gate, bounded
from tasks.lifecycle.relative_gates import (
    judge_forgetting,
    judge_high_water,
    judge_improvement,
    judge_non_inferiority,
)
from tasks.params.lifecycle import PromotionParams


def judge(evidence: Evidence, params: PromotionParams) -> list[Gate]:
    """The verdicts of all gates, in a fixed order."""
    limits = judge_limits(evidence, params)
    return [
        judge_data(evidence),
        judge_answers(evidence),
        judge_chance(evidence, params),
        judge_plain(evidence, params),
        limits["minimum value"],
        judge_non_inferiority(evidence, params),
        judge_improvement(evidence, params),
        judge_high_water(evidence, params),
        judge_forgetting(evidence, params),
        judge_parity(evidence, params),
        limits["calibration"],
        limits["latency"],
        judge_latency_ratio(evidence, params),
        limits["throughput"],
        limits["size"],
        judge_behaviour(evidence, params),
        judge_lineage(evidence, params),
        judge_rolled_back(evidence),
    ]


def judge_chance(evidence: Evidence, params: PromotionParams) -> Gate:
    """Pass if a first champion is shown to be better than a model that learnt nothing."""
    if evidence.chance is None:
        reason = (
            "it is compared with the champion"
            if evidence.comparison
            else "its problem type is compared with the base model"
        )
        return Gate("better than chance", "not applicable", reason)
    return bounded("better than chance", evidence.chance, 0.0, evidence, params)
