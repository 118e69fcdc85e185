"""A share of counted rows: its interval, and whether it is shown to be below what was wanted."""

from __future__ import annotations

CONFIDENCE = 0.95


def rate_interval(share: float, rows: int) -> tuple[float, float]:
    """Clopper and Pearson's exact interval (1934) of the share of `rows` independent rows."""
    from scipy.stats import binomtest

    found = binomtest(round(share * rows), rows).proportion_ci(CONFIDENCE, method="exact")
    return min(share, float(found.low)), max(share, float(found.high))


def rate_p_value(passed: int, rows: int, wanted: float) -> float:
    """One-sided p-value of the true share being `wanted` or more: small where it is shown to be below."""
    from scipy.stats import binomtest

    return float(binomtest(passed, rows, wanted, alternative="less").pvalue)
