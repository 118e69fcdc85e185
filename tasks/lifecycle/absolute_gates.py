"""Gates that judge the challenger by itself, against fixed limits.

A limit on a measured quantity is broken only if the whole interval lies beyond it: a point estimate
from 98 rows decides nothing. `promotion.min_value` is a demand: the whole interval must meet it.
If the champion breaks a limit by at least as much, and the challenger is shown to be better, the
gate only warns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tasks.lifecycle.evidence import Evidence, Gate, ModelEvidence, shown_better
from tasks.params.lifecycle import PromotionParams
from tasks.scoring.statistics.paired import format_p_value, holm
from tasks.scoring.statistics.rates import rate_interval, rate_p_value

KINDS = {
    "invariance": "invariance",
    "directional": "directional",
    "minimum-functionality": "minimum_functionality",
}


@dataclass(frozen=True)
class Measured:
    """A measured quantity with its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, interval: Mapping[str, float]) -> Measured:
        """From a mapping with the keys value, low and high; others are ignored."""
        return cls(interval["value"], interval["low"], interval["high"])

    def __str__(self) -> str:
        interval = f" ({self.low:.4g} to {self.high:.4g})" if self.low < self.high else ""
        return f"{self.value:.4g}{interval}"


@dataclass(frozen=True)
class Limit:
    """A bound on a measured quantity of a model.

    what      the quantity, in words
    at_least  whether `bound` is a lower bound
    demanded  whether the whole interval must meet the bound; otherwise only an interval that lies
              entirely beyond it breaks it
    """

    name: str
    what: str
    bound: float | None
    measure: Callable[[ModelEvidence], Measured | None]
    at_least: bool = False
    demanded: bool = False

    def judge(self, evidence: Evidence, params: PromotionParams) -> Gate:
        """The gate's verdict."""
        measured = self.measure(evidence.challenger)
        if self.bound is None:
            return Gate(self.name, "not applicable", "no limit is set")
        if measured is None:
            return Gate(self.name, "not applicable", "nothing was measured")
        low, high = measured.low, measured.high
        if self.at_least:
            sign, best, worst, met, beyond = 1, high, low, "at least", "below"
        else:
            sign, best, worst, met, beyond = -1, low, high, "at most", "above"
        broken = sign * ((worst if self.demanded else best) - self.bound) < 0
        meets = sign * (measured.value - self.bound) >= 0
        relation = met if meets else f"not shown to be {beyond}"
        if broken:
            relation = f"not shown to be {met}" if meets else beyond
        numbers = {
            "found": measured.value,
            "interval": [low, high],
            "least" if self.at_least else "most": self.bound,
        }
        reason = f"{self.what} {measured}, {relation} {self.bound:g}"
        gate = Gate(self.name, "failed" if broken else "passed", reason, numbers)
        champion = self.measure(evidence.champion) if evidence.champion else None
        as_much = champion is not None and sign * (champion.value - measured.value) <= 0
        return excuse(gate, f"the champion has {champion}", evidence, params) if as_much else gate


def excuse(gate: Gate, why: str, evidence: Evidence, params: PromotionParams) -> Gate:
    """Turn a failure into a warning if the challenger is shown to be better than the champion.

    why  how the champion fails the gate by at least as much
    """
    if gate.status != "failed" or not shown_better(evidence, params):
        return gate
    reason = f"{gate.reason}; {why}, and this version is shown to be better"
    return Gate(gate.name, "warned", reason, gate.numbers)


def judge_data(evidence: Evidence) -> Gate:
    """Pass if the training data passed every check whose action is error."""
    report = evidence.challenger.reports.validation
    if report is None:
        return Gate(
            "data validation", "failed", "the version's run has no readable validation report"
        )
    failed = [check.name for check in report.failed]
    account = report.account or {"held": report.rows_in, "losses": []}
    numbers = {
        "held": account["held"],
        "rows_in": report.rows_in,
        "rows_out": report.rows_out,
        "failed": failed,
    }
    if failed:
        return Gate("data validation", "failed", f"failed checks: {', '.join(failed)}", numbers)
    losses = (f"; {loss['rows']} set aside: {loss['reason']}" for loss in account["losses"][:3])
    reason = (
        f"{report.rows_out} of {account['held']} rows passed {len(report.checks)} checks"
        f"{''.join(losses)}"
    )
    return Gate("data validation", "passed", reason, numbers)


