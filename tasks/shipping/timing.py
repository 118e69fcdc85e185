"""Speed of several variants, each in its own process, in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

BATCH_ROWS = 32
WARM_UP_ROWS = 4  # of each turn: caches and threads have gone cold while others ran
BATCH_REPEATS = 2  # the faster one counts
CONFIDENCE = 0.95


@dataclass
class Timings:
    """What was measured of one variant.

    latencies  seconds of each row by itself, one list a turn
    batches    (rows, seconds) of the turn's rows as one batch
    """

    latencies: list[list[float]] = field(default_factory=list)
    batches: list[tuple[int, float]] = field(default_factory=list)

    def add(self, turn: Mapping[str, Any]) -> None:
        """Take in what `time_turn` returned."""
        self.latencies.append(list(turn["latencies"]))
        self.batches.append((int(turn["rows"]), float(turn["seconds"])))

    @property
    def rows(self) -> int:
        """Rows that were timed."""
        return sum(rows for rows, _ in self.batches)

    def summary(self) -> dict[str, float]:
        """Milliseconds of one row (p50, p95) and rows a second in batches."""
        milliseconds = np.concatenate([np.asarray(turn) for turn in self.latencies]) * 1e3
        p50, p95 = np.percentile(milliseconds, (50, 95))
        rows, seconds = (sum(column) for column in zip(*self.batches, strict=True))
        return {
            "latency_ms_p50": round(float(p50), 3),
            "latency_ms_p95": round(float(p95), 3),
            "throughput": round(rows / seconds, 1),
        }

    def ranges(self) -> dict[str, list[float]]:
        """Lowest and highest of a turn: of k turns they hold the median of all turns with probability 1 - 2^(1-k)."""
        latencies = [float(np.percentile(turn, 95)) * 1e3 for turn in self.latencies]
        rates = [rows / seconds for rows, seconds in self.batches]
        return {"latency_ms_p95_range": _range(latencies), "throughput_range": _range(rates)}

    def latency_p95_ratio_to(self, other: Timings) -> dict[str, Any]:
        """The other's p95 latency is 1: the median over turns, so that a disturbed turn does not decide, and the range over turns."""
        pairs = zip(self.latencies, other.latencies, strict=True)
        ratios = [
            float(np.percentile(mine, 95) / np.percentile(theirs, 95)) for mine, theirs in pairs
        ]
        return {
            "latency_p95_ratio": round(float(np.median(ratios)), 3),
            "latency_p95_ratio_range": _range(ratios),
        }

    def speedup_over(self, other: Timings) -> Speedup:
        """How many times faster: of each turn the geometric mean of latency's and throughput's ratios."""
        pairs = zip(self.latencies, self.batches, other.latencies, other.batches, strict=True)
        return Speedup.of(
            [
                np.sqrt(np.median(their) / np.median(mine) * theirs[1] / batch[1])
                for mine, batch, their, theirs in pairs
            ]
        )


@dataclass(frozen=True)
class Speedup:
    """The median over turns of how many times faster one variant was than another in the same turn.

    low, high  distribution-free 95% interval of the median (order statistics); None with fewer turns than that takes, six
    """

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Self:
        """From the ratio of each turn."""
        from scipy.stats import binom

        ordered = np.sort(ratios)
        rank = int(
            binom.ppf((1 - CONFIDENCE) / 2, len(ordered), 0.5)
        )  # of `low` from below and of `high` from above
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
    """Time some rows one by one, then as one batch; `run` makes the model's inputs of rows and computes the outputs."""
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
    """The rows in batches as they come."""
    return [list(rows[start : start + BATCH_ROWS]) for start in range(0, len(rows), BATCH_ROWS)]


def _seconds(run: Callable[[npt.NDArray[np.int64]], Any], rows: npt.NDArray[np.int64]) -> float:
    started = time.perf_counter()
    run(rows)
    return time.perf_counter() - started
