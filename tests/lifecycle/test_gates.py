"""Each gate passes what it should, fails what it should, and says when it does not apply."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from tasks.lifecycle.evidence import Evidence, Gate, ModelEvidence
from tasks.lifecycle.gates import judge
from tasks.params.lifecycle import PromotionParams
from tasks.scoring.statistics.alpha_spending import level_of_look
from tasks.scoring.statistics.paired import Difference, PairedDifference


def difference(value: float, error: float = 0.004) -> Difference:
    return Difference(0.8 + value, 0.8, value, value - 2 * error, value + 2 * error, 0.5, error)


def part(
    value: float, p: float, name: str = "domain=tweets", rows: int = 500, judged: bool = True
) -> dict[str, Any]:
    column, _, of = name.partition("=")
    return {
        "column": column,
        "value": of,
        "rows": rows,
        "judged": judged,
        "difference": asdict(difference(value)),
        "fall_p_adjusted": p,
    }


def model(**changes: Any) -> ModelEvidence:
    """What is known of a good model; `changes` replace what was measured, or a whole report."""
    measured = {
        "metrics": {"macro_f1": {"value": 0.8, "low": 0.78, "high": 0.82}, "ece": {"value": 0.03, "low": 0.02, "high": 0.05}},
        "latency_ms_p95": 4.0, "latency_ms_p95_range": [3.8, 4.4], "throughput": 300.0, "throughput_range": [280.0, 310.0],
        "size_bytes": 23_000_000,
    }  # fmt: skip
    behaviour = {
        "name": "one typo",
        "kind": "invariance",
        "rows": 250,
        "passed": 225,
        "pass_rate": 0.9,
        "one_answer": False,
    }
    plain = {
        "name": "TF-IDF",
        "difference": {"metric": "macro_f1", "value": 0.1, "low": 0.08, "high": 0.12},
    }
    reports = {
        "validation": {"checks": [{"name": "null_text", "action": "error", "success": True}], "rows_in": 10, "rows_out": 10},
        "verification": {"shipped": "fp32", "candidates": [{"recipe": "fp32", "agreement": 0.99}], "rows": {"validation": 1000}},
        "evaluation": {"behaviour": [behaviour], "baseline": plain},
    }  # fmt: skip
    reports |= {name: changes.pop(name) for name in list(changes) if name in reports}
    return ModelEvidence(measured | changes, reports)


def evidence(**changes: Any) -> Evidence:
    """Of a challenger that passes everything, beside a champion that it equals."""
    known = Evidence(
        metric="macro_f1", challenger=model(), champion=model(), comparison=comparison(), chance=None, only_answer="",
        high_water=None, mark_gone="", rows=2000, look=1, lineage=(), rolled_back=False,
    )  # fmt: skip
    return replace(known, **changes)


def against(
    value: float, error: float = 0.004, apart: int = 40, other: str = "another"
) -> PairedDifference:
    return PairedDifference(other, difference(value, error), apart)


def behaved(
    passed: int, rows: int, kind: str = "invariance", one_answer: bool = False, name: str = "one"
) -> dict[str, Any]:
    """An evaluation report with one behavioural test."""
    test = {
        "name": name,
        "kind": kind,
        "rows": rows,
        "passed": passed,
        "pass_rate": passed / rows,
        "one_answer": one_answer,
    }
    return {"behaviour": [test], "baseline": None}


def plain(value: float, low: float, high: float) -> dict[str, Any]:
    """An evaluation report with this difference to the plain method."""
    return {
        "behaviour": [],
        "baseline": {
            "name": "TF-IDF",
            "difference": {"metric": "macro_f1", "value": value, "low": low, "high": high},
        },
    }


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


def verdict(name: str, found: Evidence, **params: Any) -> Gate:
    (gate,) = [gate for gate in judge(found, PromotionParams(**params)) if gate.name == name]
    return gate


def ece(value: float, low: float, high: float) -> dict[str, Any]:
    return {**model().measured["metrics"], "ece": {"value": value, "low": low, "high": high}}


FAILED_CHECK = {
    "checks": [{"name": "x", "action": "error", "success": False}],
    "rows_in": 1,
    "rows_out": 1,
}
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
    status = {
        gate.name: gate.status for gate in judge(evidence(**alone), PromotionParams(min_value=0.7))
    }
    assert {name for name, found in status.items() if found == "not applicable"} == {
        "non-inferiority", "improvement", "high-water mark", "forgetting", "latency", "latency ratio", "throughput", "size",
    }  # fmt: skip
    assert verdict("minimum value", evidence(**alone), min_value=0.9).status == "failed"


def test_equal_metrics_are_not_the_lack_of_a_champion() -> None:
    assert verdict("non-inferiority", evidence(comparison=comparison(0.0))).status == "passed"
    assert (
        verdict("improvement", evidence(comparison=comparison(0.0)), min_improvement=0.0).status
        == "failed"
    )


def test_a_fall_of_a_slice_must_be_both_large_and_more_than_chance() -> None:
    for value, p in ((-0.2, 0.3), (-0.02, 0.0001)):
        assert (
            verdict("forgetting", evidence(comparison=comparison(slices=(part(value, p),)))).status
            == "passed"
        )
    small = part(-0.5, 0.0001, rows=5, judged=False)
    assert (
        verdict("forgetting", evidence(comparison=comparison(slices=(small,)))).status == "passed"
    )


def test_a_later_look_asks_for_more_evidence() -> None:
    close = evidence(comparison=comparison(-0.008))
    assert verdict("non-inferiority", close).status == "passed"
    late = verdict("non-inferiority", replace(close, look=12))
    assert late.status == "failed"
    assert late.numbers["level"] == pytest.approx(level_of_look(0.05, 12))
    better = evidence(comparison=comparison(0.01))
    assert verdict("improvement", better, min_improvement=0.0).status == "passed"
    assert verdict("improvement", replace(better, look=12), min_improvement=0.0).status == "failed"


@pytest.mark.parametrize(("rows", "status"), [(20, "failed"), (100, "failed"), (2000, "passed")])
def test_agreement_on_few_rows_shows_nothing(rows: int, status: str) -> None:
    """The bootstrap sees no error where no row is discordant; few rows could not have shown a loss of the margin."""
    same = comparison(apart=0)
    same["metrics"]["macro_f1"] = asdict(difference(0.0, error=0.0))
    assert verdict("non-inferiority", evidence(comparison=same, rows=rows)).status == status


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
    there = {key: value for key, value in model().reports.items() if key != report}
    assert verdict(name, evidence(challenger=replace(model(), reports=there))).status == "failed"


def test_a_mark_that_is_gone_is_said_to_be() -> None:
    gate = verdict("high-water mark", evidence(mark_gone="version 2 was deleted"))
    assert (gate.status, gate.reason) == ("warned", "version 2 was deleted")


def test_unclear_lineage_warns_unless_it_is_asked_for() -> None:
    assert verdict("lineage", evidence(lineage=("no remote has the data",))).status == "warned"


LIMITS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # gate, params, a challenger whose point is beyond the limit and its interval is not, one whose interval is
    ("calibration", {"max_ece": 0.1}, {"metrics": ece(0.111, 0.078, 0.209)}, {"metrics": ece(0.15, 0.11, 0.2)}),
    ("latency", {"max_latency_ms_p95": 5.0}, {"latency_ms_p95": 5.4, "latency_ms_p95_range": [4.9, 9.0]},
     {"latency_ms_p95": 5.4, "latency_ms_p95_range": [5.1, 9.0]}),
    ("throughput", {"min_throughput": 300.0}, {"throughput": 290.0, "throughput_range": [270.0, 301.0]},
     {"throughput": 290.0, "throughput_range": [270.0, 299.0]}),
    ("plain method", {}, {"evaluation": plain(-0.03, -0.08, 0.01)}, {"evaluation": plain(-0.03, -0.05, -0.01)}),
    ("behaviour", {}, {"evaluation": behaved(5, 7)}, {"evaluation": behaved(2, 7)}),
    ("behaviour", {}, {"evaluation": behaved(4, 10, "minimum-functionality")}, {"evaluation": behaved(0, 10, "minimum-functionality")}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "unsure", "sure"), LIMITS)
def test_a_limit_is_broken_by_an_interval_never_by_a_point(
    name: str, params: dict[str, Any], unsure: dict[str, Any], sure: dict[str, Any]
) -> None:
    assert verdict(name, evidence(challenger=model(**unsure)), **params).status == "passed"
    assert verdict(name, evidence(challenger=model(**sure)), **params).status == "failed"


@pytest.mark.parametrize(("name", "params", "unsure", "sure"), LIMITS)
def test_what_the_champion_fails_by_as_much_holds_back_no_better_challenger(
    name: str, params: dict[str, Any], unsure: dict[str, Any], sure: dict[str, Any]
) -> None:
    better = evidence(challenger=model(**sure), champion=model(**sure), comparison=comparison(0.03))
    assert verdict(name, better, **params).status == "warned"
    assert (
        verdict(name, replace(better, comparison=comparison(0.003)), **params).status == "failed"
    )  # not shown to be better
    assert (
        verdict(name, replace(better, champion=model()), **params).status == "failed"
    )  # the champion keeps to the limit


def test_the_first_champion_of_the_stock_tweets_is_refused() -> None:
    """495 rows, one class to everything: macro F1 0.395, TF-IDF 0.754, the difference's interval excludes 0."""
    constant = behaved(250, 250, one_answer=True) | {
        "baseline": plain(-0.359, -0.45, -0.27)["baseline"]
    }
    found = evidence(
        **ALONE,
        chance=against(0.0, 0.01, 0),
        only_answer="'positive'",
        challenger=model(evaluation=constant),
        rows=98,
    )
    gates = {gate.name: gate for gate in judge(found, PromotionParams())}
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
    found = evidence(challenger=second, champion=champion, comparison=comparison(0.165), rows=98)
    found.comparison["metrics"]["macro_f1"] = asdict(difference(0.165, 0.057))  # type: ignore[index]
    gates = {gate.name: gate.status for gate in judge(found, PromotionParams())}
    assert gates["plain method"] == "warned"
    assert gates["calibration"] == gates["non-inferiority"] == "passed"
    assert "failed" not in gates.values()


def test_behaviour_that_a_constant_passes_counts_for_nothing() -> None:
    void, real = (
        behaved(250, 250, one_answer=True)["behaviour"],
        behaved(2, 10, "minimum-functionality", name="plain praise")["behaviour"],
    )
    both = {"behaviour": [*void, *real], "baseline": None}
    gate = verdict(
        "behaviour",
        evidence(challenger=model(evaluation=both)),
        min_pass_rates={"minimum_functionality": 0.9},
    )
    assert gate.status == "failed"
    assert gate.numbers["not_counted"] == ["invariance"]
    assert (
        verdict(
            "behaviour",
            evidence(challenger=model(evaluation={"behaviour": void, "baseline": None})),
        ).status
        == "not applicable"
    )
