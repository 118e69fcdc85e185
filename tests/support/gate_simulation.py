"""Error rates of the gates, by simulation.

`python tests/support/gate_simulation.py` prints the rates of docs/gates.md. A simulated model is
right or wrong on each test row. Rows differ in difficulty, which all models share, as real ones do:
two models of the same true accuracy agree on most rows and are exchangeable, so any verdict on
their difference is due to chance.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Bools
from tasks.lifecycle.evidence import Evidence, ModelEvidence, RunReports
from tasks.lifecycle.gates import judge
from tasks.params.lifecycle import PromotionParams
from tasks.scoring.statistics.bootstrap import Resampling
from tasks.scoring.statistics.paired import Difference, PairedDifference, accuracy_difference

ROWS = 2000  # of a test set
ACCURACY = 0.8
RESAMPLES = 1000
PARAMS = PromotionParams()


def draw_rows(draw: np.random.Generator, rows: int = ROWS) -> npt.NDArray[np.float64]:
    """Difficulty of each row: the probability that a model of accuracy ACCURACY is right."""
    return draw.beta(1.6, 0.4, rows)  # mean 0.8, most rows easy, some close to hopeless


def draw_model(
    draw: np.random.Generator, difficulty: npt.NDArray[np.float64], worse: float = 0.0
) -> Bools:
    """Which rows a model gets right whose true accuracy is `worse` below ACCURACY."""
    right: Bools = draw.random(len(difficulty)) < difficulty * (1 - worse / ACCURACY)
    return right


def evidence(
    difference: Difference, look: int = 1, high_water: Difference | None = None, rows: int = ROWS
) -> Evidence:
    """Evidence on a simulated challenger: only its difference to the champion and to the mark."""
    measured: dict[str, Any] = {
        "metrics": {},
        "latency_ms_p95": 1.0,
        "latency_ms_p95_range": [1.0, 1.0],
        "throughput": 1.0,
        "throughput_range": [1.0, 1.0],
        "size_bytes": 1,
    }
    model = ModelEvidence(measured, RunReports())
    mark = None if high_water is None else PairedDifference("the mark", high_water, 0)
    comparison = {
        "metrics": {"accuracy": asdict(difference)},
        "slices": [],
        "latency_p95_ratio": 1.0,
        "latency_p95_ratio_range": [1.0, 1.0],
        # a lower bound: the models disagree on more rows, as the bootstrap's error shows
        "mcnemar": {"only_first": 0, "only_second": 0},
    }
    return Evidence(
        metric="accuracy",
        challenger=model,
        champion=model,
        comparison=comparison,
        chance=None,
        only_answer="",
        high_water=mark,
        mark_gone="",
        rows=rows,
        look=look,
        lineage=(),
        rolled_back=False,
    )


def verdicts(evidence: Evidence, params: PromotionParams = PARAMS) -> dict[str, str]:
    """Gate -> verdict."""
    return {gate.name: gate.status for gate in judge(evidence, params)}


def difference_of(first: Bools, second: Bools, seed: int) -> Difference:
    return accuracy_difference(first, second, Resampling(RESAMPLES, seed=seed))


def claims_better(pairs: int, seed: int, looks: int = 1) -> float:
    """Share of series of equal challengers in which the gates call any of them better.

    looks  challengers of a series; the same rows judge them all
    """
    draw, params, claims = np.random.default_rng(seed), PromotionParams(min_improvement=0.0), 0
    for pair in range(pairs):
        difficulty = draw_rows(draw)
        champion = draw_model(draw, difficulty)
        differences = [
            difference_of(draw_model(draw, difficulty), champion, pair) for _ in range(looks)
        ]
        claims += any(
            verdicts(evidence(difference, look), params)["improvement"] == "passed"
            for look, difference in enumerate(differences, 1)
        )
    return claims / pairs


def lets_through(pairs: int, seed: int, worse: float) -> float:
    """Share of challengers, truly worse by `worse`, that pass non-inferiority at the first look."""
    draw, through = np.random.default_rng(seed), 0
    for pair in range(pairs):
        difficulty = draw_rows(draw)
        champion, challenger = draw_model(draw, difficulty), draw_model(draw, difficulty, worse)
        difference = difference_of(challenger, champion, pair)
        through += verdicts(evidence(difference))["non-inferiority"] == "passed"
    return through / pairs


def lets_through_subset(pairs: int, seed: int, rows: int, look: int) -> float:
    """Share of challengers that pass non-inferiority though they lose a margin's worth of rows.

    They win no row: the hardest case for few rows.
    """
    draw, through = np.random.default_rng(seed), 0
    for pair in range(pairs):
        champion = np.ones(rows, bool)
        challenger = draw.random(rows) >= PARAMS.margin
        difference = difference_of(challenger, champion, pair)
        through += verdicts(evidence(difference, look, rows=rows))["non-inferiority"] == "passed"
    return through / pairs


def drift(nights: int, seed: int, *, high_water: bool, rows: int = 8000) -> float:
    """True accuracy lost after nights of challengers, each half a point worse than the champion."""
    draw = np.random.default_rng(seed)
    difficulty = draw_rows(draw, rows)
    lost = 0.0
    champion = mark = draw_model(draw, difficulty)
    for night in range(nights):
        challenger = draw_model(draw, difficulty, lost + 0.005)
        to_mark = difference_of(challenger, mark, night) if high_water else None
        # every night is a first look: this shows the mark's effect, not that of spent significance
        difference = difference_of(challenger, champion, night)
        gates = verdicts(evidence(difference, 1, to_mark))
        if gates["non-inferiority"] == "passed" and gates["high-water mark"] != "failed":
            champion, lost = challenger, lost + 0.005
            mark = max(mark, champion, key=np.mean)
    return lost


def main() -> None:
    """Print the rates."""
    level, margin = PARAMS.significance, PARAMS.margin
    print(f"{ROWS} test rows, accuracy {ACCURACY}, significance {level:g}, margin {margin:g}")
    rate = claims_better(1000, 0)
    print(f"equal models called better, one look, 1000 pairs:          {rate:.1%}")
    series = [claims_better(1000, seed, looks=20) for seed in range(1, 5)]
    print(f"equal models called better, any of 20 looks, 4000 series:  {np.mean(series):.1%}")
    for worse in (0.0, 0.005, 0.01, 0.02, 0.03):
        rate = lets_through(1000, 2, worse)
        print(f"let through by non-inferiority, truly {worse:.1%} worse:          {rate:.1%}")
    for high_water in (False, True):
        lost = [drift(100, seed, high_water=high_water) for seed in range(10)]
        spread = f"{np.mean(lost):.3f} ± {np.std(lost, ddof=1):.3f}"
        words = "with" if high_water else "without"
        print(f"lost after 100 nights {words:>7} the high-water mark, 10 runs:   {spread}")


if __name__ == "__main__":
    main()
