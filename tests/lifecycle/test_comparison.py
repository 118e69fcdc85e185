"""Comparing two bundles on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from exported import Exported, ship

from tasks.comparison import _ask, check_labels
from tasks.core.errors import BundleError, DataError
from tasks.inference.bundle import open_bundle
from tasks.shipping.workers import Worker


class Labelled:
    def __init__(self, name: str, *labels: str) -> None:
        self.directory, self.labels = Path(name), labels


@pytest.mark.parametrize(
    ("second", "comparable"), [("ab", True), ("abc", True), ("a", True), ("ac", False)]
)
def test_one_model_must_know_all_labels_of_the_other(second: str, comparable: bool) -> None:
    first: Any = Labelled("first", "a", "b")
    other: Any = Labelled("second", *second)
    if comparable:
        check_labels(first, other)
        return
    with pytest.raises(DataError, match=r"only the first has \['b'\], only the second \['c'\]"):
        check_labels(first, other)


def test_a_process_that_dies_is_told_of_its_bundle(exported: Exported, tmp_path: Path) -> None:
    info = open_bundle(ship(exported, tmp_path / "bundle"))
    worker = Worker("tasks.shipping.no_such_module", {})
    with pytest.raises(BundleError, match="cannot be run") as told:
        _ask(info, worker, do="outputs")
    worker.close()
    assert str(info.directory) in told.value.message
