"""Gates that compare the challenger with the champion, or the best one so far, on the same rows."""

from __future__ import annotations

from tasks.lifecycle.evidence import Evidence, Gate, bounded, to_champion
from tasks.params.lifecycle import PromotionParams
from tasks.scoring.statistics.paired import format_p_value

NO_CHAMPION = "there is no champion yet"


def judge_non_inferiority(evidence: Evidence, params: PromotionParams) -> Gate:
    """Fail unless the challenger is shown not to be worse than the champion by the margin."""
    if evidence.comparison is None:
        return Gate("non-inferiority", "not applicable", NO_CHAMPION)
    return bounded("non-inferiority", to_champion(evidence), -params.margin, evidence, params)


def judge_improvement(evidence: Evidence, params: PromotionParams) -> Gate:
    """Fail unless the challenger beats the champion by `min_improvement`, where that is set."""
    if params.min_improvement is None:
        return Gate("improvement", "not applicable", "promotion.min_improvement is null")
    if evidence.comparison is None:
        return Gate("improvement", "not applicable", NO_CHAMPION)
    return bounded("improvement", to_champion(evidence), params.min_improvement, evidence, params)


def judge_high_water(evidence: Evidence, params: PromotionParams) -> Gate:
    """Non-inferiority to the best champion so far, or small losses would add up over promotions."""
    name = "high-water mark"
    if evidence.mark_gone:
        return Gate(name, "warned", evidence.mark_gone)
    if evidence.high_water is None:
        return Gate(name, "not applicable", "no earlier champion was better than the present one")
    return bounded(name, evidence.high_water, -params.margin, evidence, params)


def judge_forgetting(evidence: Evidence, params: PromotionParams) -> Gate:
    """Fail if a slice or an old class falls beyond its allowance, by more than chance.

    The p-values are Holm-corrected over all of them.
    """
    if evidence.comparison is None:
        return Gate("forgetting", "not applicable", NO_CHAMPION)
    judged = [entry for entry in evidence.comparison["slices"] if entry["judged"]]
    fallen = []
    for entry in judged:
        name = f"{entry['column']}={entry['value']}"
        rows, p, difference = entry["rows"], entry["fall_p_adjusted"], entry["difference"]
        allowance = params.slice_falls.get(name, params.max_slice_fall)
        if -difference["value"] > allowance and p < params.significance:
            fall = {"slice": name, "rows": rows, "allowance": allowance, "p": p}
            fallen.append({**fall, **difference})
    numbers = {"fallen": fallen, "judged": len(judged)}
    if fallen:
        falls = [
            f"{fall['slice']} ({fall['rows']} rows) {fall['value']:+z.3f}, "
            f"allowed -{fall['allowance']:g}, corrected p {format_p_value(fall['p'])}"
            for fall in fallen
        ]
        return Gate("forgetting", "failed", "; ".join(falls), numbers)
    reason = f"no fall beyond its allowance in {len(judged)} slices"
    if judged:
        worst = min(judged, key=lambda entry: float(entry["difference"]["value"]))
        name, value = f"{worst['column']}={worst['value']}", worst["difference"]["value"]
        reason += f"; lowest {name} {value:+z.3f}"
    return Gate("forgetting", "passed", reason, numbers)
