"""Guess what a column of unknown data holds from its name and a sample of its values."""

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
    *("text", "sentence", "content", "review", "message", "comment", "body"),
    *("tweet", "headline", "title", "question", "document"),
)
LABEL_NAMES = ("label", "class", "category", "intent", "sentiment", "target", "topic", "mood", "y")
SCORE_NAMES = ("score", "relevance", "similarity", "rating", "click", "clicked", "grade", "stars")
ID_NAMES = ("id", "uuid", "guid", "key", "index", "hash")
SEPARATORS = ("|", ";", ",")
MIN_WORDS = 3  # in most values of a column of a text pair: author names have fewer
_PAIRED = re.compile(
    r"^(text|sentence|question|query|answer|reply|premise|hypothesis|title)s?\d?$|(_a|_b|1|2)$"
)
_URL_OR_TIME = re.compile(
    r"[a-z][a-z0-9+.-]*://\S+|www\.\S+"
    # 2024-05-01, 1.5.2024 or 05/01/24, with or without a time
    r"|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]+[\d:.,]+ ?([ap]m)?(Z|UTC|[+-][\d:]+)?)?"
    # Fri Jan 01 10:00:00 +0000 2016
    r"|[a-z]{3},? [a-z\d]{2,3} [a-z\d]{2,3} [\d:+ ]+\w*"
    # a time alone
    r"|[\d:.]+ ?([ap]m)?",
    re.IGNORECASE,
)
FEW = 20  # maximum number of distinct values of a column that may be labels
MOSTLY = 0.9  # share of a column's values that must fit: the rest may be bad rows
MAX_CLASSES = 0.5  # maximum share of distinct values in a column of classes


def texts(rows: Mapping[str, Values]) -> list[str]:
    """Columns of free text, likeliest first: by name, then by length."""

    def is_free_text(name: str, values: Values) -> bool:
        return (
            _are(values, str)
            and not _are_identifiers(name, values)
            and not _are_urls_or_times(values)
            and len(set(values)) > MAX_CLASSES * len(values)
        )

    return sorted(
        (name for name, values in rows.items() if is_free_text(name, values)),
        key=lambda name: (_rank(name, TEXT_NAMES), -sum(len(value or "") for value in rows[name])),
    )


def classes(rows: Mapping[str, Values]) -> list[str]:
    """Columns of classes, one per row, likeliest first.

    Numbers with fractions count only if distinct values are few and the column is called a label.
    """
    columns = [
        name
        for name, values in rows.items()
        if not _are_measured(name, values)
        and not _are_dates_or_urls(plain(values))
        and _are_classes(name, plain(values))
    ]
    return sorted(columns, key=lambda name: (_rank(name, LABEL_NAMES), list(rows).index(name)))


def maybe_labels(rows: Mapping[str, Values]) -> list[str]:
    """Columns that may hold labels: by name, few distinct values, or one value beside none."""

    def marks_some(values: Values) -> bool:
        marks = [value for value in plain(values) if value.strip()]
        return len(set(marks)) == 1 and len(marks) < len(values)

    few = low_cardinality(rows)
    return [
        name
        for name, values in rows.items()
        if name.lower() in LABEL_NAMES
        or ((name in few or marks_some(values)) and not _are_dates_or_urls(plain(values)))
    ]


def low_cardinality(rows: Mapping[str, Values]) -> list[str]:
    """Columns with few distinct plain values, including list items and members of objects."""
    return [
        name
        for name, values in rows.items()
        if any(_are_few(distinct, len(values)) for distinct in _distinct_values(values).values())
    ]


def flags(rows: Mapping[str, Values]) -> list[str]:
    """Columns of 0 and 1, false and true, or no and yes, whose names are not those of labels.

    Some rows may lack a value.
    """
    distinct = {
        name: {value.lower() for value in plain(values) if value}
        for name, values in rows.items()
        if name.lower() not in LABEL_NAMES
    }
    return [name for name, values in distinct.items() if values and values <= {*ON, *OFF}]


def separated(rows: Mapping[str, Values]) -> list[tuple[str, str]]:
    """(column, separator) of columns whose texts, when split, have few distinct pieces."""
    columns = []
    for name, values in rows.items():
        cells = {value.strip() for value in values if isinstance(value, str) and value.strip()}
        most = min(len(cells), MAX_CLASSES * len(values))
        for separator in SEPARATORS if _are(values, str) else ():
            pieces = {piece.strip() for cell in cells for piece in cell.split(separator)}
            if any(separator in cell for cell in cells) and 1 < len(pieces) <= most:
                columns.append((name, separator))
                break
    return sorted(columns, key=lambda column: column[0].removesuffix("s") not in LABEL_NAMES)


def plain(values: Values) -> list[str]:
    """Values in the canonical form of labels, '' for a missing one.

    Empty if more than 1 - MOSTLY of the values are lists or objects.
    """
    if sum(map(is_nested, values)) > (1 - MOSTLY) * len(values):
        return []
    return [_plain(value) for value in values]


def numbers(rows: Mapping[str, Values]) -> list[str]:
    """Columns of numbers, including numbers stored as text."""
    return [
        name
        for name, values in rows.items()
        if _are(values, Real) or (_are(values, str) and all(map(_is_number, values)))
    ]


def scores(rows: Mapping[str, Values]) -> list[str]:
    """Numeric columns that may be scores, likeliest first: by name, then those with fractions."""
    columns = [
        name
        for name in numbers(rows)
        if _rank(name, SCORE_NAMES) < len(SCORE_NAMES) or _has_fractions(rows[name])
    ]
    return sorted(columns, key=lambda name: _rank(name, SCORE_NAMES))


