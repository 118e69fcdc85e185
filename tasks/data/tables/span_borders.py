"""Whether character spans are counted as ours: in code points, the end exclusive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.errors import DataError


@dataclass
class SpanBorders:
    """Counts spans, and those that cut a word but would not by another convention of offsets."""

    spans: int = 0
    shifted: int = 0
    example: str = ""

    def add(self, text: str, spans: Sequence[tuple[int, int, str]]) -> None:
        """Add a row."""
        for start, end, _ in spans:
            self.spans += 1
            if is_shifted(text, start, end):
                self.shifted += 1
                border = end if cuts_word(text, end) else start
                before, after = text[:border].split()[-1:], text[border:].split()[:1]
                self.example = self.example or "|".join([*before, *after])

    def require_words(self) -> None:
        """Raise DataError if most spans have offsets of another convention."""
        if 2 * self.shifted > self.spans:
            raise DataError(
                f"ingest: {self.shifted / self.spans:.0%} of the spans begin or end inside a word, "
                f"as in '{self.example}', and would not with other offsets.",
                "Wanted: offsets in characters (Unicode code points), the end exclusive. Add 1 to "
                "ends that are inclusive; convert offsets in bytes or in UTF-16 units.",
            )


def cuts_word(text: str, border: int) -> bool:
    """Whether a border lies between two letters of a word.

    Only letters with upper and lower case: other scripts do not separate words.
    """
    around = text[border - 1 : border + 1] if border else ""
    return len(around) == 2 and all(c.isalpha() and c.lower() != c.upper() for c in around)


def is_shifted(text: str, start: int, end: int) -> bool:
    """Whether a span cuts a word, but not if its end is inclusive or it counts bytes or UTF-16.

    Parts of words that are meant, such as a stem, are not mended by either.
    """

    def cuts(first: int, last: int) -> bool:
        return cuts_word(text, first) or cuts_word(text, last)

    if not cuts(start, end):
        return False
    if not cuts(start, end + 1) and text[end : end + 1].strip():
        return True
    for encoding, unit in (("utf-8", 1), ("utf-16-le", 2)):
        encoded = text.encode(encoding, "surrogatepass")
        first, last = (
            len(encoded[: unit * offset].decode(encoding, "ignore")) for offset in (start, end)
        )
        if (first, last) != (start, end) and not cuts(first, last):
            return True
    return False
