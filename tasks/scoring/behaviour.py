"""Small changes of a row's text that leave its class as it was (CheckList, Ribeiro et al. 2020).

Each change rests on the row and the seed alone, so that neither the rows' order nor their number matters.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

Change = Callable[[str, random.Random], str]  # gives the text back where it does not apply

# given names that are no words; swapped within a line, so that pronouns still fit
_NAMES = (
    (
        "Amanda", "Andrea", "Anna", "Barbara", "Caroline", "Christina", "Deborah", "Elizabeth", "Emily", "Emma", "Hannah",
        "Helen", "Jennifer", "Jessica", "Julia", "Karen", "Katherine", "Laura", "Linda", "Lisa", "Maria", "Mary", "Megan",
        "Melissa", "Michelle", "Nancy", "Nicole", "Olivia", "Patricia", "Rachel", "Rebecca", "Samantha", "Sandra", "Sarah",
        "Sophia", "Stephanie", "Susan", "Victoria",
    ),
    (
        "Adam", "Alexander", "Andrew", "Anthony", "Benjamin", "Brian", "Charles", "Christopher", "Daniel", "David", "Edward",
        "Eric", "George", "Gregory", "Henry", "James", "Jason", "Jeffrey", "John", "Jonathan", "Joseph", "Joshua", "Kevin",
        "Matthew", "Michael", "Nicholas", "Patrick", "Paul", "Peter", "Richard", "Robert", "Ronald", "Ryan", "Samuel", "Stephen",
        "Steven", "Thomas", "Timothy", "William",
    ),
)  # fmt: skip
_CONTRACTIONS = {
    "aren't": "are not", "can't": "cannot", "couldn't": "could not", "didn't": "did not", "doesn't": "does not", "don't": "do not",
    "hadn't": "had not", "hasn't": "has not", "haven't": "have not", "isn't": "is not", "shouldn't": "should not", "wasn't": "was not",
    "weren't": "were not", "won't": "will not", "wouldn't": "would not", "i'm": "I am", "i've": "I have", "they're": "they are",
    "we're": "we are", "we've": "we have", "you're": "you are", "you've": "you have",
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
class AlteredRows:
    """Rows and what became of them by column, in the same order."""

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
    """Each kind of change in each of the columns, the others left as they are, of at most `count` distinct rows that it applies to.

    names   given names to swap, beside the usual English ones
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
    found = []
    for place, column in enumerate(columns):
        for kind, change in changes.items():
            altered = list(islice(_altered(kind, change, ordered, place, seed), count))
            if altered:
                before, after = (by_column(columns, part) for part in zip(*altered, strict=True))
                found.append(
                    AlteredRows(kind if len(columns) == 1 else f"{kind} ({column})", before, after)
                )
    return found


def by_column(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Rows as values by column."""
    return {column: [row[place] for row in rows] for place, column in enumerate(columns)}


def spread(texts: Iterable[str], seed: int) -> list[str]:
    """Distinct texts in an order of their own, as good as random and the same for any order they come in."""
    return [text for (text,) in spread_rows(((text,) for text in texts), seed)]


def spread_rows(rows: Iterable[tuple[str, ...]], seed: int) -> list[tuple[str, ...]]:
    """The same of rows of several texts."""
    return sorted(
        set(rows),
        key=lambda row: hashlib.sha256(
            f"{seed} {' '.join(row)}".encode("utf-8", "surrogatepass")
        ).digest(),
    )


def swap_letters(text: str, draw: random.Random) -> str:
    """Swap two neighbouring letters inside one word of four letters or more, in scripts that have case."""
    words = [word for word in _WORD.finditer(text) if word[0].lower() != word[0].upper()]
    places = [
        i
        for word in words
        for i in range(word.start() + 1, word.end() - 1)
        if text[i] != text[i + 1]
    ]
    if not places:
        return text
    place = draw.choice(places)
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


def swap_names(text: str, draw: random.Random, groups: Sequence[Sequence[str]] = _NAMES) -> str:
    """Give every person another name of the same group."""
    chosen: dict[str, str] = {}
    for group in groups:
        present = [name for name in group if re.search(rf"\b{re.escape(name)}\b", text)]
        others = [name for name in group if name not in present]
        if len(others) >= len(present):
            chosen.update(zip(present, draw.sample(others, len(present)), strict=True))
    if not chosen:
        return text
    return re.sub(
        rf"\b(?:{'|'.join(map(re.escape, chosen))})\b", lambda name: chosen[name[0]], text
    )


def change_contractions(text: str, draw: random.Random) -> str:
    """Write English contractions out; where there are none, contract what can be."""
    plain = text.replace("\u2019", "'")
    if _SHORT.search(plain):
        return _SHORT.sub(lambda found: _like(found[0], _CONTRACTIONS[found[0].lower()]), plain)
    return _LONG.sub(lambda found: _like(found[0], _EXPANSIONS[found[0].lower()]), text)


def change_full_stop(text: str, draw: random.Random) -> str:
    """Take the last full stop away, or end a text that has no end with one."""
    stripped = text.rstrip()
    if stripped.endswith(".") and not stripped.endswith(".."):
        return stripped[:-1]
    return (
        f"{stripped}." if stripped and stripped[-1].isascii() and stripped[-1].isalnum() else text
    )


def add_blanks(text: str, draw: random.Random) -> str:
    """Double one blank between words, and end with another."""
    places = [blank.start() for blank in _BLANK.finditer(text)]
    if not places:
        return text
    place = draw.choice(places)
    return f"{text[:place]} {text[place:]} "


def _altered(
    name: str, change: Change, ordered: Sequence[tuple[str, ...]], place: int, seed: int
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(row, the row with one of its texts changed) for each row that the change applies to."""
    for row in ordered:
        changed = change(row[place], random.Random(f"{seed} {name} {' '.join(row)}"))
        if changed != row[place] and changed.strip():
            yield row, (*row[:place], changed, *row[place + 1 :])


def _like(model: str, words: str) -> str:
    if model.isupper() and len(model) > 3:
        return words.upper()
    return words[0].upper() + words[1:] if model[0].isupper() else words
