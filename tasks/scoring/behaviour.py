"""Small edits of a row's text that keep its class (CheckList, Ribeiro et al. 2020).

An edit depends on the row and the seed alone, not on the order or number of the rows.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

from tasks.core.arrays import Bools, Columns, Floats

Change = Callable[[str, random.Random], str]  # returns the text unchanged if it does not apply

# given names that are not also words; swapped within a group, so that pronouns still fit
_NAMES = (
    (
        "Amanda", "Andrea", "Anna", "Barbara", "Caroline", "Christina", "Deborah", "Elizabeth",
        "Emily", "Emma", "Hannah", "Helen", "Jennifer", "Jessica", "Julia", "Karen", "Katherine",
        "Laura", "Linda", "Lisa", "Maria", "Mary", "Megan", "Melissa", "Michelle", "Nancy",
        "Nicole", "Olivia", "Patricia", "Rachel", "Rebecca", "Samantha", "Sandra", "Sarah",
        "Sophia", "Stephanie", "Susan", "Victoria",
    ),
    (
        "Adam", "Alexander", "Andrew", "Anthony", "Benjamin", "Brian", "Charles", "Christopher",
        "Daniel", "David", "Edward", "Eric", "George", "Gregory", "Henry", "James", "Jason",
        "Jeffrey", "John", "Jonathan", "Joseph", "Joshua", "Kevin", "Matthew", "Michael",
        "Nicholas", "Patrick", "Paul", "Peter", "Richard", "Robert", "Ronald", "Ryan", "Samuel",
        "Stephen", "Steven", "Thomas", "Timothy", "William",
    ),
)  # fmt: skip
_CONTRACTIONS = {
    "aren't": "are not", "can't": "cannot", "couldn't": "could not", "didn't": "did not",
    "doesn't": "does not", "don't": "do not", "hadn't": "had not", "hasn't": "has not",
    "haven't": "have not", "isn't": "is not", "shouldn't": "should not", "wasn't": "was not",
    "weren't": "were not", "won't": "will not", "wouldn't": "would not", "i'm": "I am",
    "i've": "I have", "they're": "they are", "we're": "we are", "we've": "we have",
    "you're": "you are", "you've": "you have",
}  # fmt: skip
_EXPANSIONS = {
    long.lower(): "I" + short[1:] if short.startswith("i'") else short
    for short, long in _CONTRACTIONS.items()
}
_SHORT = re.compile(rf"\b(?:{'|'.join(_CONTRACTIONS)})\b", re.IGNORECASE)
_LONG = re.compile(rf"\b(?:{'|'.join(_EXPANSIONS)})\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{4,}")
_BLANK = re.compile(r"(?<=\S) (?=\S)")


@dataclass(frozen=True)
class BehaviourTest:
    """Rows to predict, and whether each output is as it should be.

    rows     altered or written rows, by column
    against  invariance and directional tests: the unaltered rows, in the same order
    passes   (outputs, outputs of `against` or None) -> (n,)
    """

    name: str
    kind: Literal["invariance", "directional", "minimum-functionality"]
    rows: Columns
    passes: Callable[[Floats, Floats | None], Bools]
    against: Columns | None = None


@dataclass(frozen=True)
class AlteredRows:
    """Rows before and after one kind of change, as values by column in the same order."""

    name: str
    before: dict[str, list[str]]
    after: dict[str, list[str]]


def invariance_rows(
    rows: Mapping[str, Sequence[str]],
    columns: Sequence[str],
    names: Sequence[str],
    count: int,
    seed: int,
) -> list[AlteredRows]:
    """Each kind of change in each column alone, on up to `count` distinct rows that it applies to.

    names   given names to swap, in addition to common English ones
    Kinds that apply to no row are left out.
    """
    changes: dict[str, Change] = {
        "lower case": lambda text, draw: text.lower(),
        "upper case": lambda text, draw: text.upper(),
        "one typo": swap_letters,
        "other names": partial(swap_names, groups=(*_NAMES, tuple(names))),
        "contractions": change_contractions,
        "final full stop": change_full_stop,
        "extra blanks": add_blanks,
    }
    ordered = spread_rows(zip(*(rows[column] for column in columns), strict=True), seed)
    sets = []
    for index, column in enumerate(columns):
        for name, change in changes.items():
            altered = list(islice(_altered(name, change, ordered, index, seed), count))
            if altered:
                before, after = (by_column(columns, side) for side in zip(*altered, strict=True))
                title = name if len(columns) == 1 else f"{name} ({column})"
                sets.append(AlteredRows(title, before, after))
    return sets


def by_column(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Turn rows into values by column."""
    return {column: [row[i] for row in rows] for i, column in enumerate(columns)}


