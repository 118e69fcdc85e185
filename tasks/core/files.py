"""Files that are whole or absent: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write a file or a directory to; it takes target's place only if the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch / target.name
        replace(scratch / target.name, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def replace(new: Path, target: Path) -> None:
    """Move `new` to `target`, whatever stood there; both must be on one file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if new.is_dir():
        # a directory cannot be renamed over another: the old one steps aside first
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        if target.exists():
            target.rename(aside / target.name)
        new.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        _flush(new)
        new.replace(target)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_path(path) as new:
        new.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; NaN and infinities are refused, for JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON document."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line, as they come, and return how many; no rows make an empty file."""
    count = 0
    with atomic_path(path) as new, new.open("w", encoding="utf-8", newline="\n") as file:
        for count, row in enumerate(rows, 1):  # noqa: B007 (what it is at last is returned)
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    return count


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line."""
    # never splitlines(): a text may hold U+2028, which is a line break to str but not to JSON
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex digest of a value's canonical JSON: keys sorted, no blanks."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
