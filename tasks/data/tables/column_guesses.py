"""What a column of foreign data may hold, judged by some of its values and its name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from tasks.data.tables.notation import is_nested
from tasks.params.labels import OFF, ON, canonical_label

Values = Sequence[Any]

TEXT_NAMES = (
    "text",
    "sentence",
    "content",
    "review",
    "message",
    "comment",
    "body",
    "tweet",
    "headline",
    "title",
    "question",
    "document",
)
LABEL_NAMES = ("label", "class", "category", "intent", "sentiment", "target", "topic", "mood", "y")
SCORE_NAMES = ("score", "relevance", "similarity", "rating", "click", "clicked", "grade", "stars")
ID_NAMES = ("id", "uuid", "guid", "key", "index", "hash")
SEPARATORS = ("|", ";", ",")
MIN_WORDS = (
    3  # of most values of a column that is one of a pair of texts: an author's name has fewer
)
_PAIRED = re.compile(
    r"^(text|sentence|question|query|answer|reply|premise|hypothesis|title)s?\d?$|(_a|_b|1|2)$"
)
_MARK = re.compile(  # a web address; 2024-05-01, 1.5.2024 or 05/01/24, with a time or without; Fri Jan 01 10:00:00 +0000 2016; a time
    r"[a-z][a-z0-9+.-]*://\S+|www\.\S+|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]+[\d:.,]+ ?([ap]m)?(Z|UTC|[+-][\d:]+)?)?"
    r"|[a-z]{3},? [a-z\d]{2,3} [a-z\d]{2,3} [\d:+ ]+\w*|[\d:.]+ ?([ap]m)?",
    re.IGNORECASE,
)
FEW = 20  # values of a column that may be labels
MOSTLY = 0.9  # of a column's values: the rest may be bad rows
MAX_CLASSES = 0.5  # of the values: with more distinct ones a column holds no classes


def texts(rows: Mapping[str, Values]) -> list[str]:
    """Columns that hold free text, the likeliest first: by name, then by length."""
    strings = [
        name
        for name, values in rows.items()
        if _are(values, str) and not _are_identifiers(name, values) and not _are_marks(values)
    ]
    found = [name for name in strings if len(set(rows[name])) > MAX_CLASSES * len(rows[name])]
    return sorted(
        found,
        key=lambda name: (_rank(name, TEXT_NAMES), -sum(len(value or "") for value in rows[name])),
    )


def classes(rows: Mapping[str, Values]) -> list[str]:
    """Columns that hold one of a few values, the likeliest first; numbers with fractions are none unless few and called a label."""
    found = [
        name
        for name, values in rows.items()
        if not _are_measured(name, values) and _are_classes(name, plain(values))
    ]
    return sorted(found, key=lambda name: (_rank(name, LABEL_NAMES), list(rows).index(name)))


def small_valued(rows: Mapping[str, Values]) -> list[str]:
    """Columns in which a few plain values come again and again, also as the items of lists or as members of objects."""
    return [
        name
        for name, values in rows.items()
        if any(_are_few(keys, len(values)) for keys in _keys(values).values())
    ]


def flags(rows: Mapping[str, Values]) -> list[str]:
    """Columns that hold 0 and 1, false and true or no and yes, if not in every row, and by their names are no labels."""
    unnamed = {
        name: values
        for name, values in rows.items()
        if _rank(name, LABEL_NAMES) == len(LABEL_NAMES)
    }
    kinds = {
        name: {value.lower() for value in plain(values) if value}
        for name, values in unnamed.items()
    }
    return [name for name, kind in kinds.items() if kind and kind <= {*ON, *OFF}]


def separated(rows: Mapping[str, Values]) -> list[tuple[str, str]]:
    """(column, separator) of columns whose texts are made of few pieces, again and again."""
    found = []
    for name, values in rows.items():
        wholes = {value.strip() for value in values if isinstance(value, str) and value.strip()}
        for separator in SEPARATORS if _are(values, str) else ():
            pieces = {piece.strip() for whole in wholes for piece in whole.split(separator)}
            if any(separator in whole for whole in wholes) and 1 < len(pieces) <= min(
                len(wholes), MAX_CLASSES * len(values)
            ):
                found.append((name, separator))
                break
    return sorted(found, key=lambda one: one[0].removesuffix("s") not in LABEL_NAMES)


def plain(values: Values) -> list[str]:
    """Plain values as labels have them, those that are missing as empty texts; nothing where more than a few are lists or objects."""
    if sum(map(is_nested, values)) > (1 - MOSTLY) * len(values):
        return []
    return [_plain(value) for value in values]


def numbers(rows: Mapping[str, Values]) -> list[str]:
    """Columns of numbers, also where a file can hold text alone."""
    return [
        name
        for name, values in rows.items()
        if _are(values, Real) or (_are(values, str) and all(map(_is_number, values)))
    ]


def scores(rows: Mapping[str, Values]) -> list[str]:
    """Columns of numbers that say how much, the likeliest first: those with a telling name, then those of fractions."""
    found = [
        name
        for name in numbers(rows)
        if _rank(name, SCORE_NAMES) < len(SCORE_NAMES) or _has_fractions(rows[name])
    ]
    return sorted(found, key=lambda name: _rank(name, SCORE_NAMES))


def text_pair(rows: Mapping[str, Values]) -> tuple[str, ...]:
    """Two columns of texts, in the data's order; empty where there are not two. Either may repeat, as a question does with each answer."""
    taken = {*numbers(rows), *(name for name in rows if name.lower() in ("id", *LABEL_NAMES))}
    strings = [
        name
        for name, values in rows.items()
        if name not in taken and _are(values, str) and not _are_marks(rows[name])
    ]
    found = [
        name
        for name in strings
        if _are_sentences(rows[name], 2 if _PAIRED.search(name.lower()) else MIN_WORDS)
    ]
    return tuple(found[:2]) if len(found) >= 2 else ()