def judge_answers(evidence: Evidence) -> Gate:
    """Fail a model that gives the same answer to every row, whatever its metric."""
    name = "more than one answer"
    if evidence.only_answer:
        reason = f"it answers {evidence.only_answer} to all {evidence.rows} test rows"
        return Gate(name, "failed", reason)
    return Gate(name, "passed", "its answers differ from row to row")


def judge_plain(evidence: Evidence, params: PromotionParams) -> Gate:
    """Fail if shown to be worse than the plain method, by the run's own paired interval."""
    name, report = "plain method", evidence.challenger.reports.evaluation
    if report is None:
        return Gate(name, "failed", "the version's run has no readable evaluation report")
    plain = report.baseline
    if plain is None:
        reason = "its evaluation did not run the plain method (evaluate.baseline)"
        return Gate(name, "not applicable", reason)
    difference = plain.difference
    value, low, high = difference.value, difference.low, difference.high
    relation = "not shown to be worse"
    if high < 0:
        relation = "shown to be worse"
    elif low > 0:
        relation = "shown to be better"
    reason = (
        f"{difference.metric} {value:+z.4f} ({low:+z.4f} to {high:+z.4f}) "
        f"against {plain.name}: {relation}"
    )
    numbers = {"difference": value, "interval": [low, high]}
    gate = Gate(name, "failed" if high < 0 else "passed", reason, numbers)
    champion = evidence.champion.reports.evaluation if evidence.champion else None
    baseline = champion.baseline if champion else None
    if baseline is None or baseline.difference.value > value:
        return gate
    why = f"the champion had {baseline.difference.value:+z.4f}"
    return excuse(gate, why, evidence, params)


def judge_behaviour(evidence: Evidence, params: PromotionParams) -> Gate:
    """Fail if a behavioural test's pass rate is shown to be below the minimum of its kind.

    Binomial tests, Holm-corrected over all behavioural tests.
    """
    report = evidence.challenger.reports.evaluation
    if report is None:
        return Gate("behaviour", "failed", "the version's run has no readable evaluation report")
    tests = report.behaviour
    if not tests:
        return Gate("behaviour", "not applicable", "its problem type has no behavioural tests")
    varied = {test.kind for test in tests if not test.one_answer}
    counted = [test for test in tests if test.kind in varied]
    if not counted:
        reason = "it gives one answer to all rows of the tests, so passing them shows nothing"
        return Gate("behaviour", "not applicable", reason)
    minimums = [getattr(params.min_pass_rates, KINDS[test.kind]) for test in counted]
    limited = [
        (test, minimum)
        for test, minimum in zip(counted, minimums, strict=True)
        if minimum is not None
    ]
    p_values = holm([rate_p_value(test.passed, test.rows, minimum) for test, minimum in limited])
    failed = [
        (test, minimum, p)
        for (test, minimum), p in zip(limited, p_values, strict=True)
        if p < params.significance
    ]
    rates = {test.name: test.pass_rate for test in counted}
    lowest = min(rates, key=rates.__getitem__)
    failures = [
        f"{test.name} {test.pass_rate:.1%} of {test.rows}, "
        f"wanted {minimum:.0%}, p {format_p_value(p)}"
        for test, minimum, p in failed
    ]
    summary = f"{len(counted)} tests, lowest pass rate {rates[lowest]:.1%} ({lowest})"
    reason = "; ".join(failures) or summary
    not_counted = sorted({test.kind for test in tests} - varied)
    if not_counted:
        kinds = " and ".join(not_counted)
        reason += f"; one answer to all rows of {kinds} tests, which count for nothing"
    numbers = {"pass_rates": rates, "not_counted": not_counted}
    gate = Gate("behaviour", "failed" if failed else "passed", reason, numbers)
    champions = _champions_rates(evidence)
    if any(champions.get(test.name, 1.0) > test.pass_rate for test, _, _ in failed):
        return gate
    return excuse(gate, "the champion passes no more of them", evidence, params)


