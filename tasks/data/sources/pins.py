"""What a file holds, against what is pinned: the bytes are read, for size and time can be the same of other bytes."""

from __future__ import annotations

import time
from pathlib import Path

from tasks.core.errors import SourceError
from tasks.core.files import sha256_file

_HASHED: dict[tuple[int, ...], str] = {}
_SETTLED_NS = 2 * 10**9  # two writes within one tick of a file system's clock leave the same time


def sha256_once(path: Path) -> str:
    """`sha256_file`, read once a process for as long as nobody writes to the file: its change time, which cannot be set, tells."""
    status = path.stat()
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    found = _HASHED.get(key) or sha256_file(path)
    if time.time_ns() - status.st_ctime_ns > _SETTLED_NS:
        _HASHED[key] = found
    return found


def compare_sha256(found: str, wanted: str | None, address: str) -> None:
    """Raise SourceError where a digest is not the one that is pinned; None pins nothing."""
    if wanted and found != wanted:
        raise SourceError(
            f"{address}: its sha256 is not the one that is pinned.\n  expected {wanted}\n  found    {found}",
            "Somebody changed the file, or the pin is wrong: find out which, then put the right sha256 into params.yaml.",
        )
