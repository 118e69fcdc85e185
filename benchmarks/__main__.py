"""All benchmarks, one after the other, and what came of them: benchmarks/RESULTS.md with its plots.

make bench                             # the better part of an hour; keep the machine quiet
make bench QUICK=--quick               # minutes: whether they work; RESULTS.md is left as it is
python -m benchmarks training frozen   # some of them; the others' sections stay
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.sections import BenchmarkSection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
NAMES = (
    "training",
    "quality",
    "distillation",
    "frozen",
    "chat",
    "inference",
    "generation",
    "data",
    "scaling",
    "overhead",
    "comparing",
    "robustness",
)
LIBRARIES = (
    "torch",
    "transformers",
    "onnxruntime",
    "tokenizers",
    "prefect",
    "mlflow",
    "dvc",
    "great_expectations",
    "duckdb",
)
HEAD = """# Results of the benchmarks

Written by `make bench`. Each variant has a process of its own; they take turns, and ratios are of one round: the median, with the lowest
and the highest in brackets. Each kind of machine, told by its vector instructions, has sections of its own. What each is for, and how to
run it alone, stands in its file; what was tried and why it stops, in [TRIED.md](TRIED.md); what changes with size, in
[SCALING.md](SCALING.md).
"""


def main() -> None:
    """Run what is asked for; write the sections unless it is quick."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    from tasks.core.quiet import quiet_libraries

    quiet_libraries()
    for name in given.names or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        section = import_module(f"benchmarks.{name}").measure(given.quick)
        print(section.markdown(), flush=True)
        if not given.quick:
            keep(name, section)


def keep(name: str, section: BenchmarkSection) -> None:
    """Put a section in its place in RESULTS.md; those of the other benchmarks, and of other kinds of machine, are left as they are."""
    from torch.backends.cpu import get_cpu_capability

    from tasks.core.files import write_text

    kind = get_cpu_capability()
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else ""
    found = dict(re.findall(r"<!-- (\w+ \w+) -->\n(.*?)(?=<!-- \w+ \w+ -->|\Z)", text, re.S))
    section = replace(section, title=f"{section.title}, {kind}")
    plot = (
        f"\n![{section.title}]({draw(f'{name}-{kind.lower()}', section).name})\n"
        if section.bars or section.curves
        else ""
    )
    found[f"{name} {kind}"] = f"{section.markdown()}{plot}\n{machine()}\n\n"
    places = sorted(found, key=lambda place: (NAMES.index(place.split()[0]), place))
    body = "".join(f"<!-- {place} -->\n{found[place].rstrip()}\n\n" for place in places)
    write_text(RESULTS, f"{HEAD}\n{body.rstrip()}\n")


def machine() -> str:
    """Where and when, in a line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    what = f"{cores} {platform.machine()} cores, {memory:.0f} GB, {platform.system()}"
    versions = f"Python {platform.python_version()}, " + ", ".join(
        f"{name} {metadata.version(name)}" for name in LIBRARIES
    )
    return f"*{datetime.now(UTC):%Y-%m-%d}, {what}; {versions}.*"


def draw(stem: str, section: BenchmarkSection) -> Path:
    """Its bars or curves as a PNG."""
    figure = draw_bars(section) if section.bars else draw_curves(section)
    path = HERE / f"{stem}.png"
    figure.savefig(path, dpi=110)
    return path


def draw_bars(section: BenchmarkSection) -> Figure:
    """One panel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.6 + 0.45 * len(section.bars)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(section.bars), list(section.bars.values()), color="#4477aa")
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(section.unit)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_curves(section: BenchmarkSection) -> Figure:
    """A panel for each thing that was measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(section.curves), 4), layout="constrained")
    panels = figure.subplots(1, len(section.curves), squeeze=False)[0]
    for axes, (what, curves) in zip(panels, section.curves.items(), strict=True):
        for label, points in curves.items():
            axes.loglog(*zip(*points, strict=True), marker="o", label=label)
        axes.set(xlabel="rows", ylabel=what)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


if __name__ == "__main__":
    main()