def lists(rows: Mapping[str, Values]) -> list[str]:
    """Columns whose rows hold a list of texts each."""
    return [
        name
        for name, values in rows.items()
        if _are(values, list) and any(values) and all(_are(value, str) for value in values if value)
    ]


def label_lists(rows: Mapping[str, Values]) -> list[str]:
    """Columns that hold several labels a row, the likeliest first: lists of texts or whole numbers, also where some cannot be read."""
    found = []
    for name, values in rows.items():
        nested = [value for value in values if is_nested(value)]
        spelled = [
            value
            for value in nested
            if isinstance(value, str)
            or (isinstance(value, list) and not any(map(is_nested, value)))
        ]
        few = sum(value not in (None, "") for value in values) * (1 - MOSTLY)
        if (
            len(nested) > few
            and len(spelled) >= MOSTLY * len(nested)
            and _may_be_labels(name, spelled)
        ):
            found.append(name)
    return sorted(found, key=lambda name: not _is_plural(name))


def _may_be_labels(name: str, values: Values) -> bool:
    """Whether items are no measurements: not all numbers, or whole ones that come again and again."""
    items = [
        item for value in values if isinstance(value, list) for item in value if item is not None
    ]
    if not items or not _are(items, Real):
        return bool(items) or any(isinstance(value, str) for value in values)
    return not _have_fractions(items) and (
        _is_plural(name) or len(set(items)) <= MAX_CLASSES * len(values)
    )


def _is_plural(name: str) -> bool:
    """Whether a column is called as labels are: labels, classes, categories or tags."""
    own = name.lower().rpartition(".")[2]
    return any(
        own in (one, f"{one}s", f"{one}es", f"{one[:-1]}ies") for one in (*LABEL_NAMES, "tag")
    )


def _plain(value: Any) -> str:
    return (
        ""
        if value is None or value != value or is_nested(value)
        else canonical_label(str(value), merge=False)
    )


def _keys(values: Values) -> dict[str, set[str]]:
    """What plain values are told apart by: a column's own ('') and its items', and those of each member of its objects."""
    found: dict[str, set[str]] = {}
    for value in values:
        for item in value if isinstance(value, list) else [value]:
            members = item if isinstance(item, dict) else {"": item}
            for member, plain_value in members.items():
                key = str(plain_value) if is_nested(plain_value) else _plain(plain_value)
                found.setdefault(str(member), set()).update([key] if key else [])
    return found


def _are_few(keys: set[str], rows: int) -> bool:
    return 1 < len(keys) <= min(FEW, MAX_CLASSES * rows)


def _are(values: Values, kind: type | tuple[type, ...]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(
        isinstance(value, kind) and not isinstance(value, bool) for value in present
    )


def _are_classes(name: str, values: Values) -> bool:
    distinct = len({value for value in values if value not in (None, "")})
    return 1 < distinct <= MAX_CLASSES * len(values) or (
        distinct > 1 and name.lower() in LABEL_NAMES
    )


def _are_identifiers(name: str, values: Values) -> bool:
    """Whether all are of one piece, and numbers, of one length and different, or called an id: hashes, counters and keys."""
    present = [value for value in values if value]
    if not all(value.isascii() and not any(map(str.isspace, value)) for value in present):
        return False
    same_length = len({len(value) for value in present}) == 1 < len(set(present)) == len(present)
    return same_length or all(map(_is_number, present)) or name.lower().split("_")[-1] in ID_NAMES


def _are_marks(values: Values) -> bool:
    """Whether most are dates, times or addresses on the web."""
    present = [value.strip() for value in values if value]
    return sum(bool(_MARK.fullmatch(value)) for value in present) > MOSTLY * len(present)


def _are_sentences(values: Values, words: int) -> bool:
    """Whether most are of so many words or more, or of a script that does not separate them."""
    present = [value.strip() for value in values if value]
    return 2 * sum(len(value.split()) >= words or not value.isascii() for value in present) > len(
        present
    )


def _are_measured(name: str, values: Values) -> bool:
    """Whether numbers have fractions, unless a column called a label has few of them."""
    return _have_fractions(values) and not (
        name.lower() in LABEL_NAMES and _are_few({*plain(values)}, len(values))
    )


def _have_fractions(values: Values) -> bool:
    """Whether any is a number that is not whole, but for those that are not finite."""
    numbers = [float(value) for value in values if isinstance(value, Real)]
    return any(math.isfinite(number) and not number.is_integer() for number in numbers)


def _has_fractions(values: Values) -> bool:
    return any(float(value) % 1 for value in values if value not in (None, ""))


def _is_number(value: str | None) -> bool:
    try:
        float(value or "0")
    except ValueError:
        return False
    return True


def _rank(name: str, known: Sequence[str]) -> int:
    return known.index(name.lower()) if name.lower() in known else len(known)
