"""Gates that hold the challenger against a fixed limit.

A limit on a measured quantity is broken only where the quantity's whole interval lies beyond it: the point from 98 rows decides
nothing. `promotion.min_value` is a demand, which the whole interval must meet. A limit that the champion breaks by as much does
not hold back a challenger that is shown to be better: the gate warns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tasks.lifecycle.evidence import Evidence, Gate, ModelEvidence, shown_better
from tasks.params.lifecycle import PromotionParams
from tasks.scoring.statistics.paired import holm, say_p
from tasks.scoring.statistics.rates import rate_interval, rate_p_value

KINDS = {
    "invariance": "invariance",
    "directional": "directional",
    "minimum-functionality": "minimum_functionality",
}


@dataclass(frozen=True)
class Measured:
    """A quantity and its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Mapping[str, float]) -> Measured:
        """Of a mapping with these keys, and perhaps others."""
        return cls(found["value"], found["low"], found["high"])

    def __str__(self) -> str:
        return (
            f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"
            if self.low < self.high
            else f"{self.value:.4g}"
        )


@dataclass(frozen=True)
class Limit:
    """A bound on a quantity of a model.

    what      the quantity, in words
    at_least  whether it is a lower bound
    demanded  whether the whole interval must meet it; else the whole interval must lie beyond it to break it
    """

    name: str
    what: str
    bound: float | None
    measure: Callable[[ModelEvidence], Measured | None]
    at_least: bool = False
    demanded: bool = False

    def judge(self, evidence: Evidence, params: PromotionParams) -> Gate:
        """The gate's verdict."""
        found = self.measure(evidence.challenger)
        if found is None or self.bound is None:
            return Gate(
                self.name,
                "not applicable",
                "nothing is asked" if self.bound is None else "nothing was measured",
            )
        sign = 1 if self.at_least else -1
        best, worst = (found.high, found.low) if self.at_least else (found.low, found.high)
        decisive = worst if self.demanded else best
        broken = sign * (decisive - self.bound) < 0
        side = "below" if self.at_least else "above"
        meets = sign * (found.value - self.bound) >= 0
        if broken:
            relation = (
                f"{side} {self.bound:g}"
                if not meets
                else f"not shown to be at {'least' if self.at_least else 'most'} {self.bound:g}"
            )
        else:
            relation = (
                f"at {'least' if self.at_least else 'most'} {self.bound:g}"
                if meets
                else f"not shown to be {side} {self.bound:g}"
            )
        numbers = {
            "found": found.value,
            "interval": [found.low, found.high],
            "least" if self.at_least else "most": self.bound,
        }
        gate = Gate(
            self.name, "failed" if broken else "passed", f"{self.what} {found}, {relation}", numbers
        )
        theirs = self.measure(evidence.champion) if evidence.champion else None
        as_much = theirs is not None and sign * (theirs.value - found.value) <= 0
        return excuse(gate, f"the champion has {theirs}", evidence, params) if as_much else gate


def excuse(gate: Gate, why: str, evidence: Evidence, params: PromotionParams) -> Gate:
    """A failed gate that the champion fails by as much (`why`) warns where the challenger is shown to be better than it."""
    if gate.status != "failed" or not shown_better(evidence, params):
        return gate
    return Gate(
        gate.name,
        "warned",
        f"{gate.reason}; {why}, and this version is shown to be better",
        gate.numbers,
    )


def judge_data(evidence: Evidence) -> Gate:
    """Its data passed every check whose action is error."""
    report = evidence.challenger.reports.get("validation")
    if report is None:
        return Gate("data validation", "failed", "the version's run has no validation report")
    wrong = [
        check["name"]
        for check in report["checks"]
        if check["action"] == "error" and not check["success"]
    ]
    account = report.get(
        "account", {"held": report["rows_in"], "losses": []}
    )  # versions of before have none
    numbers = {
        "held": account["held"],
        "rows_in": report["rows_in"],
        "rows_out": report["rows_out"],
        "failed": wrong,
    }
    if wrong:
        return Gate("data validation", "failed", f"failed checks: {', '.join(wrong)}", numbers)
    aside = "".join(
        f"; {loss['rows']} set aside: {loss['reason']}" for loss in account["losses"][:3]
    )
    passed = f"{report['rows_out']} of {account['held']} rows passed {len(report['checks'])} checks{aside}"
    return Gate("data validation", "passed", passed, numbers)