def text_pair(rows: Mapping[str, Values]) -> tuple[str, ...]:
    """First two columns of texts, in the data's order; empty if there are not two.

    Values may repeat, as a question does with each of its answers.
    """
    excluded = {*numbers(rows), *(name for name in rows if name.lower() in ("id", *LABEL_NAMES))}
    strings = [
        name
        for name, values in rows.items()
        if name not in excluded and _are(values, str) and not _are_urls_or_times(values)
    ]
    columns = [
        name
        for name in strings
        if _are_sentences(rows[name], 2 if _PAIRED.search(name.lower()) else MIN_WORDS)
    ]
    return tuple(columns[:2]) if len(columns) >= 2 else ()


def lists(rows: Mapping[str, Values]) -> list[str]:
    """Columns in which each row holds a list of texts."""
    return [
        name
        for name, values in rows.items()
        if _are(values, list) and any(values) and all(_are(value, str) for value in values if value)
    ]


def label_lists(rows: Mapping[str, Values]) -> list[str]:
    """Columns of several labels per row, likeliest first: lists of texts or of whole numbers.

    Some of the lists may be unreadable.
    """
    columns = []
    for name, values in rows.items():
        nested = [value for value in values if is_nested(value)]
        flat = [
            value
            for value in nested
            if isinstance(value, str)
            or (isinstance(value, list) and not any(map(is_nested, value)))
        ]
        few = sum(value not in (None, "") for value in values) * (1 - MOSTLY)
        are_lists = len(nested) > few and len(flat) >= MOSTLY * len(nested)
        if are_lists and _may_be_labels(name, flat):
            columns.append(name)
    return sorted(columns, key=lambda name: not _is_plural(name))


def _may_be_labels(name: str, values: Values) -> bool:
    """Whether list items may be labels: not all numbers, or whole numbers that repeat."""
    items = [
        item for value in values if isinstance(value, list) for item in value if item is not None
    ]
    if not items or not _are(items, Real):
        return bool(items) or any(isinstance(value, str) for value in values)
    return not _have_fractions(items) and (
        _is_plural(name) or len(set(items)) <= MAX_CLASSES * len(values)
    )


def _is_plural(name: str) -> bool:
    """Whether a column has the name of a list of labels: labels, classes, categories, tags."""
    column = name.lower().rpartition(".")[2]
    return any(
        column in (noun, f"{noun}s", f"{noun}es", f"{noun[:-1]}ies")
        for noun in (*LABEL_NAMES, "tag")
    )


def _plain(value: Any) -> str:
    if value is None or value != value or is_nested(value):
        return ""
    return canonical_label(str(value), merge=False)


def _distinct_values(values: Values) -> dict[str, set[str]]:
    """Member name -> its distinct values; '' for the column's own values and its list items."""
    distinct: dict[str, set[str]] = {}
    for value in values:
        for item in value if isinstance(value, list) else [value]:
            members = item if isinstance(item, dict) else {"": item}
            for member, content in members.items():
                text = str(content) if is_nested(content) else _plain(content)
                distinct.setdefault(str(member), set()).update([text] if text else [])
    return distinct


def _are_few(distinct: set[str], rows: int) -> bool:
    return 1 < len(distinct) <= min(FEW, MAX_CLASSES * rows)


def _are(values: Values, python_type: type) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(
        isinstance(value, python_type) and not isinstance(value, bool) for value in present
    )


def _are_classes(name: str, values: Values) -> bool:
    distinct = len({value for value in values if value not in (None, "")})
    return 1 < distinct <= MAX_CLASSES * len(values) or (
        distinct > 1 and name.lower() in LABEL_NAMES
    )


def _are_identifiers(name: str, values: Values) -> bool:
    """Whether values are hashes, counters or keys.

    All are ASCII without whitespace, and either distinct with one length, or numbers, or in a
    column called an id.
    """
    present = [value for value in values if value]
    if not all(value.isascii() and not any(map(str.isspace, value)) for value in present):
        return False
    same_length = len({len(value) for value in present}) == 1 < len(set(present)) == len(present)
    return same_length or all(map(_is_number, present)) or name.lower().split("_")[-1] in ID_NAMES


def _are_urls_or_times(values: Values) -> bool:
    """Whether most values are dates, times or web addresses."""
    present = [value.strip() for value in values if value]
    return sum(bool(_URL_OR_TIME.fullmatch(value)) for value in present) > MOSTLY * len(present)


def _are_dates_or_urls(values: Values) -> bool:
    """Whether most values are dates or web addresses, which may recur; not if all are numbers."""
    return _are_urls_or_times(values) and not all(_is_number(value) for value in values)


def _are_sentences(values: Values, words: int) -> bool:
    """Whether most values have at least `words` words.

    Text that is not ASCII counts, because some scripts do not separate words.
    """
    present = [value.strip() for value in values if value]
    long = sum(len(value.split()) >= words or not value.isascii() for value in present)
    return 2 * long > len(present)


def _are_measured(name: str, values: Values) -> bool:
    """Whether values are numbers with fractions, unless few and in a column called a label."""
    return _have_fractions(values) and not (
        name.lower() in LABEL_NAMES and _are_few({*plain(values)}, len(values))
    )


def _have_fractions(values: Values) -> bool:
    """Whether any value is a finite number that is not whole."""
    floats = [float(value) for value in values if isinstance(value, Real)]
    return any(math.isfinite(value) and not value.is_integer() for value in floats)


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
