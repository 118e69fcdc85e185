"""Each gate passes and fails what it should, and says when it does not apply."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from made_reports import CHECK, baseline, behaviour, evaluation, validation, verification

from tasks.lifecycle.evidence import Evidence, Gate, ModelEvidence, RunReports
from tasks.lifecycle.gates import judge
from tasks.params.lifecycle import PromotionParams
from tasks.reports.stage_reports import EvaluationReport
from tasks.scoring.statistics.alpha_spending import level_of_look
from tasks.scoring.statistics.paired import Difference, PairedDifference


def difference(value: float, error: float = 0.004) -> Difference:
    return Difference(0.8 + value, 0.8, value, value - 2 * error, value + 2 * error, 0.5, error)


def part(
    value: float, p: float, name: str = "domain=tweets", rows: int = 500, judged: bool = True
) -> dict[str, Any]:
    column, _, slice_value = name.partition("=")
    return {
        "column": column,
        "value": slice_value,
        "rows": rows,
        "judged": judged,
        "difference": asdict(difference(value)),
        "fall_p_adjusted": p,
    }


def model(**changes: Any) -> ModelEvidence:
    """Evidence on a good model; `changes` replace measured values or whole reports."""
    measured = {
        "metrics": {
            "macro_f1": {"value": 0.8, "low": 0.78, "high": 0.82},
            "ece": {"value": 0.03, "low": 0.02, "high": 0.05},
        },
        "latency_ms_p95": 4.0,
        "latency_ms_p95_range": [3.8, 4.4],
        "throughput": 300.0,
        "throughput_range": [280.0, 310.0],
        "size_bytes": 23_000_000,
    }
    reports: dict[str, Any] = {
        "validation": validation(),
        "verification": verification(0.99, 1000),
        "evaluation": evaluation(
            behaviour=[behaviour(225, 250)], baseline=baseline(0.1, 0.08, 0.12)
        ),
    }
    reports |= {name: changes.pop(name) for name in list(changes) if name in reports}
    return ModelEvidence(measured | changes, RunReports(**reports))


def evidence(**changes: Any) -> Evidence:
    """Evidence on a challenger that passes every gate and equals the champion."""
    usual = Evidence(
        metric="macro_f1",
        challenger=model(),
        champion=model(),
        comparison=comparison(),
        chance=None,
        only_answer="",
        high_water=None,
        mark_gone="",
        rows=2000,
        look=1,
        lineage=(),
        rolled_back=False,
    )
    return replace(usual, **changes)


def against(
    value: float, error: float = 0.004, apart: int = 40, other: str = "another"
) -> PairedDifference:
    return PairedDifference(other, difference(value, error), apart)


def behaved(passed: int, rows: int, kind: str = "invariance") -> EvaluationReport:
    """An evaluation report with one behavioural test."""
    return evaluation(behaviour=[behaviour(passed, rows, kind)])


def plain(value: float, low: float, high: float) -> EvaluationReport:
    """An evaluation report with this difference to the plain method."""
    return evaluation(baseline=baseline(value, low, high))


def comparison(
    value: float = 0.0, slices: tuple[dict[str, Any], ...] = (), ratio: float = 1.0, apart: int = 20
) -> dict[str, Any]:
    return {
        "metrics": {"macro_f1": asdict(difference(value))},
        "slices": list(slices),
        "latency_p95_ratio": ratio,
        "latency_p95_ratio_range": [ratio - 0.2, ratio + 0.2],
        "mcnemar": {"only_first": apart, "only_second": apart},
    }


def verdict(name: str, evidence: Evidence, **params: Any) -> Gate:
    (gate,) = [gate for gate in judge(evidence, PromotionParams(**params)) if gate.name == name]
    return gate


def status(name: str, evidence: Evidence, **params: Any) -> str:
    return verdict(name, evidence, **params).status


def ece(value: float, low: float, high: float) -> dict[str, Any]:
    return {**model().measured["metrics"], "ece": {"value": value, "low": low, "high": high}}


FAILED_CHECK = validation(checks=[CHECK | {"success": False}])
ALONE = {"comparison": None, "champion": None}
FAILS: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "data validation": [({"challenger": model(validation=FAILED_CHECK)}, {})],
    "more than one answer": [({"only_answer": "'positive'"}, {})],
    "better than chance": [({**ALONE, "chance": against(0.006)}, {})],
    "plain method": [({"challenger": model(evaluation=plain(-0.03, -0.05, -0.01))}, {})],
    "minimum value": [({}, {"min_value": 0.81}), ({}, {"min_value": 0.79})],
    "non-inferiority": [({"comparison": comparison(-0.015)}, {}), ({}, {"margin": 0.001})],
    "improvement": [
        ({}, {"min_improvement": 0.0}),
        ({"comparison": comparison(0.03)}, {"min_improvement": 0.03}),
    ],
    "high-water mark": [({"high_water": against(-0.019)}, {})],
    "forgetting": [
        ({"comparison": comparison(slices=(part(-0.04, 0.001),))}, {}),
        (
            {"comparison": comparison(slices=(part(-0.02, 0.001),))},
            {"slice_falls": {"domain=tweets": 0.01}},
        ),
    ],
    "parity": [({}, {"min_agreement": 0.999})],
    "calibration": [({}, {"max_ece": 0.01})],
    "latency": [({}, {"max_latency_ms_p95": 3.0})],
    "latency ratio": [({"comparison": comparison(ratio=2.0)}, {})],
    "throughput": [({}, {"min_throughput": 311.0})],
    "size": [({}, {"max_size_mb": 22.0})],
    "behaviour": [({"challenger": model(evaluation=behaved(180, 250))}, {})],
    "lineage": [({"lineage": ("dirty",)}, {"strict_lineage": True})],
    "not rolled back": [({"rolled_back": True}, {})],
}
CASES = [(name, changes, params) for name, cases in FAILS.items() for changes, params in cases]


def test_every_gate_has_a_failing_case() -> None:
    assert [gate.name for gate in judge(evidence(), PromotionParams())] == list(FAILS)
    assert len(CASES) == 22


def test_a_challenger_that_equals_the_champion_passes() -> None:
    assert not [gate for gate in judge(evidence(), PromotionParams()) if gate.status == "failed"]


@pytest.mark.parametrize(("name", "changes", "params"), CASES)
def test_the_gate_fails_what_it_should_and_nothing_else_does(
    name: str, changes: dict[str, Any], params: dict[str, Any]
) -> None:
    gates = judge(evidence(**changes), PromotionParams(**params))
    assert [gate.name for gate in gates if gate.status == "failed"] == [name]
    assert all(gate.reason for gate in gates)


def test_the_first_version_must_pass_what_is_asked_of_it_alone() -> None:
    alone = {**ALONE, "chance": against(0.3)}
    gates = judge(evidence(**alone), PromotionParams(min_value=0.7))
    assert {gate.name for gate in gates if gate.status == "not applicable"} == {
        "non-inferiority",
        "improvement",
        "high-water mark",
        "forgetting",
        "latency",
        "latency ratio",
        "throughput",
        "size",
    }
    assert status("minimum value", evidence(**alone), min_value=0.9) == "failed"


def test_equal_metrics_are_not_the_lack_of_a_champion() -> None:
    equal = evidence(comparison=comparison(0.0))
    assert status("non-inferiority", equal) == "passed"
    assert status("improvement", equal, min_improvement=0.0) == "failed"


def test_a_fall_of_a_slice_must_be_both_large_and_more_than_chance() -> None:
    for value, p in ((-0.2, 0.3), (-0.02, 0.0001)):
        fallen = comparison(slices=(part(value, p),))
        assert status("forgetting", evidence(comparison=fallen)) == "passed"
    small = comparison(slices=(part(-0.5, 0.0001, rows=5, judged=False),))
    assert status("forgetting", evidence(comparison=small)) == "passed"


def test_a_later_look_asks_for_more_evidence() -> None:
    close = evidence(comparison=comparison(-0.008))
    assert status("non-inferiority", close) == "passed"
    late = verdict("non-inferiority", replace(close, look=12))
    assert late.status == "failed"
    assert late.numbers["level"] == pytest.approx(level_of_look(0.05, 12))
    better = evidence(comparison=comparison(0.01))
    assert status("improvement", better, min_improvement=0.0) == "passed"
    assert status("improvement", replace(better, look=12), min_improvement=0.0) == "failed"


@pytest.mark.parametrize(("rows", "expected"), [(20, "failed"), (100, "failed"), (2000, "passed")])
def test_agreement_on_few_rows_shows_nothing(rows: int, expected: str) -> None:
    """Without discordant rows the bootstrap's error is 0.

    Still, few rows could not have shown a loss of the margin.
    """
    same = comparison(apart=0)
    same["metrics"]["macro_f1"] = asdict(difference(0.0, error=0.0))
    assert status("non-inferiority", evidence(comparison=same, rows=rows)) == expected


@pytest.mark.parametrize(
    ("name", "report"),
    [
        ("data validation", "validation"),
        ("parity", "verification"),
        ("behaviour", "evaluation"),
        ("plain method", "evaluation"),
    ],
)
def test_a_report_that_is_not_there_lets_nothing_through(name: str, report: str) -> None:
    without = model(**{report: None})
    assert status(name, evidence(challenger=without)) == "failed"


def test_a_mark_that_is_gone_is_said_to_be() -> None:
    gate = verdict("high-water mark", evidence(mark_gone="version 2 was deleted"))
    assert (gate.status, gate.reason) == ("warned", "version 2 was deleted")


def test_unclear_lineage_warns_unless_it_is_asked_for() -> None:
    assert status("lineage", evidence(lineage=("no remote has the data",))) == "warned"


LIMITS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # gate, params, then two challengers whose value is beyond the limit: with an interval that
    # reaches back to the limit, and with one that does not
    (
        "calibration",
        {"max_ece": 0.1},
        {"metrics": ece(0.111, 0.078, 0.209)},
        {"metrics": ece(0.15, 0.11, 0.2)},
    ),
    (
        "latency",
        {"max_latency_ms_p95": 5.0},
        {"latency_ms_p95": 5.4, "latency_ms_p95_range": [4.9, 9.0]},
        {"latency_ms_p95": 5.4, "latency_ms_p95_range": [5.1, 9.0]},
    ),
    (
        "throughput",
        {"min_throughput": 300.0},
        {"throughput": 290.0, "throughput_range": [270.0, 301.0]},
        {"throughput": 290.0, "throughput_range": [270.0, 299.0]},
    ),
    (
        "plain method",
        {},
        {"evaluation": plain(-0.03, -0.08, 0.01)},
        {"evaluation": plain(-0.03, -0.05, -0.01)},
    ),
    ("behaviour", {}, {"evaluation": behaved(5, 7)}, {"evaluation": behaved(2, 7)}),
    (
        "behaviour",
        {},
        {"evaluation": behaved(4, 10, "minimum-functionality")},
        {"evaluation": behaved(0, 10, "minimum-functionality")},
    ),
]


@pytest.mark.parametrize(("name", "params", "unsure", "sure"), LIMITS)
def test_a_limit_is_broken_by_an_interval_never_by_a_point(
    name: str, params: dict[str, Any], unsure: dict[str, Any], sure: dict[str, Any]
) -> None:
    assert status(name, evidence(challenger=model(**unsure)), **params) == "passed"
    assert status(name, evidence(challenger=model(**sure)), **params) == "failed"


@pytest.mark.parametrize(("name", "params", "unsure", "sure"), LIMITS)
def test_what_the_champion_fails_by_as_much_holds_back_no_better_challenger(
    name: str, params: dict[str, Any], unsure: dict[str, Any], sure: dict[str, Any]
) -> None:
    better = evidence(challenger=model(**sure), champion=model(**sure), comparison=comparison(0.03))
    assert status(name, better, **params) == "warned"
    not_shown_to_be_better = replace(better, comparison=comparison(0.003))
    assert status(name, not_shown_to_be_better, **params) == "failed"
    champion_within_the_limit = replace(better, champion=model())
    assert status(name, champion_within_the_limit, **params) == "failed"


def test_the_first_champion_of_the_stock_tweets_is_refused() -> None:
    """495 rows, the same class for all: macro F1 0.395, TF-IDF 0.754; the interval excludes 0."""
    constant = evaluation(
        behaviour=[behaviour(250, 250, one_answer=True)], baseline=baseline(-0.359, -0.45, -0.27)
    )
    first = evidence(
        **ALONE,
        chance=against(0.0, 0.01, 0),
        only_answer="'positive'",
        challenger=model(evaluation=constant),
        rows=98,
    )
    gates = {gate.name: gate for gate in judge(first, PromotionParams())}
    assert {name for name, gate in gates.items() if gate.status == "failed"} == {
        "more than one answer",
        "better than chance",
        "plain method",
    }
    assert gates["behaviour"].status == "not applicable"


def test_its_better_second_version_is_let_through() -> None:
    """Macro F1 0.560, +0.165 (p 0.005), calibration error 0.111 on 98 rows: 0.078 to 0.209."""
    second = model(metrics=ece(0.111, 0.078, 0.209), evaluation=plain(-0.194, -0.3, -0.08))
    champion = model(evaluation=plain(-0.359, -0.45, -0.27))
    better = comparison(0.165)
    better["metrics"]["macro_f1"] = asdict(difference(0.165, 0.057))
    known = evidence(challenger=second, champion=champion, comparison=better, rows=98)
    gates = {gate.name: gate.status for gate in judge(known, PromotionParams())}
    assert gates["plain method"] == "warned"
    assert gates["calibration"] == gates["non-inferiority"] == "passed"
    assert "failed" not in gates.values()


def test_behaviour_that_a_constant_passes_counts_for_nothing() -> None:
    void = behaviour(250, 250, one_answer=True)
    real = behaviour(2, 10, "minimum-functionality", name="plain praise")
    both = model(evaluation=evaluation(behaviour=[void, real]))
    pass_rates = {"minimum_functionality": 0.9}
    gate = verdict("behaviour", evidence(challenger=both), min_pass_rates=pass_rates)
    assert gate.status == "failed"
    assert gate.numbers["not_counted"] == ["invariance"]
    only_void = model(evaluation=evaluation(behaviour=[void]))
    assert status("behaviour", evidence(challenger=only_void)) == "not applicable"