def judge_answers(evidence: Evidence) -> Gate:
    """A model of one answer never passes, whatever its metric."""
    if evidence.only_answer:
        return Gate(
            "more than one answer",
            "failed",
            f"it says {evidence.only_answer} to each of {evidence.rows} test rows",
        )
    return Gate("more than one answer", "passed", "its answers differ from row to row")


def judge_plain(evidence: Evidence, params: PromotionParams) -> Gate:
    """Not shown to be worse than the plain method, by its run's own paired interval."""
    name, report = "plain method", evidence.challenger.reports.get("evaluation")
    if report is None:
        return Gate(name, "failed", "the version's run has no evaluation report")
    plain = report["baseline"]
    if plain is None:
        return Gate(
            name,
            "not applicable",
            "its evaluation has no plain method beside it (evaluate.baseline)",
        )
    found = Measured.of(plain["difference"])
    metric = plain["difference"]["metric"]
    relation = (
        "shown to be worse"
        if found.high < 0
        else "shown to be better"
        if found.low > 0
        else "not shown to be worse"
    )
    words = f"{metric} {found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f}) against {plain['name']}: {relation}"
    gate = Gate(
        name,
        "failed" if found.high < 0 else "passed",
        words,
        {"difference": found.value, "interval": [found.low, found.high]},
    )
    theirs = (
        evidence.champion.reports.get("evaluation", {}).get("baseline")
        if evidence.champion
        else None
    )
    if theirs is None or theirs["difference"]["value"] > found.value:
        return gate
    return excuse(gate, f"the champion had {theirs['difference']['value']:+.4f}", evidence, params)


def judge_behaviour(evidence: Evidence, params: PromotionParams) -> Gate:
    """No behavioural test's pass rate is shown to be below what its kind must reach (binomial, Holm over all tests)."""
    report = evidence.challenger.reports.get("evaluation")
    if report is None:
        return Gate("behaviour", "failed", "the version's run has no evaluation report")
    if not report["behaviour"]:
        return Gate("behaviour", "not applicable", "its problem type has no behavioural tests")
    varied = {test["kind"] for test in report["behaviour"] if not test.get("one_answer")}
    counted = [test for test in report["behaviour"] if test["kind"] in varied]
    if not counted:
        return Gate(
            "behaviour",
            "not applicable",
            "it gives one answer to all of their rows, so that passing them shows nothing",
        )
    least = [getattr(params.min_pass_rates, KINDS[test["kind"]]) for test in counted]
    asked = [(test, rate) for test, rate in zip(counted, least, strict=True) if rate is not None]
    p_values = holm([rate_p_value(test["passed"], test["rows"], rate) for test, rate in asked])
    wrong = [
        (test, rate, p)
        for (test, rate), p in zip(asked, p_values, strict=True)
        if p < params.significance
    ]
    rates = {test["name"]: test["pass_rate"] for test in counted}
    lowest = min(rates, key=rates.__getitem__)
    words = [
        f"{test['name']} {test['pass_rate']:.1%} of {test['rows']}, wanted {rate:.0%}, p {say_p(p)}"
        for test, rate, p in wrong
    ]
    void = sorted({test["kind"] for test in report["behaviour"]} - varied)
    note = (
        f"; one answer to all rows of {' and '.join(void)} tests, which count for nothing"
        if void
        else ""
    )
    reason = (
        "; ".join(words) or f"{len(counted)} tests, lowest pass rate {rates[lowest]:.1%} ({lowest})"
    ) + note
    gate = Gate(
        "behaviour",
        "failed" if wrong else "passed",
        reason,
        {"pass_rates": rates, "not_counted": void},
    )
    theirs = _champions_rates(evidence)
    as_much = all(theirs.get(test["name"], 1.0) <= test["pass_rate"] for test, _, _ in wrong)
    return (
        excuse(gate, "the champion passes no more of them", evidence, params) if as_much else gate
    )


