"""Robustness campaigns: broken tables, deliveries, kills, pauses and tampering; failures counted.

python -m benchmarks robustness           # every campaign
python -m benchmarks.robustness --quick   # a few inputs of each
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

from benchmarks.robustness.tally import Tally
from benchmarks.sections import BenchmarkSection
from tasks.core.progress import LINES

# modules beside this one, each with campaign(quick) -> list[Tally]
CAMPAIGNS: tuple[str, ...] = ("tables", "deliveries", "fuzz", "tampering", "histories", "kills")
MOST_SHOWN = 5  # failures of each tally that are listed


def measure(quick: bool) -> BenchmarkSection:
    """Run every campaign: one row a tally, the first failures listed below the table."""
    tallies: list[Tally] = []
    # one process each: forks of a process in which torch has computed would crash
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for name in CAMPAIGNS:
            print(f"  {name} …", file=sys.stderr, flush=True)
            tallies += pool.submit(_campaign, name, quick).result()
    rows = [
        (tally.what, f"{tally.tried:,}", tally.must_not, str(len(tally.failures)))
        for tally in tallies
    ]
    failures = [
        f"- {tally.what}: {failure}" for tally in tallies for failure in tally.failures[:MOST_SHOWN]
    ]
    header = ("what was tried", "how many", "what must not happen", "how often it did")
    return BenchmarkSection("Robustness", header, rows, failures)


def _campaign(name: str, quick: bool) -> list[Tally]:
    LINES.propagate = False  # the stages' lines
    tallies: list[Tally] = import_module(f"benchmarks.robustness.{name}").campaign(quick)
    return tallies
