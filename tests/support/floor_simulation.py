"""Error rates of the first champion's gates, by simulation.

`python tests/support/floor_simulation.py` prints the rates of docs/gates.md. Rows have two classes,
the rarer one 35% of them. A perfect model knows each row's true probability, so it is calibrated
and right on 80%; a worse one answers a share of the rows with another row's output. The simulation
provides all that the gates read: outputs on the test rows, the run's paired interval against the
plain method, the interval of the calibration error, behavioural tests' counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from made_reports import behaviour, evaluation, validation, verification
from scipy.special import logit

from tasks.core.arrays import Floats
from tasks.lifecycle.evidence import Evidence, Gate, ModelEvidence, RunReports
from tasks.lifecycle.gates import judge
from tasks.params.lifecycle import PromotionParams
from tasks.problems import load_problem
from tasks.scoring.statistics.bootstrap import Resampling, difference_interval, metric_intervals
from tasks.scoring.statistics.chance import deal, difference_to_chance, only_answer
from tasks.scoring.statistics.paired import Difference

KIND = load_problem("text-classification")
LABELS = ("negative", "positive")
# beta distribution of a row's true probability: mean 0.35, the likelier class is right on 80%
SHAPE = (0.55, 1.02)
RESAMPLES = 500
SIZES = (100, 500, 2000)
PARAMS = PromotionParams()
COSTS: Mapping[str, Any] = {
    "latency_ms_p95": 1.0,
    "latency_ms_p95_range": [1.0, 1.0],
    "throughput": 1.0,
    "throughput_range": [1.0, 1.0],
    "size_bytes": 1,
}


def draw_rows(draw: np.random.Generator, rows: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """(outputs of the perfect model, references)."""
    chance = np.clip(draw.beta(*SHAPE, rows), 1e-6, 1 - 1e-6)
    outputs = np.stack([np.zeros(rows), logit(chance)], 1).astype(np.float32)
    return outputs, (draw.random(rows) < chance).astype(np.int64)


def spoil(draw: np.random.Generator, outputs: Floats, share: float) -> Floats:
    """The outputs, with those of a share of the rows shuffled among these rows."""
    chosen = draw.random(len(outputs)) < share
    spoilt = outputs.copy()
    spoilt[chosen] = deal(outputs[chosen], draw.permutation(int(chosen.sum())))
    return spoilt


def first_champion(
    outputs: Floats,
    plain: Floats,
    references: npt.NDArray[np.int64],
    passed: int,
    tested: int,
    seed: int,
) -> list[Gate]:
    """Every gate's verdict on a first version."""
    resampling = Resampling(RESAMPLES, seed=seed)
    metrics = metric_intervals(KIND.scoring, outputs, references, LABELS, resampling)
    interval = difference_interval(KIND.scoring, (outputs, plain), references, LABELS, resampling)
    lead = {"metric": KIND.scoring.metric, **interval}
    reports = RunReports(
        validation(),
        evaluation(
            behaviour=[behaviour(passed, tested)],
            baseline={"name": "plain", "metrics": {}, "difference": lead},
        ),
        verification(1.0, len(outputs)),
    )
    chance = difference_to_chance(
        KIND.scoring, KIND.scoring.metric, outputs, references, LABELS, resampling
    )
    rows = {"text": [""] * len(outputs)}
    evidence = Evidence(
        metric=KIND.scoring.metric,
        challenger=ModelEvidence({"metrics": metrics, **COSTS}, reports),
        champion=None,
        comparison=None,
        chance=chance,
        only_answer=only_answer(KIND.scoring, KIND.decoding, outputs, rows, LABELS),
        high_water=None,
        mark_gone="",
        rows=len(outputs),
        look=1,
        lineage=(),
        rolled_back=False,
    )
    return judge(evidence, PARAMS)


