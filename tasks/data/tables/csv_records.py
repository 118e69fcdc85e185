"""CSV records one by one, each either good or set aside with the reason: the careful reader for files that are not all well-formed.

A record that a quote opens and nothing closes, or whose closing quote is followed by more text, costs its first line only:
reading goes on at the next line, so that one stray quote never swallows the rows after it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MAX_RECORD = 16 * 2**20  # characters that a quoted field is looked for an end in


class Record(NamedTuple):
    """Fields of the record that starts at the 1-based `line`; `reason` says why it is malformed, if it is."""

    line: int
    text: str
    fields: list[str]
    reason: str = ""


class RecordReader:
    """Iterates over the records of a CSV file given as lines with their line ends; blank lines are none.

    quote   one character, doubled to stand for itself; empty: quotes are plain characters
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
            return Record(line, text, _end(text).split(self._delimiter))
        taken = [text]
        for spaces in (True, False):
            fields, reason = self._fields(taken, spaces)
            if not reason:
                return Record(line, "".join(taken), fields)
            self._push(taken[1:])
            del taken[1:]
        return Record(line, text, [], reason)

    def _fields(self, taken: list[str], spaces: bool) -> tuple[list[str], str]:
        """Fields from the last line of `taken` on, which grows while a quote is open; or what is wrong.

        spaces   blanks before an opening quote are not part of the field
        """
        text, position = taken[-1], 0
        fields: list[str] = []
        while True:
            opening = self._opening.match(text, position)
            if opening is None or not (spaces or text[position] == self._quote):
                plain = self._plain.match(text, position)
                assert plain is not None
                position = plain.end()
                if position == len(text):
                    return [*fields, _end(plain[0])], ""
                fields.append(plain[0])
                position += 1
                continue
            parts, start = [], opening.end()
            while (end := self._end_of_quoted(text, start)) == len(text):
                parts.append(text[start:])
                following = self._next() if sum(map(len, taken)) < MAX_RECORD else None
                if following is None:
                    return [], "a quoted field is not closed"
                taken.append(following)
                text, start = following, 0
            parts.append(text[start:end])
            after = self._after.match(text, end + 1)
            if after is None:
                return (
                    [],
                    f"text follows the closing quote of a field: {_end(text[end : end + 20])!r}",
                )
            fields.append("".join(parts).replace(self._quote * 2, self._quote))
            position = after.end()
            if after[1] != self._delimiter:
                return fields, ""

    def _end_of_quoted(self, text: str, start: int) -> int:
        inside = self._inside.match(text, start)
        assert inside is not None
        return inside.end()


def _end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")
