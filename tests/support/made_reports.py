"""Stage reports with the values that a test is about; all others are those of an empty report."""

from __future__ import annotations

from typing import Any

from tasks.reports.stage_reports import (
    EvaluationReport,
    ValidationReport,
    VerificationReport,
)

SPEED = {"latency_ms_p50": 4.0, "latency_ms_p95": 5.0, "throughput": 180.0}
CHECK = {
    "name": "null_text", "type": "expect_column_values_to_not_be_null", "action": "error",
    "success": True, "message": "", "judged": 10, "unexpected": 0, "share": 0.0, "observed": None,
    "examples": [],
}  # fmt: skip


def validation(**values: Any) -> ValidationReport:
    usual = {
        "rows_in": 10, "rows_out": 10, "quarantined": 0, "checks": [CHECK], "off": [],
        "profile": {},
    }  # fmt: skip
    return ValidationReport.model_validate(usual | values)


def evaluation(**values: Any) -> EvaluationReport:
    usual = {
        "split": "test", "rows": 10, "metric": "macro_f1", "confidence": 0.95, "metrics": {},
        "validation_metrics": {}, "temperature": 1.0, "bias": [], "details": {},
        "validation_thresholds": {}, "calibrated": {}, "slices": [], "behaviour": [],
        "baseline": None, "answers": None,
    }  # fmt: skip
    return EvaluationReport.model_validate(usual | values)


def verification(agreement: float, rows: int) -> VerificationReport:
    """fp32 ships; `agreement` was measured on `rows` validation rows."""
    candidate = {"recipe": "fp32", "agreement": agreement, "verdict": "ships", "reason": "alone"}
    return VerificationReport.model_validate({
        "checkpoint": {"metric": 0.8, "size_bytes": 1, **SPEED}, "metric": "macro_f1",
        "candidates": [candidate], "shipped": "fp32", "reason": "", "temperature": 1.0, "bias": [],
        "test_metrics": {}, "rows": {"validation": rows}, "threads": 1,
    })  # fmt: skip


def behaviour(
    passed: int, rows: int, kind: str = "invariance", one_answer: bool = False, name: str = "one"
) -> dict[str, Any]:
    """One behavioural test of an evaluation."""
    return {
        "name": name, "kind": kind, "rows": rows, "passed": passed, "pass_rate": passed / rows,
        "examples": [], "one_answer": one_answer,
    }  # fmt: skip


def baseline(value: float, low: float, high: float) -> dict[str, Any]:
    """An evaluation's baseline with this difference to it."""
    difference = {"metric": "macro_f1", "value": value, "low": low, "high": high}
    return {"name": "TF-IDF", "metrics": {}, "difference": difference}
