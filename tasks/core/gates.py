"""The gates between a challenger and production: each passed, failed, warned of or not applicable, with its numbers.

What is asked of the challenger alone holds for the first version too. Against a champion the question is non-inferiority: the lower
bound of the paired difference must be above -margin, at the level that looks.py leaves for this look. All gates must pass, so none of
their levels needs correcting for their number (intersection-union test, Berger 1982).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.core.lifecycle_params import PromotionParams
from tasks.core.looks import level_of_look
from tasks.core.paired import Difference, error_under, say_p

Status = Literal["passed", "failed", "warned", "not applicable"]
KINDS = {"invariance": "invariance", "directional": "directional", "minimum-functionality": "minimum_functionality"}


@dataclass(frozen=True)
class Gate:
    """One verdict; `reason` is for people, `numbers` for programs."""

    name: str
    status: Status
    reason: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """All that a promotion is judged by.

    metric      the problem's
    challenger  of tasks.comparison.describe_model
    comparison  of tasks.comparison.compare_scored, challenger against champion; None without one
    high_water  the best champion so far, the challenger's difference of the metric to it on the same rows, and on how many of them
                only one of the two is right; None without one
    mark_gone   why there is none although a champion before was better, in words
    rows        of the test set
    look        1 for test rows that never judged
    reports     the challenger's validation, evaluation and verification reports; those that its run lacks are missing
    lineage     what is wrong with where it came from, in words
    rolled_back whether it was champion and was taken back
    """

    metric: str
    challenger: Mapping[str, Any]
    comparison: Mapping[str, Any] | None
    high_water: tuple[str, Difference, int] | None
    mark_gone: str
    rows: int
    look: int
    reports: Mapping[str, Any]
    lineage: Sequence[str]
    rolled_back: bool


def judge(evidence: Evidence, params: PromotionParams) -> list[Gate]:
    """Every gate's verdict, in a fixed order."""
    return [
        _data(evidence),
        _minimum(evidence, params),
        _non_inferiority(evidence, params),
        _improvement(evidence, params),
        _high_water(evidence, params),
        _slices(evidence, params),
        _parity(evidence, params),
        _calibration(evidence, params),
        *_speed_and_size(evidence, params),
        _behaviour(evidence, params),
        _lineage(evidence, params),
        _not_rolled_back(evidence),
    ]


def _data(evidence: Evidence) -> Gate:
    report = evidence.reports.get("validation")
    if report is None:
        return Gate("data validation", "failed", "the version's run has no validation report")
    wrong = [check["name"] for check in report["checks"] if check["action"] == "error" and not check["success"]]
    numbers = {"rows_in": report["rows_in"], "rows_out": report["rows_out"], "failed": wrong}
    if wrong:
        return Gate("data validation", "failed", f"failed checks: {', '.join(wrong)}", numbers)
    return Gate(
        "data validation", "passed", f"{report['rows_out']} of {report['rows_in']} rows passed {len(report['checks'])} checks", numbers
    )


def _minimum(evidence: Evidence, params: PromotionParams) -> Gate:
    value = evidence.challenger["metrics"][evidence.metric]["value"]
    return _at_least("minimum value", evidence.metric, value, params.min_value)


def _non_inferiority(evidence: Evidence, params: PromotionParams) -> Gate:
    if evidence.comparison is None:
        return Gate("non-inferiority", "not applicable", "there is no champion yet")
    return _bounded("non-inferiority", _against_champion(evidence), -params.margin, evidence, params)


def _improvement(evidence: Evidence, params: PromotionParams) -> Gate:
    if params.min_improvement is None or evidence.comparison is None:
        reason = "promotion.min_improvement is null" if params.min_improvement is None else "there is no champion yet"
        return Gate("improvement", "not applicable", reason)
    return _bounded("improvement", _against_champion(evidence), params.min_improvement, evidence, params)


def _high_water(evidence: Evidence, params: PromotionParams) -> Gate:
    """The margin must hold against the best champion so far too, or small losses would add up from promotion to promotion."""
    if evidence.mark_gone:
        return Gate("high-water mark", "warned", evidence.mark_gone)
    if evidence.high_water is None:
        return Gate("high-water mark", "not applicable", "no champion before the present one was better")
    return _bounded("high-water mark", evidence.high_water, -params.margin, evidence, params)


def _against_champion(evidence: Evidence) -> tuple[str, Difference, int]:
    assert evidence.comparison is not None
    apart = evidence.comparison["mcnemar"]
    difference = Difference(**evidence.comparison["metrics"][evidence.metric])
    return "the champion", difference, apart["only_first"] + apart["only_second"]


def _bounded(name: str, pair: tuple[str, Difference, int], above: float, evidence: Evidence, params: PromotionParams) -> Gate:
    against, difference, discordant_rows = pair
    level = level_of_look(params.significance, evidence.look)
    bound = difference.lower_bound(level, error_under(above, discordant_rows, evidence.rows))
    numbers = {
        "challenger": difference.first, "other": difference.second, "difference": difference.value, "lower_bound": bound,
        "interval": [difference.low, difference.high], "p_value": difference.p_value,
        "wanted_above": above, "level": level, "look": evidence.look,
    }  # fmt: skip
    relation = "above" if bound > above else "not above"
    words = (
        f"{evidence.metric} {difference.first:.4f} against {difference.second:.4f} of {against}: {difference.value:+.4f}, "
        f"lower bound {bound:+.4f} {relation} {above:+.4f} (p {say_p(difference.p_value)}, look {evidence.look}, level {level:.4f})"
    )
    return Gate(name, "passed" if bound > above else "failed", words, numbers)


