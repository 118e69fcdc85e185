"""What a person sees on a real terminal, which libraries treat otherwise than a pipe."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from workspaces import STAGES, clean_environment, copy_workspace

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
# tqdm's bars, also cut by a narrow terminal, and what DVC's start with
DRAWN = re.compile(
    r"[a-z]/s\]|[\r\n]! *[\r\n]|Checking cache|Collecting files|[A-Z]\w+ing .*to cache"
)


def on_a_terminal(root: Path, *arguments: str) -> str:
    """What the command writes to a terminal of 110 columns, without control sequences."""
    ours, theirs = pty.openpty()
    environment = clean_environment() | {"TERM": "xterm-256color", "COLUMNS": "110"}
    process = subprocess.Popen(
        ["ratchet", *arguments],
        cwd=root,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 1 << 16):
            written += part
    except OSError:
        pass  # the other side is closed
    os.close(ours)
    assert process.wait(timeout=60) == 0, written
    return ANSI.sub("", written.decode("utf-8"))


@pytest.mark.parametrize("command", [("train",), ("train", "-S", "finetune.epochs=1"), ("status",)])
def test_no_library_draws_anything(
    template: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    shutil.rmtree(root / ".dvc" / "cache")  # DVC says most when it fills a new cache
    written = on_a_terminal(root, *command)
    assert not DRAWN.search(written)
    if command[0] == "train":
        assert set(STAGES) <= {line.split()[0] for line in written.splitlines() if line.strip()}
