"""What a promotion is judged by, and the form of a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.params.lifecycle import PromotionParams
from tasks.scoring.statistics.alpha_spending import level_of_look
from tasks.scoring.statistics.paired import Difference, PairedDifference, error_under, say_p

Status = Literal["passed", "failed", "warned", "not applicable"]


@dataclass(frozen=True)
class Gate:
    """One verdict; `reason` is for people, `numbers` for programs."""

    name: str
    status: Status
    reason: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelEvidence:
    """What is known of one model by itself.

    measured  of tasks.comparison.describe_model, on the present test rows
    reports   its own run's validation, evaluation and verification reports; those that its run lacks are missing
    """

    measured: Mapping[str, Any]
    reports: Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """All that a promotion is judged by.

    metric       the problem's
    champion     None without one
    comparison   of tasks.comparison.compare_scored, challenger against champion; None without one
    chance       the challenger against what a model that learnt nothing scores; None where there is a champion, which passed that
    only_answer  what the challenger says to every test row, in words; empty where it says more than one thing
    high_water   the challenger against the best champion so far; None without one
    mark_gone    why there is none although a champion before was better, in words
    rows         of the test set
    look         1 for test rows that never judged
    lineage      what is wrong with where it came from, in words
    rolled_back  whether it was champion and was taken back
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
    """The challenger against the champion; there must be one."""
    assert evidence.comparison is not None
    apart = evidence.comparison["mcnemar"]
    difference = Difference(**evidence.comparison["metrics"][evidence.metric])
    return PairedDifference("the champion", difference, apart["only_first"] + apart["only_second"])


def lower_bound(
    pair: PairedDifference, above: float, evidence: Evidence, params: PromotionParams
) -> float:
    """What the difference exceeds, at the level that is left for this look, tested against `above`."""
    level = level_of_look(params.significance, evidence.look)
    return pair.difference.lower_bound(
        level, error_under(above, pair.discordant_rows, evidence.rows)
    )


def shown_better(evidence: Evidence, params: PromotionParams) -> bool:
    """Whether the challenger is shown to be better than the champion."""
    return (
        evidence.comparison is not None
        and lower_bound(to_champion(evidence), 0.0, evidence, params) > 0
    )


def bounded(
    name: str, pair: PairedDifference, above: float, evidence: Evidence, params: PromotionParams
) -> Gate:
    """Passes if the lower bound of the difference is above `above`."""
    difference, level, bound = (
        pair.difference, level_of_look(params.significance, evidence.look), lower_bound(pair, above, evidence, params)
    )  # fmt: skip
    numbers = {
        "challenger": difference.first, "other": difference.second, "difference": difference.value, "lower_bound": bound,
        "interval": [difference.low, difference.high], "p_value": difference.p_value,
        "wanted_above": above, "level": level, "look": evidence.look,
    }  # fmt: skip
    relation = "above" if bound > above else "not above"
    words = (
        f"{evidence.metric} {difference.first:.4f} against {difference.second:.4f} of {pair.against}: {difference.value:+.4f}, "
        f"lower bound {bound:+.4f} {relation} {above:+.4f} (p {say_p(difference.p_value)}, look {evidence.look}, level {level:.4f})"
    )
    return Gate(name, "passed" if bound > above else "failed", words, numbers)
