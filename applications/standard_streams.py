"""Standard input and output in place of files, for pipes."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STANDARD = Path("-")


@contextmanager
def standard_streams(
    source: Path | None, target: Path | None
) -> Iterator[tuple[Path | None, Path | None]]:
    """Files for `-`: JSONL from standard input, and JSONL to standard output if no error occurs."""
    if STANDARD not in (source, target):
        yield source, target
        return
    with tempfile.TemporaryDirectory(prefix="ratchet-") as scratch:
        if source == STANDARD:
            source = Path(scratch, "stdin.jsonl")
            with source.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        written = Path(scratch, "stdout.jsonl") if target == STANDARD else target
        yield source, written
        if target == STANDARD and written is not None and written.is_file():
            sys.stdout.flush()
            with written.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
