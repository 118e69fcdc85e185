"""Zip archives that somebody else made: Excel files, wheels and zipped data."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath

from tasks.core.errors import SourceError
from tasks.core.files import atomic_path
from tasks.core.foreign import foreign_file, require_bounded

_CHUNK = 2**20


class Archive:
    """An open zip archive; whatever is wrong with it is a SourceError.

    name    the archive in messages
    remedy  what to do about a damaged one
    """

    def __init__(self, path: Path, name: str, remedy: str) -> None:
        self._name, self._remedy = name, remedy
        with self._damaged():
            self._file = zipfile.ZipFile(path)
            self.members = [entry.filename for entry in self._file.infolist() if not entry.is_dir()]
            self._packed = path.stat().st_size

    def _damaged(self) -> AbstractContextManager[None]:
        return foreign_file(f"{self._name}: damaged, or not a zip archive", self._remedy)

    def require_bounded(self) -> None:
        """Check what all members unpack to; a reader that unpacks by itself trusts their sizes."""
        size = sum(entry.file_size for entry in self._file.infolist())
        require_bounded(size, self._packed, self._name)

    def extract(self, member: str, target: Path) -> None:
        """Write a member to `target`, unless it is there already, byte for byte.

        Raises SourceError if the member's name leads out of a directory.
        """
        climbs = ".." in PurePosixPath(member.replace("\\", "/")).parts
        if climbs or member.startswith(("/", "\\")) or ":" in member:
            raise SourceError(
                f"{self._name}: the member {member!r} points outside the archive.",
                "Do not use that archive.",
            )
        if target.is_file() and self._equals(member, target):
            return
        with atomic_path(target) as new, new.open("wb") as file:
            for chunk in self._chunks(member):
                file.write(chunk)

    def _equals(self, member: str, file: Path) -> bool:
        with file.open("rb") as opened:
            same = all(opened.read(len(chunk)) == chunk for chunk in self._chunks(member))
            return same and not opened.read(1)

    def _chunks(self, member: str) -> Iterator[bytes]:
        size = 0
        with self._damaged():
            opened = self._file.open(member)
        with opened:
            while True:
                with self._damaged():
                    chunk = opened.read(_CHUNK)
                if not chunk:
                    return
                size += len(chunk)
                require_bounded(size, self._packed, f"{self._name}: {member}")
                yield chunk

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def open_archive(path: Path, name: str, remedy: str) -> Iterator[Archive]:
    """Open a zip archive; see Archive."""
    archive = Archive(path, name, remedy)
    try:
        yield archive
    finally:
        archive.close()
