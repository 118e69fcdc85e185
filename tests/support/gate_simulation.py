"""How often the gates err, by simulation: `python tests/support/gate_simulation.py` prints the rates that docs/gates.md shows.

A simulated model is right or wrong on each test row. Rows differ in difficulty and models share it, as real ones do, so that two
models of the same true accuracy agree on most rows and are exchangeable: whatever the gates make of the difference is chance.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Bools
from tasks.lifecycle.evidence import Evidence, ModelEvidence
from tasks.lifecycle.gates import judge
from tasks.params.lifecycle import PromotionParams
from tasks.scoring.statistics.bootstrap import Resampling
from tasks.scoring.statistics.paired import Difference, PairedDifference, accuracy_difference

ROWS = 2000  # of a test set
ACCURACY = 0.8
RESAMPLES = 1000
PARAMS = PromotionParams()


def draw_rows(draw: np.random.Generator, rows: int = ROWS) -> npt.NDArray[np.float64]:
    """Difficulty of each row: the chance that a model of the usual accuracy gets it right."""
    return draw.beta(1.6, 0.4, rows)  # mean 0.8, most rows easy, some close to hopeless


def draw_model(
    draw: np.random.Generator, difficulty: npt.NDArray[np.float64], worse: float = 0.0
) -> Bools:
    """Which rows a model gets right, its true accuracy `worse` below the usual."""
    right: Bools = draw.random(len(difficulty)) < difficulty * (1 - worse / ACCURACY)
    return right


def evidence(
    difference: Difference, look: int = 1, high_water: Difference | None = None, rows: int = ROWS
) -> Evidence:
    """What the gates are shown of a simulated challenger: nothing but its difference to the champion and to the mark."""
    measured: dict[str, Any] = {
        "metrics": {}, "latency_ms_p95": 1.0, "latency_ms_p95_range": [1.0, 1.0], "throughput": 1.0, "throughput_range": [1.0, 1.0],
        "size_bytes": 1,
    }  # fmt: skip
    model = ModelEvidence(measured, {})
    # the models are apart on more rows than the least that the difference takes; the bootstrap's error knows how many
    apart = {"only_first": 0, "only_second": 0}
    comparison = {
        "metrics": {"accuracy": asdict(difference)}, "slices": [], "latency_p95_ratio": 1.0, "latency_p95_ratio_range": [1.0, 1.0],
        "mcnemar": apart,
    }  # fmt: skip
    mark = None if high_water is None else PairedDifference("the mark", high_water, 0)
    return Evidence(
        "accuracy", model, model, comparison, None, "", mark, "", rows, look, (), rolled_back=False
    )


def verdicts(shown: Evidence, params: PromotionParams = PARAMS) -> dict[str, str]:
    """Gate -> verdict."""
    return {gate.name: gate.status for gate in judge(shown, params)}


def difference_of(first: Bools, second: Bools, seed: int) -> Difference:
    return accuracy_difference(first, second, Resampling(RESAMPLES, seed=seed))


def claims_better(pairs: int, seed: int, looks: int = 1) -> float:
    """Share of series of `looks` equal challengers, judged by the same rows, in which the gates call any of them better."""
    draw, params, claims = np.random.default_rng(seed), PromotionParams(min_improvement=0.0), 0
    for pair in range(pairs):
        difficulty = draw_rows(draw)
        champion = draw_model(draw, difficulty)
        found = [difference_of(draw_model(draw, difficulty), champion, pair) for _ in range(looks)]
        claims += any(
            verdicts(evidence(d, look), params)["improvement"] == "passed"
            for look, d in enumerate(found, 1)
        )
    return claims / pairs


def lets_through(pairs: int, seed: int, worse: float) -> float:
    """Share of challengers, truly worse by `worse`, that non-inferiority lets through at the first look."""
    draw, through = np.random.default_rng(seed), 0
    for pair in range(pairs):
        difficulty = draw_rows(draw)
        champion, challenger = draw_model(draw, difficulty), draw_model(draw, difficulty, worse)
        through += (
            verdicts(evidence(difference_of(challenger, champion, pair)))["non-inferiority"]
            == "passed"
        )
    return through / pairs


def lets_through_subset(pairs: int, seed: int, rows: int, look: int) -> float:
    """Share let through of challengers that lose a margin's worth of rows and win none: the hardest case of few rows."""
    draw, through = np.random.default_rng(seed), 0
    for pair in range(pairs):
        champion = np.ones(rows, bool)
        challenger = draw.random(rows) >= PARAMS.margin
        found = difference_of(challenger, champion, pair)
        through += verdicts(evidence(found, look, rows=rows))["non-inferiority"] == "passed"
    return through / pairs


def drift(nights: int, seed: int, *, high_water: bool, rows: int = 8000) -> float:
    """True accuracy that the champion has lost after nights of challengers that are each half a point worse than it."""
    draw = np.random.default_rng(seed)
    difficulty = draw_rows(draw, rows)
    lost = 0.0
    champion = mark = draw_model(draw, difficulty)
    for night in range(nights):
        challenger = draw_model(draw, difficulty, lost + 0.005)
        to_mark = difference_of(challenger, mark, night) if high_water else None
        # every night its own fresh level: what is shown here is the mark's doing, not that of the spent significance
        found = verdicts(evidence(difference_of(challenger, champion, night), 1, to_mark))
        if found["non-inferiority"] == "passed" and found["high-water mark"] != "failed":
            champion, lost = challenger, lost + 0.005
            mark = max(mark, champion, key=np.mean)
    return lost


def main() -> None:
    """Print the rates."""
    level, margin = PARAMS.significance, PARAMS.margin
    print(f"{ROWS} test rows, accuracy {ACCURACY}, significance {level:g}, margin {margin:g}")
    print(
        f"equal models called better, one look, 1000 pairs:          {claims_better(1000, 0):.1%}"
    )
    series = [claims_better(1000, seed, looks=20) for seed in range(1, 5)]
    print(f"equal models called better, any of 20 looks, 4000 series:  {np.mean(series):.1%}")
    for worse in (0.0, 0.005, 0.01, 0.02, 0.03):
        print(
            f"let through by non-inferiority, truly {worse:.1%} worse:          {lets_through(1000, 2, worse):.1%}"
        )
    for high_water in (False, True):
        lost = [drift(100, seed, high_water=high_water) for seed in range(10)]
        words = "with" if high_water else "without"
        print(
            f"lost after 100 nights {words:>7} the high-water mark, 10 runs:   {np.mean(lost):.3f} ± {np.std(lost, ddof=1):.3f}"
        )


if __name__ == "__main__":
    main()
