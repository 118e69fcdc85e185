"""Texts that spell lists, sets, tuples or objects, as JSON, Python or NumPy writes them."""

from __future__ import annotations

import re
from typing import Any

from tasks.data.tables.foreign_values import UnfitError, as_list, opened

_MATES = {"[": "]", "{": "}", "(": ")"}
_PRINTED = re.compile(r"""[\[{(]\s*(['"]|-?\d+\.?\d*\s+-?\d)""")  # texts, or numbers without commas


def is_nested(value: Any) -> bool:
    """Whether it is a list or an object, or a text that spells one, if only badly."""
    if not isinstance(value, str):
        return isinstance(value, list | tuple | set | dict)
    text = value.strip()
    if text == "set()" or not text.endswith(_MATES.get(text[:1], " ")):
        return text == "set()"
    return not isinstance(as_nested(text), str) or bool(_PRINTED.match(text))


def as_nested(value: Any) -> Any:
    """The list or object that a text spells; the value as it is where it spells none."""
    if not isinstance(value, str) or not value:
        return value or None
    try:
        found = as_list(opened(value))
    except UnfitError:
        return value
    return found if isinstance(found, list | dict) else value
