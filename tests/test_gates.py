"""Each gate passes what it should, fails what it should, and says when it does not apply."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from tasks.core.gates import Evidence, Gate, judge
from tasks.core.lifecycle_params import PromotionParams
from tasks.core.looks import level_of_look
from tasks.core.paired import Difference


def difference(value: float, error: float = 0.004) -> Difference:
    return Difference(0.8 + value, 0.8, value, value - 2 * error, value + 2 * error, 0.5, error)


def part(value: float, p: float, name: str = "domain=tweets", rows: int = 500, judged: bool = True) -> dict[str, Any]:
    column, _, of = name.partition("=")
    return {"column": column, "value": of, "rows": rows, "judged": judged, "difference": asdict(difference(value)), "fall_p_adjusted": p}


def evidence(**changes: Any) -> Evidence:
    """Of a challenger that passes everything, beside a champion that it equals."""
    challenger = {
        "metrics": {"macro_f1": {"value": 0.8}, "ece": {"value": 0.03}},
        "latency_ms_p95": 4.0, "throughput": 300.0, "size_bytes": 23_000_000,
    }  # fmt: skip
    reports = {
        "validation": {"checks": [{"name": "null_text", "action": "error", "success": True}], "rows_in": 10, "rows_out": 10},
        "verification": {"shipped": "int8-static", "candidates": [{"recipe": "int8-static", "agreement": 0.99}]},
        "evaluation": {"behaviour": [{"name": "one typo", "kind": "invariance", "rows": 250, "pass_rate": 0.9}]},
    }
    known = Evidence(
        metric="macro_f1", challenger=challenger, comparison=comparison(), high_water=None, mark_gone="", rows=2000, look=1,
        reports=reports, lineage=(), rolled_back=False,
    )  # fmt: skip
    return replace(known, **changes)


def comparison(value: float = 0.0, slices: tuple[dict[str, Any], ...] = (), ratio: float = 1.0, apart: int = 20) -> dict[str, Any]:
    return {
        "metrics": {"macro_f1": asdict(difference(value))},
        "slices": list(slices),
        "latency_p95_ratio": ratio,
        "mcnemar": {"only_first": apart, "only_second": apart},
    }


def verdict(name: str, found: Evidence, **params: Any) -> Gate:
    (gate,) = [gate for gate in judge(found, PromotionParams(**params)) if gate.name == name]
    return gate


def reports(**changes: Any) -> dict[str, Any]:
    return {**evidence().reports, **changes}


FAILS: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "data validation": [
        ({"reports": reports(validation={"checks": [{"name": "x", "action": "error", "success": False}], "rows_in": 1, "rows_out": 1})}, {})
    ],
    "minimum value": [({}, {"min_value": 0.81})],
    "non-inferiority": [({"comparison": comparison(-0.015)}, {}), ({}, {"margin": 0.001})],
    "improvement": [({}, {"min_improvement": 0.0}), ({"comparison": comparison(0.03)}, {"min_improvement": 0.03})],
    "high-water mark": [({"high_water": ("version 2", difference(-0.019), 40)}, {})],
    "forgetting": [
        ({"comparison": comparison(slices=(part(-0.04, 0.001),))}, {}),
        ({"comparison": comparison(slices=(part(-0.02, 0.001),))}, {"slice_falls": {"domain=tweets": 0.01}}),
    ],
    "parity": [({}, {"min_agreement": 0.995})],
    "calibration": [({}, {"max_ece": 0.02})],
    "latency": [({}, {"max_latency_ms_p95": 3.0})],
    "latency ratio": [({"comparison": comparison(ratio=2.0)}, {})],
    "throughput": [({}, {"min_throughput": 301.0})],
    "size": [({}, {"max_size_mb": 22.0})],
    "behaviour": [({}, {"min_pass_rates": {"invariance": 0.91}})],
    "lineage": [({"lineage": ("dirty",)}, {"strict_lineage": True})],
    "not rolled back": [({"rolled_back": True}, {})],
}
CASES = [(name, changes, params) for name, cases in FAILS.items() for changes, params in cases]


def test_every_gate_has_a_failing_case() -> None:
    assert [gate.name for gate in judge(evidence(), PromotionParams())] == list(FAILS)
    assert len(CASES) == 18


def test_a_challenger_that_equals_the_champion_passes() -> None:
    assert not [gate for gate in judge(evidence(), PromotionParams()) if gate.status == "failed"]


@pytest.mark.parametrize(("name", "changes", "params"), CASES)
def test_the_gate_fails_what_it_should_and_nothing_else_does(name: str, changes: dict[str, Any], params: dict[str, Any]) -> None:
    gates = judge(evidence(**changes), PromotionParams(**params))
    assert [gate.name for gate in gates if gate.status == "failed"] == [name]
    assert all(gate.reason for gate in gates)


def test_the_first_version_must_pass_what_is_asked_of_it_alone() -> None:
    alone = {"comparison": None}
    status = {gate.name: gate.status for gate in judge(evidence(**alone), PromotionParams(min_value=0.7))}
    assert {name for name, found in status.items() if found == "not applicable"} == {
        "non-inferiority", "improvement", "high-water mark", "forgetting", "latency", "latency ratio", "throughput", "size",
    }  # fmt: skip
    assert verdict("minimum value", evidence(**alone), min_value=0.9).status == "failed"


def test_equal_metrics_are_not_the_lack_of_a_champion() -> None:
    assert verdict("non-inferiority", evidence(comparison=comparison(0.0))).status == "passed"
    assert verdict("improvement", evidence(comparison=comparison(0.0)), min_improvement=0.0).status == "failed"


def test_a_fall_of_a_slice_must_be_both_large_and_more_than_chance() -> None:
    for value, p in ((-0.2, 0.3), (-0.02, 0.0001)):
        assert verdict("forgetting", evidence(comparison=comparison(slices=(part(value, p),)))).status == "passed"
    small = part(-0.5, 0.0001, rows=5, judged=False)
    assert verdict("forgetting", evidence(comparison=comparison(slices=(small,)))).status == "passed"


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


@pytest.mark.parametrize(("name", "report"), [("data validation", "validation"), ("parity", "verification"), ("behaviour", "evaluation")])
def test_a_report_that_is_not_there_lets_nothing_through(name: str, report: str) -> None:
    there = {key: value for key, value in reports().items() if key != report}
    assert verdict(name, evidence(reports=there)).status == "failed"


def test_a_mark_that_is_gone_is_said_to_be() -> None:
    gate = verdict("high-water mark", evidence(mark_gone="version 2 was deleted"))
    assert (gate.status, gate.reason) == ("warned", "version 2 was deleted")


def test_unclear_lineage_warns_unless_it_is_asked_for() -> None:
    assert verdict("lineage", evidence(lineage=("no remote has the data",))).status == "warned"


def test_an_invariance_test_of_few_rows_is_not_judged_but_a_written_one_is() -> None:
    for kind, rows, wanted in (("invariance", 19, "passed"), ("invariance", 20, "failed"), ("minimum-functionality", 2, "failed")):
        test = {"name": "one", "kind": kind, "rows": rows, "pass_rate": 0.4}
        found = evidence(reports=reports(evaluation={"behaviour": [test]}))
        assert verdict("behaviour", found).status == wanted, (kind, rows)
