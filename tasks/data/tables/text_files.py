"""Convert text files of any encoding to UTF-8, to be read line by line."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO, cast

from tasks.core.errors import DataError
from tasks.core.foreign import require_bounded

if TYPE_CHECKING:
    from tasks.params.ingestion import Source

_CHUNK = 2**23
_MAX_BAD_SHARE = 0.01  # of lines; above it, the encoding is assumed wrong, not the lines damaged
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    # before UTF-16: the little-endian marks of both begin with the same bytes
    *((codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")),
    *((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")),
)
# binary formats: first bytes, name, remedy
_FORMATS = (
    (b"\x1f\x8b", "gzip", "Add .gz to its name (rows.csv.gz), or unpack it (`gunzip`)."),
    (
        b"PK\x03\x04",
        "a zip archive or Excel file",
        "Add .zip to its name (rows.csv.zip) or unpack it (`unzip`); name a spreadsheet .xlsx.",
    ),
    (
        b"PAR1\x15",
        "Parquet",
        "Give it the ending .parquet.",
    ),
)
_ESCAPED = re.compile("[\udc00-\udcff]")


def _escape(error: UnicodeError) -> tuple[str, int]:
    # surrogateescape, extended to bytes below 0x80, which can be invalid in utf-16
    assert isinstance(error, UnicodeDecodeError)
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("ratchet-escape", _escape)


@dataclass(frozen=True)
class Text:
    """A UTF-8 file without a byte order mark whose lines end in \\n or \\r\\n.

    damaged   number of lines with undecodable bytes
    """

    path: Path
    damaged: int = 0

    @contextmanager
    def open(self) -> Iterator[TextIO]:
        """Open the file, line ends kept; undecodable bytes are surrogates (see `undecodable`)."""
        # newline="\n": a lone \r or U+2028 does not end a line
        with self.path.open(encoding="utf-8", errors="surrogatepass", newline="\n") as file:
            yield file


def undecodable(text: str) -> str:
    """Description of a line's first undecodable byte; '' if there is none."""
    match = _ESCAPED.search(text)
    if not match:
        return ""
    byte = ord(match[0]) - 0xDC00
    return f"byte 0x{byte:02x} at character {match.start() + 1} is not of the file's encoding"


def as_utf8(path: Path, name: str, source: Source, scratch: Path) -> Text:
    """The file itself if it is plain UTF-8, else a UTF-8 copy at `scratch`.

    name   the file's name in messages
    A byte order mark overrides the source's encoding.
    Raises DataError if the file is damaged, or more than 1 % of the lines cannot be decoded.
    """
    try:
        return _as_utf8(path, name, source, scratch)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{name}: damaged gzip file, or not yet complete: {error}.",
            "Fetch or compress it again.",
        ) from None


def _as_utf8(path: Path, name: str, source: Source, scratch: Path) -> Text:
    encoding, bom = _encoding(path, name, source)
    if not bom and not _is_gzip(path) and _is_plain(path, encoding):
        return Text(path)
    damage, packed, size = _Damage(), path.stat().st_size, 0
    with (
        _open(path) as file,
        scratch.open("w", encoding="utf-8", errors="surrogatepass", newline="") as copy,
    ):
        file.read(bom)
        decoder = codecs.getincrementaldecoder(encoding)(errors="ratchet-escape")
        only_cr, pending = None, ""
        while True:
            chunk = file.read(_CHUNK)
            size += len(chunk)
            require_bounded(size, packed, name)
            # \r\n may be split across two chunks
            text = pending + decoder.decode(chunk, final=not chunk)
            pending = "\r" if chunk and text.endswith("\r") else ""
            text = text.removesuffix(pending)
            if only_cr is None:
                only_cr = "\r" in text and "\n" not in text  # line ends of classic Mac OS
            if only_cr:
                text = text.replace("\r", "\n")
            damage.count(text)
            copy.write(text)
            if not chunk:
                break
    damage.check(name, encoding, source)
    return Text(scratch, damage.lines)


class _Damage:
    """Counts lines and lines with undecodable bytes."""

    def __init__(self) -> None:
        self.lines = self.total = 0
        self.open = False
        self.first: tuple[int, int] | None = None  # line, byte value

    def count(self, text: str) -> None:
        if _ESCAPED.search(text):
            for number, line in enumerate(text.split("\n"), self.total + 1):
                if match := _ESCAPED.search(line):
                    self.lines += 1
                    self.first = self.first or (number, ord(match[0]) - 0xDC00)
        self.total += text.count("\n")
        self.open = not text.endswith("\n") if text else self.open  # last line without a line end

    def check(self, name: str, encoding: str, source: Source) -> None:
        if self.first and self.lines > _MAX_BAD_SHARE * max(1, self.total):
            line, byte = self.first
            total = self.total + self.open
            raise DataError(
                f"{name}, line {line}: byte 0x{byte:02x} is not {encoding}; "
                f"{self.lines} of {total} lines have such bytes.",
                "Save the file as UTF-8, or say its encoding, such as cp1252. "
                f"{source.setting('encoding', 'cp1252')}",
            )


def _encoding(path: Path, name: str, source: Source) -> tuple[str, int]:
    """(encoding, length of the byte order mark); the source's applies if there is no mark."""
    with _open(path) as file:
        head = file.read(4096)
    for magic, file_format, remedy in _FORMATS:
        if head.startswith(magic):
            raise DataError(f"{name}: its content is {file_format}; wanted text.", remedy)
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding, len(mark)
    encoding = codecs.lookup(source.encoding).name
    if encoding in ("utf-16", "utf-32"):
        raise DataError(
            f"{name}: {encoding} without a byte order mark: which byte comes first is unknown.",
            source.setting("encoding", f"{encoding}-le"),
        )
    if head.count(0) > len(head) // 5 and not encoding.startswith(("utf-16", "utf-32")):
        raise DataError(
            f"{name}: {head.count(0)} of the first {len(head)} bytes are NUL: "
            "UTF-16 without a byte order mark, or not a text file.",
            f"If it is text: {source.setting('encoding', 'utf-16-le')}",
        )
    return encoding, 0


def _is_plain(path: Path, encoding: str) -> bool:
    """Whether the file is valid UTF-8 whose line ends are not \\r alone."""
    if encoding != "utf-8":
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    first = True
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if first and b"\r" in chunk and b"\n" not in chunk:
                return False
            first = False
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                return False
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if _is_gzip(path) else path.open("rb")
