"""The campaigns of odd tables pass on a few tables, and detect planted errors."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from benchmarks.robustness import deliveries, tables


def test_made_up_tables_lose_and_change_nothing() -> None:
    tallies = (*tables.campaign(quick=True), *deliveries.campaign(quick=True))
    assert [failure for tally in tallies for failure in tally.failures] == []


def test_a_changed_label_and_a_lost_row_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    ingested = tables.ingested

    def damaged(*arguments: Any) -> tuple[pa.Table, dict[int, str]]:
        rows, aside = ingested(*arguments)
        if "label" in rows.column_names:
            labels = pa.array(["spam"] * len(rows))
            rows = rows.set_column(rows.column_names.index("label"), "label", labels)
        return rows.slice(1), aside

    monkeypatch.setattr(tables, "ingested", damaged)
    failures = tables.try_tables(range(8))
    assert any("came nothing" in failure or "set aside: None" in failure for failure in failures)
    assert any("'label': 'ham'" in failure and "'label': 'spam'" in failure for failure in failures)
