"""What a column of foreign data may hold, judged by some of its values and its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

Values = Sequence[Any]

TEXT_NAMES = ("text", "sentence", "content", "review", "message", "comment", "body", "tweet", "headline", "title", "question", "document")
LABEL_NAMES = ("label", "class", "category", "intent", "sentiment", "target", "topic", "mood", "y")
MAX_CLASSES = 0.5  # of the values: with more distinct ones a column holds no classes


def texts(rows: Mapping[str, Values]) -> list[str]:
    """Columns that hold free text, the likeliest first: by name, then by length."""
    found = [name for name, values in rows.items() if _are(values, str) and len(set(values)) > MAX_CLASSES * len(values)]
    return sorted(found, key=lambda name: (_rank(name, TEXT_NAMES), -sum(len(value or "") for value in rows[name])))


def classes(rows: Mapping[str, Values]) -> list[str]:
    """Columns that hold one of a few values, the likeliest first."""
    found = [name for name, values in rows.items() if _are(values, (str, int)) and _are_classes(name, values)]
    return sorted(found, key=lambda name: (_rank(name, LABEL_NAMES), list(rows).index(name)))


def numbers(rows: Mapping[str, Values]) -> list[str]:
    """Columns of numbers, also where a file can hold text alone."""
    return [name for name, values in rows.items() if _are(values, Real) or (_are(values, str) and all(map(_is_number, values)))]


def lists(rows: Mapping[str, Values]) -> list[str]:
    """Columns whose rows hold a list of texts each."""
    return [name for name, values in rows.items() if _are(values, list) and all(_are(value, str) for value in values if value)]


def _are(values: Values, kind: type | tuple[type, ...]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, kind) and not isinstance(value, bool) for value in present)


def _are_classes(name: str, values: Values) -> bool:
    distinct = len({value for value in values if value not in (None, "")})
    return 1 < distinct <= MAX_CLASSES * len(values) or (distinct > 1 and name.lower() in LABEL_NAMES)


def _is_number(value: str | None) -> bool:
    try:
        float(value or "0")
    except ValueError:
        return False
    return True


def _rank(name: str, known: Sequence[str]) -> int:
    return known.index(name.lower()) if name.lower() in known else len(known)