def spread(texts: Iterable[str], seed: int) -> list[str]:
    """Distinct texts in a pseudo-random order that does not depend on the input order."""
    return [text for (text,) in spread_rows(((text,) for text in texts), seed)]


def spread_rows(rows: Iterable[tuple[str, ...]], seed: int) -> list[tuple[str, ...]]:
    """`spread` for rows of several texts."""

    def digest(row: tuple[str, ...]) -> bytes:
        text = f"{seed} {' '.join(row)}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    return sorted(set(rows), key=digest)


def swap_letters(text: str, draw: random.Random) -> str:
    """Swap two neighbouring letters inside a word of four letters or more, in scripts with case."""
    words = [word for word in _WORD.finditer(text) if word[0].lower() != word[0].upper()]
    positions = [
        i
        for word in words
        for i in range(word.start() + 1, word.end() - 1)
        if text[i] != text[i + 1]
    ]
    if not positions:
        return text
    i = draw.choice(positions)
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def swap_names(text: str, draw: random.Random, groups: Sequence[Sequence[str]] = _NAMES) -> str:
    """Replace each name by another of the same group, the same one throughout the text."""
    chosen: dict[str, str] = {}
    for group in groups:
        present = [name for name in group if re.search(rf"\b{re.escape(name)}\b", text)]
        others = [name for name in group if name not in present]
        if len(others) >= len(present):
            chosen.update(zip(present, draw.sample(others, len(present)), strict=True))
    if not chosen:
        return text
    pattern = rf"\b(?:{'|'.join(map(re.escape, chosen))})\b"
    return re.sub(pattern, lambda match: chosen[match[0]], text)


def change_contractions(text: str, draw: random.Random) -> str:
    """Expand English contractions; if there are none, contract what can be."""
    plain = text.replace("\u2019", "'")
    if _SHORT.search(plain):
        return _SHORT.sub(lambda match: _like(match[0], _CONTRACTIONS[match[0].lower()]), plain)
    return _LONG.sub(lambda match: _like(match[0], _EXPANSIONS[match[0].lower()]), text)


def change_full_stop(text: str, draw: random.Random) -> str:
    """Remove the final full stop, or add one to a text without final punctuation."""
    stripped = text.rstrip()
    if stripped.endswith(".") and not stripped.endswith(".."):
        return stripped[:-1]
    unfinished = stripped and stripped[-1].isascii() and stripped[-1].isalnum()
    return f"{stripped}." if unfinished else text


def add_blanks(text: str, draw: random.Random) -> str:
    """Double one blank between words and append one."""
    positions = [blank.start() for blank in _BLANK.finditer(text)]
    if not positions:
        return text
    i = draw.choice(positions)
    return f"{text[:i]} {text[i:]} "


def _altered(
    name: str, change: Change, ordered: Sequence[tuple[str, ...]], column_index: int, seed: int
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(row, row with that column changed) for each row that the change applies to."""
    for row in ordered:
        before = row[column_index]
        after = change(before, random.Random(f"{seed} {name} {' '.join(row)}"))
        if after != before and after.strip():
            yield row, (*row[:column_index], after, *row[column_index + 1 :])


def _like(original: str, words: str) -> str:
    """`words` in the case of `original`."""
    if original.isupper() and len(original) > 3:
        return words.upper()
    return words[0].upper() + words[1:] if original[0].isupper() else words
