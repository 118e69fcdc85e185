"""Text files as UTF-8, whatever encoding they came in, with what is needed to read them line by line."""

from __future__ import annotations

import codecs
import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO, cast

from tasks.core.errors import DataError, ParamsError

_CHUNK = 2**23
_MAX_BAD_SHARE = (
    0.01  # of lines; above it the encoding is taken to be a wrong guess, not the lines damaged
)
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
         (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))  # fmt: skip
# bytes that begin what is no text: what it is, and what to do
_FORMATS = (
    (b"\x1f\x8b", "gzip", "Give it the ending .gz, or unpack it (`gunzip`)."),
    (
        b"PK\x03\x04",
        "a zip archive, or an Excel file",
        "Unpack it (`unzip`), or save the sheet as CSV.",
    ),
    (
        b"PAR1\x15",
        "Parquet",
        "Give it the ending .parquet, or set `format: parquet` beside its `url`.",
    ),
)
_ESCAPED = re.compile("[\udc00-\udcff]")


def _escape(error: UnicodeError) -> tuple[str, int]:
    # as surrogateescape does, but for bytes below 0x80 too, which utf-16 may stumble on
    assert isinstance(error, UnicodeDecodeError)
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("ratchet-escape", _escape)


@dataclass(frozen=True)
class Text:
    """A UTF-8 file without a byte order mark, its lines ended by \\n or \\r\\n.

    damaged   lines that hold bytes which could not be decoded
    """

    path: Path
    damaged: int = 0

    @contextmanager
    def open(self) -> Iterator[TextIO]:
        """The text, line ends kept; an undecodable byte comes as the surrogate that `undecodable` knows."""
        # newline="\n": a lone \r, or U+2028, is part of a line
        with self.path.open(encoding="utf-8", errors="surrogatepass", newline="\n") as file:
            yield file


def undecodable(text: str) -> str:
    """What cannot be decoded in a line, in words; '' where all of it could."""
    found = _ESCAPED.search(text)
    return (
        f"byte 0x{ord(found[0]) - 0xDC00:02x} at character {found.start() + 1} is not of the file's encoding"
        if found
        else ""
    )


def as_utf8(source: Path, name: str, encoding: str, scratch: Path) -> Text:
    """The file as UTF-8: itself where it is that already, else a copy at `scratch`.

    name   what the user calls the file
    A byte order mark wins over `encoding`. Raises DataError where more than 1 % of the lines cannot be decoded.
    """
    encoding, bom = _encoding(source, name, encoding)
    if not bom and not source.name.endswith(".gz") and _is_plain(source, encoding):
        return Text(source)
    damage = _Damage()
    with (
        _open(source) as file,
        scratch.open("w", encoding="utf-8", errors="surrogatepass", newline="") as copy,
    ):
        file.read(bom)
        decoder = codecs.getincrementaldecoder(encoding)(errors="ratchet-escape")
        only_cr, held = None, ""
        while True:
            chunk = file.read(_CHUNK)
            # \r\n may lie across two chunks
            text = held + decoder.decode(chunk, final=not chunk)
            held = "\r" if chunk and text.endswith("\r") else ""
            text = text[: len(text) - len(held)]
            if only_cr is None:
                only_cr = "\r" in text and "\n" not in text  # the line end of old Macs
            if only_cr:
                text = text.replace("\r", "\n")
            damage.count(text)
            copy.write(text)
            if not chunk:
                break
    damage.check(name, encoding)
    return Text(scratch, damage.lines)


class _Damage:
    """Counts lines, and those with undecodable bytes."""

    def __init__(self) -> None:
        self.lines = self.total = 0
        self.open = False
        self.first: tuple[int, int] | None = None  # line, byte value

    def count(self, text: str) -> None:
        if _ESCAPED.search(text):
            for number, line in enumerate(text.split("\n"), self.total + 1):
                if found := _ESCAPED.search(line):
                    self.lines += 1
                    self.first = self.first or (number, ord(found[0]) - 0xDC00)
        self.total += text.count("\n")
        self.open = not text.endswith("\n") if text else self.open  # a last line without an end

    def check(self, name: str, encoding: str) -> None:
        if self.first and self.lines > _MAX_BAD_SHARE * max(1, self.total):
            line, byte = self.first
            total = self.total + self.open
            raise DataError(
                f"{name}, line {line}: byte 0x{byte:02x} is not {encoding}; {self.lines} of {total} lines have such bytes.",
                "Name the file's encoding, for example `ingest.sources.N.encoding: cp1252` (N is the source's number, from 0), "
                "or save the file as UTF-8.",
            )


def _encoding(source: Path, name: str, declared: str) -> tuple[str, int]:
    """The encoding, and the length of the byte order mark that says so."""
    with _open(source) as file:
        head = file.read(4096)
    for mark, what, remedy in _FORMATS:
        if head.startswith(mark):
            raise DataError(f"{name}: its bytes are those of {what}; wanted is text.", remedy)
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding, len(mark)
    try:
        found = codecs.lookup(declared).name
        "".encode(found)
    except LookupError:
        raise ParamsError(
            f"ingest.sources: no encoding is called '{declared}'.",
            "For example: utf-8, cp1252, latin-1, utf-16-le, gb18030.",
        ) from None
    if head.count(0) > len(head) // 5 and not found.startswith(("utf-16", "utf-32")):
        raise DataError(
            f"{name}: {head.count(0)} of the first {len(head)} bytes are NUL: UTF-16 without a byte order mark, or no text at all.",
            "If it is text, name its encoding: `ingest.sources.N.encoding: utf-16-le` (N is the source's number, from 0).",
        )
    return found, 0


def _is_plain(source: Path, encoding: str) -> bool:
    """True for valid UTF-8 that has line ends other than \\r alone."""
    if encoding != "utf-8":
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    first = True
    with source.open("rb") as file:
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


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.name.endswith(".gz") else path.open("rb")