def refusals(kind: str, rows: int, times: int, seed: int) -> dict[str, float]:
    """Share of simulated versions that each gate fails, and that any gate fails ('refused').

    kind  constant, guess, good (plain is 5 points worse), equal (to plain),
          5 or 10 points worse (than plain), overconfident (logits 3x)
    """
    draw, counts = np.random.default_rng(seed), {"refused": 0}
    for number in range(times):
        perfect, references = draw_rows(draw, rows)
        # shuffling 36% of the rows costs 10 points of accuracy
        ours, plain = {
            "constant": (np.asarray([[1, 0]] * rows, np.float32), perfect),
            "guess": (deal(perfect, draw.permutation(rows)), deal(perfect, draw.permutation(rows))),
            "good": (perfect, spoil(draw, perfect, 0.18)),
            "equal": (spoil(draw, perfect, 0.09), spoil(draw, perfect, 0.09)),
            "5 points worse": (spoil(draw, perfect, 0.18), perfect),
            "10 points worse": (spoil(draw, perfect, 0.36), perfect),
            "overconfident": (3 * perfect, spoil(draw, perfect, 0.18)),
        }[kind]
        passed = int(draw.binomial(rows, 0.85))
        gates = first_champion(ours, plain, references, passed=passed, tested=rows, seed=number)
        failed = [gate.name for gate in gates if gate.status == "failed"]
        counts["refused"] += bool(failed)
        for name in failed:
            counts[name] = counts.get(name, 0) + 1
    return {name: count / times for name, count in counts.items()}


def excused(rows: int, times: int, seed: int) -> float:
    """Share of challengers that the calibration gate holds back.

    They are truly 10 points better, and as overconfident as the champion.
    """
    draw, held = np.random.default_rng(seed), 0
    for number in range(times):
        perfect, references = draw_rows(draw, rows)
        pair = (3 * perfect, 3 * spoil(draw, perfect, 0.36))
        resampling = Resampling(RESAMPLES, seed=number)
        interval = difference_interval(KIND.scoring, pair, references, LABELS, resampling)
        value, low, high = interval["value"], interval["low"], interval["high"]
        difference = Difference(0.0, 0.0, value, low, high, 0.0, (high - low) / 3.92)
        challenger, champion = (
            metric_intervals(KIND.scoring, outputs, references, LABELS, resampling)
            for outputs in pair
        )
        comparison = {
            "metrics": {KIND.scoring.metric: asdict(difference)},
            "mcnemar": {"only_first": 0, "only_second": 0},
            "slices": [],
            "latency_p95_ratio": 1.0,
            "latency_p95_ratio_range": [1.0, 1.0],
        }
        evidence = Evidence(
            metric=KIND.scoring.metric,
            challenger=ModelEvidence({"metrics": challenger, **COSTS}, RunReports()),
            champion=ModelEvidence({"metrics": champion, **COSTS}, RunReports()),
            comparison=comparison,
            chance=None,
            only_answer="",
            high_water=None,
            mark_gone="",
            rows=rows,
            look=1,
            lineage=(),
            rolled_back=False,
        )
        gate = next(gate for gate in judge(evidence, PARAMS) if gate.name == "calibration")
        held += gate.status == "failed"
    return held / times


def main() -> None:
    """Print the rates as the table of docs/gates.md."""
    print(f"| first version | {' | '.join(f'{rows:,} test rows' for rows in SIZES)} |")
    print(f"|---|{'---|' * len(SIZES)}")
    worse = ("constant", "guess", "10 points worse", "5 points worse")
    for kind in (*worse, "equal", "good", "overconfident"):
        cells = []
        for rows in SIZES:
            rates = refusals(kind, rows, 200, seed=rows)
            refused = rates.pop("refused")
            why = ", ".join(f"{gate} {rate:.1%}" for gate, rate in sorted(rates.items()))
            cells.append(f"{refused:.1%}" + (f" ({why})" if why else ""))
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)
    cells = [f"{excused(rows, 200, seed=rows):.1%}" for rows in SIZES]
    kind = "10 points better, as overconfident as the champion, held back"
    print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
