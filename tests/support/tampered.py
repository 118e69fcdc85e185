"""Files changed so that neither their size nor their time tells."""

from __future__ import annotations

import os
from pathlib import Path


def flip(file: Path, at: float = 0.5) -> None:
    """Turn one bit of a file, at that share of its length; size and modification time stay."""
    content = bytearray(file.read_bytes())
    content[min(int(len(content) * at), len(content) - 1)] ^= 1
    rewrite(file, bytes(content))


def rewrite(file: Path, content: bytes) -> None:
    """Write other bytes in place; the modification time stays, and of as many bytes the size."""
    status = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.write(content)
        opened.truncate()
    file.chmod(status.st_mode & 0o777)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
