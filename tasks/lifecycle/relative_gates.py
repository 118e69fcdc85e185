"""Gates that hold the challenger against the champion, or against the best champion so far, on the same test rows."""

from __future__ import annotations

from tasks.lifecycle.evidence import Evidence, Gate, bounded, to_champion
from tasks.params.lifecycle import PromotionParams
from tasks.scoring.statistics.paired import say_p

NO_CHAMPION = "there is no champion yet"


def judge_non_inferiority(evidence: Evidence, params: PromotionParams) -> Gate:
    """Not worse than the champion by the margin."""
    if evidence.comparison is None:
        return Gate("non-inferiority", "not applicable", NO_CHAMPION)
    return bounded("non-inferiority", to_champion(evidence), -params.margin, evidence, params)


def judge_improvement(evidence: Evidence, params: PromotionParams) -> Gate:
    """Better than the champion, where that is asked for."""
    if params.min_improvement is None or evidence.comparison is None:
        reason = (
            "promotion.min_improvement is null" if params.min_improvement is None else NO_CHAMPION
        )
        return Gate("improvement", "not applicable", reason)
    return bounded("improvement", to_champion(evidence), params.min_improvement, evidence, params)


def judge_high_water(evidence: Evidence, params: PromotionParams) -> Gate:
    """The margin must hold against the best champion so far too, or small losses would add up from promotion to promotion."""
    if evidence.mark_gone:
        return Gate("high-water mark", "warned", evidence.mark_gone)
    if evidence.high_water is None:
        return Gate(
            "high-water mark", "not applicable", "no champion before the present one was better"
        )
    return bounded("high-water mark", evidence.high_water, -params.margin, evidence, params)


def judge_forgetting(evidence: Evidence, params: PromotionParams) -> Gate:
    """No slice and no old class may fall by more than its allowance, where the fall is more than chance (Holm over all of them)."""
    if evidence.comparison is None:
        return Gate("forgetting", "not applicable", NO_CHAMPION)
    judged = [part for part in evidence.comparison["slices"] if part["judged"]]
    fallen = []
    for part in judged:
        name = f"{part['column']}={part['value']}"
        allowance = params.slice_falls.get(name, params.max_slice_fall)
        if (
            -part["difference"]["value"] > allowance
            and part["fall_p_adjusted"] < params.significance
        ):
            fallen.append(
                {
                    "slice": name,
                    "rows": part["rows"],
                    "allowance": allowance,
                    "p": part["fall_p_adjusted"],
                    **part["difference"],
                }
            )
    numbers = {"fallen": fallen, "judged": len(judged)}
    if fallen:
        words = [
            f"{f['slice']} ({f['rows']} rows) {f['value']:+.3f}, allowed -{f['allowance']:g}, corrected p {say_p(f['p'])}"
            for f in fallen
        ]
        return Gate("forgetting", "failed", "; ".join(words), numbers)
    worst = min(judged, key=lambda part: float(part["difference"]["value"]), default=None)
    note = (
        f"; lowest {worst['column']}={worst['value']} {worst['difference']['value']:+.3f}"
        if worst
        else ""
    )
    return Gate(
        "forgetting",
        "passed",
        f"no fall beyond its allowance in {len(judged)} slices{note}",
        numbers,
    )
