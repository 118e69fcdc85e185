"""The statistics of `ratchet compare` on many rows: every metric's paired difference over 10,000 resamples.

python -m benchmarks.comparing         # 100,000 rows
python -m benchmarks.comparing --quick # 5,000
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.sections import BenchmarkSection, run_alone


def measure(quick: bool) -> BenchmarkSection:
    """Seconds and memory of one comparison; the outputs are drawn, right four times in five."""
    from tasks.core.memory import peak_memory_mb
    from tasks.problems import load_problem
    from tasks.scoring.statistics.bootstrap import Resampling
    from tasks.scoring.statistics.paired import metric_differences

    kind, labels = load_problem("text-classification"), ("negative", "neutral", "positive")
    table = []
    for rows in (5_000,) if quick else (10_000, 100_000):
        draw = np.random.default_rng(0)
        references = draw.integers(0, len(labels), rows)
        pair = tuple(outputs(references, draw) for _ in range(2))
        before, started = peak_memory_mb("cpu"), time.perf_counter()
        found = metric_differences(
            kind.scoring, (pair[0], pair[1]), references, labels, Resampling(10_000)
        )
        seconds = time.perf_counter() - started
        table.append(
            [
                f"{rows:,}",
                str(len(found)),
                f"{seconds:.1f}",
                f"{peak_memory_mb('cpu') - before:.0f}",
            ]
        )
    header = ("rows", "metrics", "seconds", "more memory at the peak (MB)")
    return BenchmarkSection(
        "Comparing",
        header,
        table,
        [
            "Three classes, 10,000 resamples, both models' outputs as saved. Wanted: 3 s, memory bounded."
        ],
    )


def outputs(references: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Logits that say the right class four times in five."""
    said = np.where(
        draw.random(len(references)) < 0.8, references, draw.integers(0, 3, len(references))
    )
    logits = draw.normal(size=(len(references), 3)).astype(np.float32)
    logits[np.arange(len(references)), said] += 4
    return logits


if __name__ == "__main__":
    run_alone(__doc__ or "", measure)
