"""Files that are whole or absent: written beside their place, flushed to disk, then renamed."""

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
# a file system or kernel without it; EXDEV: overlayfs, of a directory of its lower layer
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write a file or a directory to; it takes target's place only if the block ends well."""
    _make_directory(target.parent)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch / target.name
        replace(scratch / target.name, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def replace(new: Path, target: Path) -> None:
    """Move `new` to `target`, whatever stood there, and flush both to the disk; both must be on one file system.

    Target's place is never empty where the system can exchange two paths (Linux). Elsewhere a directory is absent for the moment
    between two renames, and a kill in that moment leaves it so: DVC or the stage brings it back.
    """
    _make_directory(target.parent)
    _flush(new)
    # only a file can be renamed over a file
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
    """Have the disk know the directory's present entries."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that flushes no directories
            raise
    finally:
        os.close(handle)


def _make_directory(directory: Path) -> None:
    made = [place for place in (directory, *directory.parents) if not place.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for place in made:
        flush_directory(place.parent)


def _flush(path: Path) -> None:
    """A file's content, or that of every file in a directory and the directories' entries."""
    for directory, _, files in os.walk(path):
        for name in files:
            _flush_file(Path(directory, name))
        flush_directory(Path(directory))
    if path.is_file():
        _flush_file(path)


def _flush_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; False, and nothing done, where the system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if (
        call(
            _AT_WORKING_DIRECTORY,
            os.fsencode(one),
            _AT_WORKING_DIRECTORY,
            os.fsencode(other),
            _EXCHANGE,
        )
        == 0
    ):
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_path(path) as new:
        new.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; NaN and infinities are refused, for JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class _KeptObject(dict[str, Any]):
    """A JSON object of a file; a key that it lacks is damage of the file, not a bug of the reader."""

    path = Path()

    def __missing__(self, key: str) -> Any:
        raise DamagedError(self.path, f"there is no '{key}'")


def read_json(path: Path) -> Any:
    """Read a JSON object; DamagedError where it is none, and later where a key that is asked for is missing."""

    def kept(pairs: list[tuple[str, Any]]) -> _KeptObject:
        made = _KeptObject(pairs)
        made.path = path
        return made

    try:
        found = json.loads(path.read_bytes(), object_pairs_hook=kept)
    except ValueError as error:  # also of bytes that are not UTF-8
        raise DamagedError(path, f"not valid JSON: {error}") from None
    except RecursionError:
        raise DamagedError(path, "not valid JSON: nested too deep") from None
    if not isinstance(found, dict):
        raise DamagedError(path, f"wanted a JSON object, found {type(found).__name__}")
    return found


@contextmanager
def reading_table(path: Path) -> Iterator[None]:
    """What Arrow says of a Parquet file that it cannot read as a DamagedError."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (
        pa.ArrowInvalid,
        pa.ArrowKeyError,
        OSError,
    ) as error:  # its own OSErrors carry no number
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedError(path, f"not a Parquet file that can be read: {error}") from None


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file, of all columns or some; DamagedError where it is none."""
    import pyarrow.parquet as pq

    with reading_table(path):
        return pq.read_table(path, columns=None if columns is None else list(columns))


def read_kept(path: Path, *keys: str) -> dict[str, Any] | None:
    """A JSON object that is kept to save work: None where it is missing, damaged or lacks a key, for it can be done without."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.keys() >= set(keys) else None


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
