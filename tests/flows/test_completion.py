"""What the shell offers after Tab, asked as a shell asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from workspaces import run

from tasks.params.workspace import Workspace


def offered(directory: Path, line: str) -> list[str]:
    words = line.split(" ")
    asked = {
        "_RATCHET_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    return run(directory, "ratchet", **asked).stdout.split()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("ratchet init x --problem text-p", ["text-pair", "text-pair-score"]),
        ("ratchet train -S finetune.learn", ["finetune.learning_rate="]),
        (
            "ratchet train -S validate.min_rows",
            ["validate.min_rows=", "validate.min_rows_per_class="],
        ),
        ("ratchet predict --alias ", ["challenger"]),
        ("ratchet predict --version ", ["1"]),
        ("ratchet promote ", ["challenger", "1"]),
        ("ratchet compare 1 ch", ["challenger"]),
    ],
)
def test_tab_offers_what_fits(line: str, answers: list[str], template: Path) -> None:
    assert offered(template, line) == answers


def test_outside_a_workspace_nothing_is_offered(tmp_path: Path) -> None:
    assert offered(tmp_path, "ratchet promote ") == []


def test_another_workspaces_versions_are_offered(tmp_path: Path, template: Path) -> None:
    assert offered(tmp_path, f"ratchet -C {template} promote ") == ["challenger", "1"]
    assert not Workspace(tmp_path).store.exists()
