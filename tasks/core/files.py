"""Atomic file writes (write next to the target, flush, rename), and readers that detect damage."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DamagedError

if TYPE_CHECKING:
    import pyarrow as pa

_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_AT_WORKING_DIRECTORY = -100
# the file system or kernel lacks it; EXDEV: overlayfs, for a directory of its lower layer
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path next to `target`; what is written there replaces it if the block succeeds.

    Raises IsADirectoryError if a file would take the place of a directory with all that is in it.
    """
    _make_directory(target.parent)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        new = scratch / target.name
        yield new
        if target.is_dir() and not new.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        replace(new, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def replace(new: Path, target: Path) -> None:
    """Replace `target`, a file, a directory or nothing, by `new`, and flush to disk.

    Both must be on one file system. Where the system can exchange two paths (Linux), `target` never
    goes missing. Elsewhere a directory is absent between two renames, and stays absent if the
    process is killed there: DVC or the stage restores it.
    """
    _make_directory(target.parent)
    _flush(new)
    # rename replaces a file by a file only; directories are exchanged
    if target.is_dir() or (new.is_dir() and os.path.lexists(target)):
        if not _exchange(new, target):
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.rename(aside / target.name)
            new.rename(target)
            shutil.rmtree(aside, ignore_errors=True)
        flush_directory(target.parent)
        if new.is_dir() and not new.is_symlink():
            shutil.rmtree(new, ignore_errors=True)
        else:
            new.unlink(missing_ok=True)
    else:
        new.replace(target)
        flush_directory(target.parent)


def flush_directory(directory: Path) -> None:
    """Flush the directory's entries to disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot flush directories
            raise
    finally:
        os.close(handle)


def _make_directory(directory: Path) -> None:
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing:
        flush_directory(path.parent)


def _flush(path: Path) -> None:
    """Flush a file, or a directory with everything in it."""
    for directory, _, files in os.walk(path):
        for name in files:
            _flush_file(Path(directory, name))
        flush_directory(Path(directory))
    if path.is_file():
        _flush_file(path)


def _flush_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _exchange(new: Path, target: Path) -> bool:
    """Exchange two paths atomically; return False, having done nothing, if the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    here, source, destination = _AT_WORKING_DIRECTORY, os.fsencode(new), os.fsencode(target)
    if renameat2(here, source, here, destination, _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(target))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as new:
        new.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; ValueError for NaN and infinities, which JSON lacks."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class _StoredObject(dict[str, Any]):
    """A JSON object read from a file; a missing key means the file is damaged, not a bug."""

    path = Path()

    def __missing__(self, key: str) -> Any:
        raise DamagedError(self.path, f"there is no '{key}'")


def read_json(path: Path) -> Any:
    """Read a JSON object.

    Raises DamagedError if it is none, and later when a missing key is looked up, at any depth.
    """

    def stored(pairs: list[tuple[str, Any]]) -> _StoredObject:
        value = _StoredObject(pairs)
        value.path = path
        return value

    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=stored)
    except ValueError as error:  # includes invalid UTF-8
        raise DamagedError(path, f"not valid JSON: {error}") from None
    except RecursionError:
        raise DamagedError(path, "not valid JSON: nested too deeply") from None
    if not isinstance(content, dict):
        raise DamagedError(path, f"wanted a JSON object, found {type(content).__name__}")
    return content


@contextmanager
def reading_table(path: Path) -> Iterator[None]:
    """Turn Arrow's errors about an unreadable Parquet file into a DamagedError."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        # an OSError of Arrow's own carries no errno
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedError(path, f"not a Parquet file that can be read: {error}") from None


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all or some columns of a Parquet file; DamagedError if it is not readable as one."""
    import pyarrow.parquet as pq

    with reading_table(path):
        return pq.read_table(path, columns=None if columns is None else list(columns))


def read_kept(path: Path, *keys: str) -> dict[str, Any] | None:
    """Read a JSON object that only saves work: None if it is missing, damaged or lacks a key."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.keys() >= set(keys) else None


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Stream one JSON object per line to a file, atomically; return how many (none: empty file)."""
    count = 0
    with atomic_path(path) as new, new.open("w", encoding="utf-8", newline="\n") as file:
        for count, row in enumerate(rows, 1):  # noqa: B007 (the last value is returned)
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    return count


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line."""
    # not splitlines(): a text may hold U+2028, which is a line break to str but not to JSON
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no whitespace), in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