def judge_limits(evidence: Evidence, params: PromotionParams) -> dict[str, Gate]:
    """The gates with a single limit each, by name."""
    limits = (
        Limit(
            "minimum value",
            evidence.metric,
            params.min_value,
            lambda model: _metric(model, evidence.metric),
            at_least=True,
            demanded=True,
        ),
        Limit(
            "calibration", "calibration error", params.max_ece, lambda model: _metric(model, "ece")
        ),
        Limit(
            "latency",
            "p95 of one row in ms",
            params.max_latency_ms_p95,
            lambda model: _speed(model, "latency_ms_p95"),
        ),
        Limit(
            "throughput",
            "rows a second",
            params.min_throughput,
            lambda model: _speed(model, "throughput"),
            at_least=True,
        ),
        Limit("size", "megabytes", params.max_size_mb, _megabytes),
    )
    return {limit.name: limit.judge(evidence, params) for limit in limits}


def judge_parity(evidence: Evidence, params: PromotionParams) -> Gate:
    """What ships answers as its checkpoint does."""
    report = evidence.challenger.reports.get("verification")
    if report is None and params.min_agreement is not None:
        return Gate("parity", "failed", "the version's run has no verification report")
    what = f"agreement of {report['shipped'] if report else 'what ships'} with its checkpoint"
    return Limit("parity", what, params.min_agreement, _agreement, at_least=True).judge(
        evidence, params
    )


def judge_latency_ratio(evidence: Evidence, params: PromotionParams) -> Gate:
    """Not shown to be slower than the champion by more than is allowed, side by side."""
    pair = evidence.comparison
    found = Measured(pair["latency_p95_ratio"], *pair["latency_p95_ratio_range"]) if pair else None
    limit = Limit(
        "latency ratio",
        "p95 over the champion's, side by side",
        params.max_latency_ratio,
        lambda model: found,
    )
    return limit.judge(
        replace(evidence, champion=None), params
    )  # it is a relation to the champion, which has none to itself


def judge_lineage(evidence: Evidence, params: PromotionParams) -> Gate:
    """Somebody else could make it again."""
    if not evidence.lineage:
        return Gate(
            "lineage", "passed", "commit, data and base model are known, and a remote has the data"
        )
    return Gate(
        "lineage",
        "failed" if params.strict_lineage else "warned",
        "; ".join(evidence.lineage),
        {"missing": list(evidence.lineage)},
    )


def judge_rolled_back(evidence: Evidence) -> Gate:
    """What was taken back does not return by itself."""
    if evidence.rolled_back:
        return Gate(
            "not rolled back",
            "failed",
            "it was champion and was rolled back; only --force brings it back",
        )
    return Gate("not rolled back", "passed", "it was never rolled back")


def _metric(model: ModelEvidence, name: str) -> Measured | None:
    found = model.measured["metrics"].get(name)
    return None if found is None else Measured.of(found)


def _agreement(model: ModelEvidence) -> Measured | None:
    report: Any = model.reports.get("verification")
    if report is None:
        return None
    shipped = next(entry for entry in report["candidates"] if entry["recipe"] == report["shipped"])
    return Measured(
        shipped["agreement"], *rate_interval(shipped["agreement"], report["rows"]["validation"])
    )


def _speed(model: ModelEvidence, name: str) -> Measured:
    return Measured(model.measured[name], *model.measured[f"{name}_range"])


def _megabytes(model: ModelEvidence) -> Measured:
    size = model.measured["size_bytes"] / 1e6
    return Measured(size, size, size)


def _champions_rates(evidence: Evidence) -> dict[str, float]:
    report = evidence.champion.reports.get("evaluation") if evidence.champion else None
    return {test["name"]: test["pass_rate"] for test in report["behaviour"]} if report else {}
