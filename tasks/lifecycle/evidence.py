"""The evidence that a promotion is judged by, and the gate's verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.params.lifecycle import PromotionParams
from tasks.reports.stage_reports import EvaluationReport, ValidationReport, VerificationReport
from tasks.scoring.statistics.alpha_spending import level_of_look
from tasks.scoring.statistics.paired import (
    Difference,
    PairedDifference,
    format_p_value,
    null_standard_error,
)

Status = Literal["passed", "failed", "warned", "not applicable"]


@dataclass(frozen=True)
class Gate:
    """One gate's verdict; `reason` is for people, `numbers` for programs."""

    name: str
    status: Status
    reason: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunReports:
    """A version's reports; None: its run has none."""

    validation: ValidationReport | None = None
    evaluation: EvaluationReport | None = None
    verification: VerificationReport | None = None


@dataclass(frozen=True)
class ModelEvidence:
    """What is known of one model by itself.

    measured  result of tasks.comparison.describe_model on the present test rows
    """

    measured: Mapping[str, Any]
    reports: RunReports


@dataclass(frozen=True)
class Evidence:
    """Everything that a promotion is judged by.

    metric       the problem's main metric
    champion     None without one
    comparison   result of tasks.comparison.compare_scored, challenger against champion; None
                 without one
    chance       the challenger against a model that learnt nothing; None if there is a champion,
                 which passed that test already
    only_answer  the challenger's answer, in words, if it gives the same one to every test row
    high_water   the challenger against the best champion so far; None without one
    mark_gone    why `high_water` is None although an earlier champion was better, in words
    rows         number of test rows
    look         number of this look at the test rows; 1 if they never judged before
    lineage      gaps in the version's lineage, in words
    rolled_back  whether the version was champion and was rolled back
    """

    metric: str
    challenger: ModelEvidence
    champion: ModelEvidence | None
    comparison: Mapping[str, Any] | None
    chance: PairedDifference | None
    only_answer: str
    high_water: PairedDifference | None
    mark_gone: str
    rows: int
    look: int
    lineage: Sequence[str]
    rolled_back: bool


def to_champion(evidence: Evidence) -> PairedDifference:
    """The challenger against the champion, which must exist."""
    assert evidence.comparison is not None
    mcnemar = evidence.comparison["mcnemar"]
    difference = Difference(**evidence.comparison["metrics"][evidence.metric])
    discordant_rows = mcnemar["only_first"] + mcnemar["only_second"]
    return PairedDifference("the champion", difference, discordant_rows)


def lower_bound(
    pair: PairedDifference, above: float, evidence: Evidence, params: PromotionParams
) -> float:
    """Lower bound of the difference, tested against `above`, at the level left for this look."""
    level = level_of_look(params.significance, evidence.look)
    return pair.difference.lower_bound(level, _least_error(pair, above, evidence))


def _least_error(pair: PairedDifference, above: float, evidence: Evidence) -> float:
    return null_standard_error(above, pair.discordant_rows, evidence.rows)


def shown_better(evidence: Evidence, params: PromotionParams) -> bool:
    """Whether the challenger is shown to be better than the champion."""
    return (
        evidence.comparison is not None
        and lower_bound(to_champion(evidence), 0.0, evidence, params) > 0
    )


def bounded(
    name: str, pair: PairedDifference, above: float, evidence: Evidence, params: PromotionParams
) -> Gate:
    """Pass if the lower bound of the difference is above `above`.

    The p-value in the reason is of that test; in `numbers`, `p_value` is of no difference at all.
    """
    difference = pair.difference
    level = level_of_look(params.significance, evidence.look)
    bound = lower_bound(pair, above, evidence, params)
    p_above = difference.p_above(above, _least_error(pair, above, evidence))
    numbers = {
        "challenger": difference.first, "other": difference.second,
        "difference": difference.value, "lower_bound": bound,
        "interval": [difference.low, difference.high], "p_value": difference.p_value,
        "wanted_above": above, "p_above": p_above, "level": level, "look": evidence.look,
    }  # fmt: skip
    relation = "above" if bound > above else "not above"
    reason = (
        f"{evidence.metric} {difference.first:.4f} against {difference.second:.4f} "
        f"of {pair.against}: {difference.value:+z.4f}, lower bound {bound:+z.4f} "
        f"{relation} {above:+z.4f} "
        f"(p {format_p_value(p_above)}, look {evidence.look}, level {level:.4f})"
    )
    return Gate(name, "passed" if bound > above else "failed", reason, numbers)
