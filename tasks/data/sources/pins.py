"""Compare files with pinned digests.

The bytes are hashed: size and modification time can be equal for different contents.
"""

from __future__ import annotations

import time
from pathlib import Path

from tasks.core.errors import SourceError
from tasks.core.files import sha256_file

_HASHED: dict[tuple[int, ...], str] = {}
_SETTLED_NS = 2 * 10**9  # two writes within one tick of the file system's clock get the same time


def sha256_once(path: Path) -> str:
    """`sha256_file`, cached within the process until the file's ctime changes.

    Unlike mtime, ctime cannot be set by a program.
    """
    status = path.stat()
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    digest = _HASHED.get(key) or sha256_file(path)
    if time.time_ns() - status.st_ctime_ns > _SETTLED_NS:
        _HASHED[key] = digest
    return digest


def compare_sha256(actual: str, wanted: str | None, address: str) -> None:
    """Raise SourceError if a digest differs from the pinned one; None pins nothing."""
    if wanted and actual != wanted:
        raise SourceError(
            f"{address}: its sha256 differs from the pinned one.\n"
            f"  expected {wanted}\n  found    {actual}",
            "Somebody changed the file, or the pin is wrong: find out which, "
            "then put the right sha256 into params.yaml.",
        )
