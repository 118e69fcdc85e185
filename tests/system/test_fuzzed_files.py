"""Damaged files that others make: each is used, or told in one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.robustness import fuzz
from benchmarks.robustness.fuzz import SHARES, Samples
from tasks.data.tables import loading

# seeds that once ended in a traceback: a column's name and a text that are not UTF-8
ONCE_BROKEN = {"parquet": (232, 268)}
CASES = 6  # of each kind; `python -m benchmarks robustness` tries 10,000 files


@pytest.mark.parametrize("kind", SHARES)
def test_a_damaged_file_is_used_or_told(kind: str, template: Path, base_dir: Path) -> None:
    samples = Samples(template / "params.yaml", base_dir, template / "models" / "bundle")
    seeds = (*range(CASES), *ONCE_BROKEN.get(kind, ()))
    assert fuzz.try_kind(samples, kind, seeds) == []


def test_a_traceback_is_seen(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("text")

    monkeypatch.setattr(loading, "load_csv", broken)
    samples = Samples(template, template, template)
    failures = fuzz.try_kind(samples, "csv", range(3))
    assert failures == [f"csv: seed {seed}: KeyError: 'text'" for seed in range(3)]
