"""The README's commands work, those of docs/ exist, and links lead somewhere.

The README's commands run as written, except for the learning rate, on tiny data and a tiny model.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_rows
from workspaces import FAST, ratchet, run, write_csv

from tasks.params.schema import save_overrides

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.S)
COMMANDS = [
    shlex.split(line, comments=True)
    for block in BLOCKS
    for line in block.splitlines()
    if line.strip()
]

# little data is weak evidence: the gates ask for less, but not for nothing
EASY = (
    "promotion.max_ece=0.9",
    "promotion.min_pass_rates={invariance: 0.3, directional: 0.3, minimum_functionality: null}",
)


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 8
    assert {command[0] for command in COMMANDS} == {"make", "ratchet"}


TARGETS = {command[1] for command in COMMANDS if command[0] == "make"}


@pytest.mark.parametrize("target", sorted(TARGETS | {"lint", "docs-check", "clean"}))
def test_make_knows_its_targets(target: str) -> None:
    assert run(ROOT, "make", "--dry-run", target).stdout.strip()


def test_the_commands_work_in_their_order(base_dir: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "reviews.csv", tiny_rows(300))
    write_csv(tmp_path / "new.csv", {"text": ["a good and lovely film", "a bad, broken phone"]})
    done = []
    for command in (command for command in COMMANDS if command[0] == "ratchet"):
        # at 3e-5 the tiny model learns nothing, and is refused
        arguments = [word.replace("3e-5", "3e-3") for word in command[1:]]
        if arguments[0] == "init":
            done.append(ratchet(tmp_path, *arguments, "--base-model", str(base_dir)).stdout)
            save_overrides(tmp_path / "reviews" / "params.yaml", (*FAST, *EASY))
        else:
            newcomer = len(done) == 1  # the first training: nobody has a Prefect server yet
            done.append(ratchet(tmp_path, *arguments, server=not newcomer).stdout)
    assert len(done) >= 6
    assert "version 1" in done[1]
    assert len((tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    folders = "tasks|tests|flows|applications|benchmarks|examples"
    for name in re.findall(rf"`((?:{folders})/[\w./]+)`", text):
        assert (ROOT / name).exists(), name
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_the_commands_of_a_page_are_ones_that_exist(page: Path) -> None:
    """Every `ratchet …` of a code block is parsed, options included, but not run."""
    from typer.main import get_command

    import flows.cli.main  # noqa: F401, the commands join the app
    from flows.cli.console import app

    root: Any = get_command(app)
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = [
        re.sub(r"^\$ (\.venv/bin/)?", "", line) for block in blocks for line in block.splitlines()
    ]
    commands = (line for line in lines if line.startswith("ratchet ") and "[OPTIONS]" not in line)
    for line in commands:
        for words in (shlex.split(part, comments=True) for part in line.split(" && ")):
            if words[:1] != ["ratchet"]:
                continue
            context = root.make_context("ratchet", words[1:])
            arguments = [*context._protected_args, *context.args]  # typer's own name for them
            name, command, rest = root.resolve_command(context, arguments)
            assert command is not None, line
            command.make_context(name, rest, parent=context)


def test_the_references_are_what_the_schema_and_the_commands_say() -> None:
    assert run(ROOT, sys.executable, ".ci/reference.py", "--check").returncode == 0


def test_the_stage_table_is_complete() -> None:
    from tasks.pipeline import STAGES

    page = (ROOT / "docs" / "stages.md").read_text(encoding="utf-8")
    for stage in STAGES:
        assert re.search(rf"^\| {stage.name} \|", page, re.M), stage.name


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.search(r"^(TRANSCRIPT|RESULTS)$", README, re.M)