def judge_limits(evidence: Evidence, params: PromotionParams) -> dict[str, Gate]:
    """The gates that have a single limit, by name."""
    limits = (
        Limit(
            "minimum value", evidence.metric, params.min_value,
            lambda model: _metric(model, evidence.metric), at_least=True, demanded=True,
        ),
        Limit(
            "calibration", "calibration error", params.max_ece,
            lambda model: _metric(model, "ece"),
        ),
        Limit(
            "latency", "p95 of one row in ms", params.max_latency_ms_p95,
            lambda model: _speed(model, "latency_ms_p95"),
        ),
        Limit(
            "throughput", "rows per second", params.min_throughput,
            lambda model: _speed(model, "throughput"), at_least=True,
        ),
        Limit("size", "megabytes", params.max_size_mb, _megabytes),
    )  # fmt: skip
    return {limit.name: limit.judge(evidence, params) for limit in limits}


def judge_parity(evidence: Evidence, params: PromotionParams) -> Gate:
    """Fail if the shipped model is shown to agree too rarely with its checkpoint."""
    report = evidence.challenger.reports.verification
    if report is None and params.min_agreement is not None:
        return Gate("parity", "failed", "the version's run has no readable verification report")
    shipped = report.shipped if report else "the shipped model"
    what = f"agreement of {shipped} with its checkpoint"
    limit = Limit("parity", what, params.min_agreement, _agreement, at_least=True)
    return limit.judge(evidence, params)


def judge_latency_ratio(evidence: Evidence, params: PromotionParams) -> Gate:
    """Fail if shown to be slower than the champion by more than allowed, timed side by side."""
    pair = evidence.comparison
    ratio = Measured(pair["latency_p95_ratio"], *pair["latency_p95_ratio_range"]) if pair else None
    what = "p95 over the champion's, side by side"
    limit = Limit("latency ratio", what, params.max_latency_ratio, lambda model: ratio)
    # without the champion: it has no ratio to itself that could excuse the challenger
    return limit.judge(replace(evidence, champion=None), params)


def judge_lineage(evidence: Evidence, params: PromotionParams) -> Gate:
    """Pass if somebody else could reproduce the version."""
    if not evidence.lineage:
        reason = "commit, data and base model are known, and a remote has the data"
        return Gate("lineage", "passed", reason)
    return Gate(
        "lineage",
        "failed" if params.strict_lineage else "warned",
        "; ".join(evidence.lineage),
        {"missing": list(evidence.lineage)},
    )


def judge_rolled_back(evidence: Evidence) -> Gate:
    """A version that was rolled back never returns by itself."""
    name = "not rolled back"
    if evidence.rolled_back:
        reason = "it was champion and was rolled back; only --force brings it back"
        return Gate(name, "failed", reason)
    return Gate(name, "passed", "it was never rolled back")


def _metric(model: ModelEvidence, name: str) -> Measured | None:
    interval = model.measured["metrics"].get(name)
    return None if interval is None else Measured.of(interval)


def _agreement(model: ModelEvidence) -> Measured | None:
    report = model.reports.verification
    agreement = report.shipped_candidate.agreement if report else None
    rows = report.rows.get("validation") if report else None
    if agreement is None or rows is None:
        return None
    return Measured(agreement, *rate_interval(agreement, rows))


def _speed(model: ModelEvidence, name: str) -> Measured:
    return Measured(model.measured[name], *model.measured[f"{name}_range"])


def _megabytes(model: ModelEvidence) -> Measured:
    size = model.measured["size_bytes"] / 1e6
    return Measured(size, size, size)


def _champions_rates(evidence: Evidence) -> dict[str, float]:
    report = evidence.champion.reports.evaluation if evidence.champion else None
    return {test.name: test.pass_rate for test in report.behaviour} if report else {}
