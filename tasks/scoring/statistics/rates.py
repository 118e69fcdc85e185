"""Confidence interval of a pass rate, and a test of whether it is below the wanted rate."""

from __future__ import annotations

CONFIDENCE = 0.95


def rate_interval(share: float, rows: int) -> tuple[float, float]:
    """Exact interval (Clopper & Pearson 1934) of a share of `rows` independent rows."""
    from scipy.stats import binomtest

    interval = binomtest(round(share * rows), rows).proportion_ci(CONFIDENCE, method="exact")
    return min(share, float(interval.low)), max(share, float(interval.high))


def rate_p_value(passed: int, rows: int, wanted: float) -> float:
    """One-sided p-value of the null hypothesis that the true share is at least `wanted`."""
    from scipy.stats import binomtest

    return float(binomtest(passed, rows, wanted, alternative="less").pvalue)
