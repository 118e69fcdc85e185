"""Seconds and peak memory of every stage against the number of rows.

Each stage runs in a process of its own: 1,000 and 3,000 rows through all stages, up to 10,000,000
through the data stages.

python -m benchmarks.scaling
python -m benchmarks.scaling --quick # 500 and 1,000
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.data import RATCHET, make_workspace, timed
from benchmarks.data import STAGES as DATA_STAGES
from benchmarks.sections import BenchmarkSection, run_alone

# ten million rows are not tokenized: tokenizing takes linear time
MANY = {
    10_000: DATA_STAGES,
    100_000: DATA_STAGES,
    1_000_000: DATA_STAGES,
    10_000_000: DATA_STAGES[:3],
}


def measure(quick: bool) -> BenchmarkSection:
    """Run the stages on made-up sentences, as in benchmarks.data."""
    from tasks.params.schema import save_overrides
    from tasks.pipeline import STAGES

    names = [stage.name for stage in STAGES]
    sizes = {500: names, 1_000: DATA_STAGES} if quick else {1_000: names, 3_000: names, **MANY}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    megabytes: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    table = []
    for rows, stages in sizes.items():
        cells = dict.fromkeys(names, "–")
        with tempfile.TemporaryDirectory() as scratch:
            root = make_workspace(Path(scratch), rows)
            save_overrides(root / "params.yaml", ["finetune.epochs=1"])
            for stage in stages:
                try:
                    took, peak = timed(root, *RATCHET, "stage", stage)
                # most likely out of memory; the results so far are worth keeping
                except SystemExit as error:
                    print(error, file=sys.stderr)
                    cells[stage] = "failed"
                    break
                seconds[stage].append((rows, took))
                megabytes[stage].append((rows, peak))
                cells[stage] = f"{took:.1f} s, {peak:.0f} MB"
                print(f"{rows:,} {stage}: {cells[stage]}", file=sys.stderr, flush=True)
        table.append([f"{rows:,}", *cells.values()])
    note = (
        "A process a stage, so that its start and its imports are in it; "
        "sentences of 5 to 30 words, two classes, one epoch."
    )
    curves = {"seconds": seconds, "peak memory (MB)": megabytes}
    return BenchmarkSection("Scaling", ("rows", *names), table, [note], curves=curves)


if __name__ == "__main__":
    run_alone(__doc__ or "", measure)
