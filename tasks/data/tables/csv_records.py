"""A CSV reader for malformed files: yields every record, with the reason if it is malformed.

If a quoted field is never closed, or text follows its closing quote, only the record's first line
is lost: reading continues at the next line, so that a stray quote never swallows the rows below.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MAX_RECORD = 16 * 2**20  # characters within which a quoted field must end


class Record(NamedTuple):
    """Record that starts at the 1-based `line`; `reason` is not empty if it is malformed."""

    line: int
    text: str
    fields: list[str]
    reason: str = ""


class RecordReader:
    """Iterates over the records in lines of CSV, line ends included; skips blank lines.

    quote   one character, doubled inside a quoted field; empty: quotes are plain characters
    """

    def __init__(self, lines: Iterable[str], delimiter: str, quote: str) -> None:
        self._lines = iter(lines)
        self._pushed: deque[str] = deque()
        self._delimiter, self._quote = delimiter, quote
        self.line = 0  # lines consumed so far
        d, q = re.escape(delimiter), re.escape(quote or "\0")
        self._plain = re.compile(f"[^{d}]*+")
        self._opening = re.compile(f" *+{q}")
        self._inside = re.compile(f"(?:[^{q}]|{q}{q})*+")
        self._after = re.compile(rf" *+({d}|\r?\n?\Z)")

    def __iter__(self) -> Iterator[Record]:
        while (text := self._next()) is not None:
            if text.strip("\r\n"):
                yield self._record(text)

    def _next(self) -> str | None:
        text = self._pushed.popleft() if self._pushed else next(self._lines, None)
        self.line += text is not None
        return text

    def _push(self, texts: list[str]) -> None:
        self._pushed.extendleft(reversed(texts))
        self.line -= len(texts)

    def _record(self, text: str) -> Record:
        line = self.line
        if not self._quote or self._quote not in text:
            return Record(line, text, _strip_line_end(text).split(self._delimiter))
        lines = [text]
        for skip_blanks in (True, False):
            fields, reason = self._fields(lines, skip_blanks)
            if not reason:
                return Record(line, "".join(lines), fields)
            self._push(lines[1:])
            del lines[1:]
        return Record(line, text, [], reason)

    def _fields(self, lines: list[str], skip_blanks: bool) -> tuple[list[str], str]:
        """(fields, '') of the record that starts at the last of `lines`, or ([], what is wrong).

        lines         further lines are appended while a quote is open
        skip_blanks   blanks before an opening quote are not part of the field
        """
        text, position = lines[-1], 0
        fields: list[str] = []
        while True:
            opening = self._opening.match(text, position)
            if opening is None or not (skip_blanks or text[position] == self._quote):
                plain = self._plain.match(text, position)
                assert plain is not None
                position = plain.end()
                if position == len(text):
                    return [*fields, _strip_line_end(plain[0])], ""
                fields.append(plain[0])
                position += 1
                continue
            parts, start = [], opening.end()
            while (end := self._end_of_quoted(text, start)) == len(text):
                parts.append(text[start:])
                following = self._next() if sum(map(len, lines)) < MAX_RECORD else None
                if following is None:
                    return [], "a quoted field is not closed"
                lines.append(following)
                text, start = following, 0
            parts.append(text[start:end])
            after = self._after.match(text, end + 1)
            if after is None:
                excerpt = _strip_line_end(text[end : end + 20])
                return [], f"text follows the closing quote of a field: {excerpt!r}"
            fields.append("".join(parts).replace(self._quote * 2, self._quote))
            position = after.end()
            if after[1] != self._delimiter:
                return fields, ""

    def _end_of_quoted(self, text: str, start: int) -> int:
        inside = self._inside.match(text, start)
        assert inside is not None
        return inside.end()


def _strip_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")
