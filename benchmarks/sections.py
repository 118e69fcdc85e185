"""What all benchmarks share: variants in processes of their own, taking turns; result sections.

On two noisy cores only ratios within a round count: their median, with the lowest and the highest.
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
    """A section of RESULTS.md: a table, notes and a plot.

    bars    label -> value, in `unit`
    curves  quantity -> label -> points (x, y); one panel a quantity, both scales logarithmic
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    bars: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] = field(default_factory=dict)

    def markdown(self) -> str:
        """The section as Markdown, without its plot."""
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
    """Each variant's answers, one a round: A B, then B A, with one process a variant."""
    from tasks.shipping.workers import Worker

    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in settings}
    with ExitStack() as stack:
        workers = {name: Worker(module, setting) for name, setting in settings.items()}
        for worker in workers.values():
            stack.callback(worker.close)
        for worker in workers.values():
            worker.ask(do="turn", number=-1, **question)  # warm-up
        for number in range(rounds):
            for name, worker in list(workers.items())[:: 1 if number % 2 else -1]:
                answers[name].append(worker.ask(do="turn", number=number, **question))
    return answers


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """'2.61x (2.40 to 2.75)': median, lowest and highest of theirs / ours, round by round.

    That is a speedup for times; swap the arguments for rates.
    """
    by_round = np.asarray(theirs) / np.asarray(ours)
    return f"{np.median(by_round):.2f}x ({by_round.min():.2f} to {by_round.max():.2f})"


def run_alone(
    doc: str, measure: Callable[[bool], BenchmarkSection], serve: Callable[..., None] | None = None
) -> None:
    """The command line of one benchmark.

    A worker process gets its setting as JSON, its only argument, and calls `serve` with it.
    """
    from tasks.core.quiet import quiet_libraries

    if serve is not None and len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        quiet_libraries()
        serve(**json.loads(sys.argv[1]))
        return
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    quick_help = "less of everything: whether it works at all"
    parser.add_argument("--quick", action="store_true", help=quick_help)
    arguments = parser.parse_args()
    quiet_libraries()
    print(measure(arguments.quick).markdown())
