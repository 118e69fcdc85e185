"""Ways to change a file; its modification time stays, and its size where possible."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tasks.core.files import sha256_file

Change = Callable[[bytes], bytes]


def all_changes(flips: int) -> dict[str, Change]:
    """Changes by description: `flips` single bits flipped, one at a time, and coarser changes."""

    def turn(share: float, bit: int) -> Change:
        def change(content: bytes) -> bytes:
            offset = int(len(content) * share)
            flipped = bytes(byte ^ 1 << bit for byte in content[offset : offset + 1])
            return content[:offset] + flipped + content[offset + 1 :]

        return change

    def swap_halves(content: bytes) -> bytes:
        middle = len(content) // 2
        return content[middle:] + content[:middle]

    shares = np.random.default_rng(0).random(flips)
    turned = {
        f"bit {bit % 8} turned at {share:.1%}": turn(share, bit % 8)
        for bit, share in enumerate(shares)
    }
    return {
        **turned,
        "the last byte gone": lambda content: content[:-1],
        "half of it gone": lambda content: content[: len(content) // 2],
        "a byte more": lambda content: content + b"\n",
        "zeros": lambda content: bytes(len(content)),
        "two halves swapped": swap_halves,
        "empty": lambda _: b"",
    }


def each_change(file: Path, changes: Mapping[str, Change]) -> Iterator[str]:
    """Change the file in each way in turn and restore it; yields what was done.

    Its time and mode stay. A change that leaves the content as it was is skipped.
    """
    original, status = file.read_bytes(), file.stat()
    for how, change in changes.items():
        if (content := change(original)) != original:
            try:
                _put(file, content, status)
                yield how
            finally:
                _put(file, original, status)


def _put(file: Path, content: bytes, status: os.stat_result) -> None:
    if file.exists():
        file.chmod(0o644)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(status.st_mode & 0o777)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def kept_whole(directory: Path) -> Iterator[None]:
    """Restore the directory's files on exit."""
    kept = {file: (file.read_bytes(), file.stat()) for file in directory.iterdir()}
    try:
        yield
    finally:
        for file, (content, status) in kept.items():
            _put(file, content, status)


def contents(path: Path) -> dict[str, str]:
    """The sha256 of a file, or of each file of a directory."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file.relative_to(path)): sha256_file(file) for file in files if file.is_file()}


def remove(path: Path) -> None:
    """Remove a file or a directory, if it exists."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
