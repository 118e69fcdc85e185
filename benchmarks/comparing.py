"""The statistics of `ratchet compare` on many rows.

Every metric's paired difference, over 10,000 bootstrap resamples.

python -m benchmarks.comparing         # 100,000 rows
python -m benchmarks.comparing --quick # 5,000
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.sections import BenchmarkSection, run_alone


def measure(quick: bool) -> BenchmarkSection:
    """Seconds and memory of one comparison of random outputs that are mostly right."""
    from tasks.core.memory import peak_memory_mb
    from tasks.problems import load_problem
    from tasks.scoring.statistics.bootstrap import Resampling
    from tasks.scoring.statistics.paired import metric_differences

    problem, labels = load_problem("text-classification"), ("negative", "neutral", "positive")
    table = []
    for rows in (5_000,) if quick else (10_000, 100_000):
        draw = np.random.default_rng(0)
        references = draw.integers(0, len(labels), rows)
        pair = tuple(outputs(references, draw) for _ in range(2))
        before, started = peak_memory_mb("cpu"), time.perf_counter()
        differences = metric_differences(
            problem.scoring, (pair[0], pair[1]), references, labels, Resampling(10_000)
        )
        seconds, memory = time.perf_counter() - started, peak_memory_mb("cpu") - before
        table.append([f"{rows:,}", str(len(differences)), f"{seconds:.1f}", f"{memory:.0f}"])
    header = ("rows", "metrics", "seconds", "more memory at the peak (MB)")
    note = (
        "Three classes, 10,000 resamples, both models' outputs as saved. "
        "Wanted: 3 s, memory bounded."
    )
    return BenchmarkSection("Comparing", header, table, [note])


def outputs(references: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Logits that favour the right class for 80% of the rows and a random class for the rest."""
    rows = len(references)
    favoured = np.where(draw.random(rows) < 0.8, references, draw.integers(0, 3, rows))
    logits = draw.normal(size=(rows, 3)).astype(np.float32)
    logits[np.arange(rows), favoured] += 4
    return logits


if __name__ == "__main__":
    run_alone(__doc__ or "", measure)
