"""Files changed so that neither their size nor their modification time shows it."""

from __future__ import annotations

import os
from pathlib import Path


def flip(file: Path, at: float = 0.5) -> None:
    """Flip one bit of a file, `at` this share of its length; size and modification time stay."""
    content = bytearray(file.read_bytes())
    content[min(int(len(content) * at), len(content) - 1)] ^= 1
    rewrite(file, bytes(content))


def rewrite(file: Path, content: bytes) -> None:
    """Overwrite a file in place; its modification time stays."""
    status = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.write(content)
        opened.truncate()
    file.chmod(status.st_mode & 0o777)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
