"""The README's commands are run as they stand; only what would take minutes is made small."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tiny import tiny_rows
from workspaces import FAST, ratchet, run, write_csv

from tasks.core.params import save_overrides

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.S)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if line.strip()]

# so little data shows little: the gates are asked for less, not for nothing
EASY = ("promotion.max_ece=0.9", "promotion.min_pass_rates={invariance: 0.3, directional: 0.3, minimum_functionality: null}")


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 8
    assert {command[0] for command in COMMANDS} == {"make", "ratchet"}


@pytest.mark.parametrize("target", sorted({command[1] for command in COMMANDS if command[0] == "make"} | {"lint", "docs-check", "clean"}))
def test_make_knows_its_targets(target: str) -> None:
    run(ROOT, "make", "--dry-run", target)


def test_the_commands_work_in_their_order(base_dir: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "reviews.csv", tiny_rows(300))
    write_csv(tmp_path / "new.csv", {"text": ["a good and lovely film", "a bad, broken phone"]})
    done = []
    for command in (command for command in COMMANDS if command[0] == "ratchet"):
        arguments = [word.replace("3e-5", "3e-3") for word in command[1:]]  # at 3e-5 the tiny model learns nothing, and is refused
        if arguments[0] == "init":
            done.append(ratchet(tmp_path, *arguments, "--base-model", str(base_dir)).stdout)
            save_overrides(tmp_path / "reviews" / "params.yaml", (*FAST, *EASY))
        else:
            newcomer = len(done) == 1  # the first training: nobody has a Prefect server yet
            done.append(ratchet(tmp_path, *arguments, server=not newcomer).stdout)
    assert len(done) >= 6
    assert "version 1" in done[1]
    assert len((tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_the_files_it_names_are_there() -> None:
    for name in re.findall(r"`((?:tasks|tests|flows)/[\w./]+)`", README):
        assert (ROOT / name).exists(), name


def test_the_stage_table_is_complete() -> None:
    from tasks.pipeline import STAGES

    for stage in STAGES:
        assert re.search(rf"^\| {stage.name} \|", README, re.M), stage.name


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.search(r"^(TRANSCRIPT|RESULTS)$", README, re.M)
