"""What all benchmarks share: variants in processes of their own, asked in turns, and a section of RESULTS.md as the outcome.

Two noisy cores: only ratios within a round count, and of those the median with the lowest and highest beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class BenchmarkSection:
    """A table and what is to be said of it.

    bars    drawn, in `unit`: label -> value
    curves  drawn, a panel each: what it shows -> label -> points (x, y), both scales logarithmic
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    bars: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] = field(default_factory=dict)

    def markdown(self) -> str:
        """The section's text."""
        lines = [
            f"## {self.title}",
            "",
            _line(self.header),
            _line(["---"] * len(self.header)),
            *map(_line, self.rows),
        ]
        return "\n".join([*lines, "", *self.notes]).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def alternate(
    module: str, settings: Mapping[str, Mapping[str, Any]], rounds: int, **question: Any
) -> dict[str, list[dict[str, Any]]]:
    """Each variant's answers, one a round: A B, then B A, one process a variant."""
    from tasks.shipping.workers import Worker

    found: dict[str, list[dict[str, Any]]] = {name: [] for name in settings}
    with ExitStack() as stack:
        workers = {name: Worker(module, setting) for name, setting in settings.items()}
        for worker in workers.values():
            stack.callback(worker.close)
        for worker in workers.values():
            worker.ask(do="turn", number=-1, **question)  # what is made on first use
        for number in range(rounds):
            for name, worker in list(workers.items())[:: 1 if number % 2 else -1]:
                found[name].append(worker.ask(do="turn", number=number, **question))
    return found


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """'2.61x (2.40 to 2.75)': the median of theirs by ours, round by round, for times; the other way round for rates."""
    found = np.asarray(theirs) / np.asarray(ours)
    return f"{np.median(found):.2f}x ({found.min():.2f} to {found.max():.2f})"


def run_alone(
    doc: str, measure: Callable[[bool], BenchmarkSection], serve: Callable[..., None] | None = None
) -> None:
    """The command line of one benchmark; a worker's process is started with its setting as JSON, and goes to `serve`."""
    from tasks.core.quiet import quiet_libraries

    if serve is not None and len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        quiet_libraries()
        serve(**json.loads(sys.argv[1]))
        return
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="less of everything: whether it works at all"
    )
    given = parser.parse_args()
    quiet_libraries()
    print(measure(given.quick).markdown())
