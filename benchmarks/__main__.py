"""Run all benchmarks in turn and write their results and plots to benchmarks/RESULTS.md.

make bench                             # most of an hour; keep the machine quiet
make bench QUICK=--quick               # minutes: checks that they work; RESULTS.md stays as it is
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
    "models",
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

Written by `make bench`. Each variant runs in a process of its own; they take turns, and a ratio
compares two variants within one round: the median, with the lowest and the highest in brackets.
Each kind of machine, identified by its vector instructions, has sections of its own. Each
benchmark's file says what it is for and how to run it alone. [TRIED.md](TRIED.md) lists what was
tried and why it stopped, [SCALING.md](SCALING.md) what changes with size.
"""


def main() -> None:
    """Run the named benchmarks; write their sections unless the run is quick."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    from tasks.core.quiet import quiet_libraries

    quiet_libraries()
    for name in arguments.names or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        section = import_module(f"benchmarks.{name}").measure(arguments.quick)
        print(section.markdown(), flush=True)
        if not arguments.quick:
            keep(name, section)


def keep(name: str, section: BenchmarkSection) -> None:
    """Replace one section of RESULTS.md.

    The sections of other benchmarks, and of other kinds of machine, stay as they are.
    """
    from torch.backends.cpu import get_cpu_capability

    from tasks.core.files import write_text

    capability = get_cpu_capability()
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else ""
    sections = dict(re.findall(r"<!-- (\w+ \w+) -->\n(.*?)(?=<!-- \w+ \w+ -->|\Z)", text, re.S))
    section = replace(section, title=f"{section.title}, {capability}")
    plot = ""
    if section.bars or section.curves:
        png = draw(f"{name}-{capability.lower()}", section)
        plot = f"\n![{section.title}]({png.name})\n"
    sections[f"{name} {capability}"] = f"{section.markdown()}{plot}\n{machine()}\n\n"
    keys = sorted(sections, key=lambda key: (NAMES.index(key.split()[0]), key))
    body = "".join(f"<!-- {key} -->\n{sections[key].rstrip()}\n\n" for key in keys)
    write_text(RESULTS, f"{HEAD}\n{body.rstrip()}\n")


def machine() -> str:
    """One line: the date, the machine and the versions of the libraries."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    hardware = f"{cores} {platform.machine()} cores, {memory:.0f} GB, {platform.system()}"
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    versions = f"Python {platform.python_version()}, {libraries}"
    return f"*{datetime.now(UTC):%Y-%m-%d}, {hardware}; {versions}.*"


def draw(stem: str, section: BenchmarkSection) -> Path:
    """Draw the section's bars or curves as a PNG; returns its path."""
    figure = draw_bars(section) if section.bars else draw_curves(section)
    path = HERE / f"{stem}.png"
    figure.savefig(path, dpi=110)
    return path


def draw_bars(section: BenchmarkSection) -> Figure:
    """One panel with a horizontal bar for each variant."""
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
    """One panel for each quantity, both scales logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(section.curves), 4), layout="constrained")
    panels = figure.subplots(1, len(section.curves), squeeze=False)[0]
    for axes, (quantity, curves) in zip(panels, section.curves.items(), strict=True):
        for label, points in curves.items():
            axes.loglog(*zip(*points, strict=True), marker="o", label=label)
        axes.set(xlabel="rows", ylabel=quantity)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


if __name__ == "__main__":
    main()
