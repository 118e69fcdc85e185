"""Benchmarks: results stay when another benchmark runs, and ratios are taken within a round.

`make bench QUICK=--quick` shows that the benchmarks run.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import __main__ as everything
from benchmarks.sections import BenchmarkSection, ratios

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", everything.NAMES)
def test_each_runs_alone_and_quick(name: str) -> None:
    module = import_module(f"benchmarks.{name}")
    assert list(inspect.signature(module.measure).parameters) == ["quick"]
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--quick" in done.stdout


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([1.0, 2.0, 4.0], [2.0, 4.0, 12.0]) == "2.00x (2.00 to 3.00)"


def test_a_section_takes_its_place_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everything, "HERE", tmp_path)
    monkeypatch.setattr(everything, "RESULTS", tmp_path / "RESULTS.md")
    first, second = everything.NAMES[:2]
    everything.keep(second, BenchmarkSection("Second", ("a", "b"), [("1", "2")]))
    everything.keep(
        first,
        BenchmarkSection("First", ("a",), [("x",)], ["A note."], {"x": 1.0, "y": 2.0}, "rows/s"),
    )
    everything.keep(second, BenchmarkSection("Second", ("a", "b"), [("3", "4")]))
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "OTHER")
    everything.keep(second, BenchmarkSection("Second", ("a", "b"), [("5", "6")]))
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert text.index("| 3 | 4 |") < text.index("| 5 | 6 |")  # another kind of machine
    assert text.index("## First") < text.index("## Second")
    assert "| 3 | 4 |" in text
    assert "| 1 | 2 |" not in text
    assert "A note." in text
    (plot,) = tmp_path.glob("*.png")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert f"({plot.name})" in text
    assert str(tmp_path) not in text
