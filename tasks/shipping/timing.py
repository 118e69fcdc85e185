"""Latency and throughput of variants timed in turns, so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

BATCH_ROWS = 32
WARM_UP_ROWS = 4  # per turn: caches and threads went cold while other variants ran
BATCH_REPEATS = 2  # the fastest counts
CONFIDENCE = 0.95


@dataclass
class Timings:
    """Timings of one variant.

    latencies  seconds per row at batch size 1, one list per turn
    batches    (rows, seconds) of each turn's rows as one batch
    """

    latencies: list[list[float]] = field(default_factory=list)
    batches: list[tuple[int, float]] = field(default_factory=list)

    def add(self, turn: Mapping[str, Any]) -> None:
        """Add the result of `time_turn`."""
        self.latencies.append(list(turn["latencies"]))
        self.batches.append((int(turn["rows"]), float(turn["seconds"])))

    @property
    def rows(self) -> int:
        """Number of rows timed."""
        return sum(rows for rows, _ in self.batches)

    def summary(self) -> dict[str, float]:
        """Latency of one row in ms (p50, p95), and batched throughput in rows per second."""
        milliseconds = np.concatenate([np.asarray(turn) for turn in self.latencies]) * 1e3
        p50, p95 = np.percentile(milliseconds, (50, 95))
        rows, seconds = (sum(column) for column in zip(*self.batches, strict=True))
        return {
            "latency_ms_p50": round(float(p50), 3),
            "latency_ms_p95": round(float(p95), 3),
            "throughput": round(rows / seconds, 1),
        }

    def ranges(self) -> dict[str, list[float]]:
        """[lowest, highest] over turns; k turns cover the median with probability 1 - 2^(1-k)."""
        latencies = [float(np.percentile(turn, 95)) * 1e3 for turn in self.latencies]
        rates = [rows / seconds for rows, seconds in self.batches]
        return {"latency_ms_p95_range": _range(latencies), "throughput_range": _range(rates)}

    def latency_p95_ratio_to(self, other: Timings) -> dict[str, Any]:
        """p95 latency relative to the other's: median (a disturbed turn does no harm) and range."""
        ratios = [
            float(np.percentile(own, 95) / np.percentile(others, 95))
            for own, others in zip(self.latencies, other.latencies, strict=True)
        ]
        return {
            "latency_p95_ratio": round(float(np.median(ratios)), 3),
            "latency_p95_ratio_range": _range(ratios),
        }

    def speedup_over(self, other: Timings) -> Speedup:
        """How many times faster: per turn, geometric mean of the latency and throughput ratios."""
        latencies = zip(self.latencies, other.latencies, strict=True)
        batches = zip(self.batches, other.batches, strict=True)
        ratios = [
            np.sqrt(np.median(others) / np.median(own) * other_seconds / own_seconds)
            for (own, others), ((_, own_seconds), (_, other_seconds)) in zip(
                latencies, batches, strict=True
            )
        ]
        return Speedup.of(ratios)


@dataclass(frozen=True)
class Speedup:
    """Median over turns of how many times faster one variant ran than another in the same turn.

    low, high  distribution-free 95% interval of the median (order statistics); None below six turns
    """

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Self:
        """From one ratio per turn."""
        from scipy.stats import binom

        ordered = np.sort(ratios)
        # `low` is the rank-th smallest, `high` the rank-th largest
        rank = int(binom.ppf((1 - CONFIDENCE) / 2, len(ordered), 0.5))
        bounds = (float(ordered[rank - 1]), float(ordered[-rank])) if rank else (None, None)
        return cls(float(np.median(ordered)), *bounds)

    def as_dict(self) -> dict[str, float | None]:
        """For a report."""
        return {
            name: None if value is None else round(value, 3) for name, value in asdict(self).items()
        }

    @property
    def shown_slower(self) -> bool:
        """Whether the whole interval lies below 1."""
        return self.high is not None and self.high < 1

    def __str__(self) -> str:
        bounds = "" if self.low is None else f" ({self.low:.2f} to {self.high:.2f})"
        return f"{self.value:.2f}x{bounds}"


def time_turn(run: Callable[[npt.NDArray[np.int64]], Any], rows: Sequence[int]) -> dict[str, Any]:
    """Time the rows one by one, then as one batch; `run` builds the inputs and runs the model."""
    for row in rows[:WARM_UP_ROWS]:
        run(np.asarray([row]))
    latencies = [_seconds(run, np.asarray([row])) for row in rows]
    batch = np.asarray(rows)
    run(batch)
    return {
        "latencies": latencies,
        "rows": len(rows),
        "seconds": min(_seconds(run, batch) for _ in range(BATCH_REPEATS)),
    }


def _range(values: Sequence[float]) -> list[float]:
    return [round(min(values), 3), round(max(values), 3)]


def turns(rows: Sequence[int]) -> list[list[int]]:
    """The rows in consecutive batches of BATCH_ROWS."""
    return [list(rows[start : start + BATCH_ROWS]) for start in range(0, len(rows), BATCH_ROWS)]


def _seconds(run: Callable[[npt.NDArray[np.int64]], Any], rows: npt.NDArray[np.int64]) -> float:
    started = time.perf_counter()
    run(rows)
    return time.perf_counter() - started