def _slices(evidence: Evidence, params: PromotionParams) -> Gate:
    """No slice and no old class may fall by more than its allowance, where the fall is more than chance (Holm over all of them)."""
    if evidence.comparison is None:
        return Gate("forgetting", "not applicable", "there is no champion yet")
    judged = [part for part in evidence.comparison["slices"] if part["judged"]]
    fallen = []
    for part in judged:
        name = f"{part['column']}={part['value']}"
        allowance = params.slice_falls.get(name, params.max_slice_fall)
        if -part["difference"]["value"] > allowance and part["fall_p_adjusted"] < params.significance:
            fallen.append({"slice": name, "rows": part["rows"], "allowance": allowance, "p": part["fall_p_adjusted"], **part["difference"]})
    if fallen:
        words = [
            f"{f['slice']} ({f['rows']} rows) {f['value']:+.3f}, allowed -{f['allowance']:g}, corrected p {say_p(f['p'])}" for f in fallen
        ]
        return Gate("forgetting", "failed", "; ".join(words), {"fallen": fallen, "judged": len(judged)})
    worst = min(judged, key=lambda part: float(part["difference"]["value"]), default=None)
    note = f"; lowest {worst['column']}={worst['value']} {worst['difference']['value']:+.3f}" if worst else ""
    return Gate(
        "forgetting", "passed", f"no fall beyond its allowance in {len(judged)} slices{note}", {"fallen": [], "judged": len(judged)}
    )


def _parity(evidence: Evidence, params: PromotionParams) -> Gate:
    report = evidence.reports.get("verification")
    if params.min_agreement is None:
        return Gate("parity", "not applicable", "promotion.min_agreement is null")
    if report is None:
        return Gate("parity", "failed", "the version's run has no verification report")
    shipped = next(entry for entry in report["candidates"] if entry["recipe"] == report["shipped"])
    return _at_least("parity", f"agreement of {report['shipped']} with its checkpoint", shipped["agreement"], params.min_agreement)


def _calibration(evidence: Evidence, params: PromotionParams) -> Gate:
    found = evidence.challenger["metrics"].get("ece")
    return _at_most("calibration", "calibration error", found and found["value"], params.max_ece)


def _speed_and_size(evidence: Evidence, params: PromotionParams) -> list[Gate]:
    mine = evidence.challenger
    ratio = evidence.comparison["latency_p95_ratio"] if evidence.comparison else None
    return [
        _at_most("latency", "p95 of one row in ms", mine["latency_ms_p95"], params.max_latency_ms_p95),
        _at_most("latency ratio", "p95 over the champion's, side by side", ratio, params.max_latency_ratio),
        _at_least("throughput", "rows a second", mine["throughput"], params.min_throughput),
        _at_most("size", "megabytes", mine["size_bytes"] / 1e6, params.max_size_mb),
    ]


def _behaviour(evidence: Evidence, params: PromotionParams) -> Gate:
    report = evidence.reports.get("evaluation")
    if report is None:
        return Gate("behaviour", "failed", "the version's run has no evaluation report")
    if not report["behaviour"]:
        return Gate("behaviour", "not applicable", "its problem type has no behavioural tests")
    wrong, rates = [], {}
    for test in report["behaviour"]:
        least = getattr(params.min_pass_rates, KINDS[test["kind"]])
        rates[test["name"]] = test["pass_rate"]
        if test["kind"] == "invariance" and test["rows"] < params.min_slice_rows:
            continue  # made of so few test rows that the rate says nothing
        if least is not None and test["pass_rate"] < least:
            wrong.append(f"{test['name']} {test['pass_rate']:.1%}, wanted {least:.0%}")
    lowest = min(rates, key=rates.__getitem__)
    reason = "; ".join(wrong) or f"{len(rates)} tests, lowest pass rate {rates[lowest]:.1%} ({lowest})"
    return Gate("behaviour", "failed" if wrong else "passed", reason, {"pass_rates": rates})


def _lineage(evidence: Evidence, params: PromotionParams) -> Gate:
    if not evidence.lineage:
        return Gate("lineage", "passed", "commit, data and base model are known, and a remote has the data")
    return Gate(
        "lineage", "failed" if params.strict_lineage else "warned", "; ".join(evidence.lineage), {"missing": list(evidence.lineage)}
    )


def _not_rolled_back(evidence: Evidence) -> Gate:
    if evidence.rolled_back:
        return Gate("not rolled back", "failed", "it was champion and was rolled back; only --force brings it back")
    return Gate("not rolled back", "passed", "it was never rolled back")


def _at_least(name: str, what: str, found: float | None, least: float | None) -> Gate:
    if found is None or least is None:
        return Gate(name, "not applicable", "nothing is asked" if least is None else "nothing to hold it against")
    passed = found >= least
    relation = "at least" if passed else "below"
    return Gate(name, "passed" if passed else "failed", f"{what} {found:.4g}, {relation} {least:g}", {"found": found, "least": least})


def _at_most(name: str, what: str, found: float | None, most: float | None) -> Gate:
    if found is None or most is None:
        return Gate(name, "not applicable", "nothing is asked" if most is None else "nothing to hold it against")
    passed = found <= most
    relation = "at most" if passed else "above"
    return Gate(name, "passed" if passed else "failed", f"{what} {found:.4g}, {relation} {most:g}", {"found": found, "most": most})
