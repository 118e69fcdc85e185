"""Recognize texts that spell lists, sets, tuples or objects in JSON, Python or NumPy notation."""

from __future__ import annotations

import re
from typing import Any

from tasks.data.tables.foreign_values import UnfitError, as_list, opened

_CLOSING = {"[": "]", "{": "}", "(": ")"}
# quoted items, or numbers without commas
_PRINTED = re.compile(r"""[\[{(]\s*(['"]|-?\d+\.?\d*\s+-?\d)""")


def is_nested(value: Any) -> bool:
    """Whether a value is a list or object, or a text that spells one, even if malformed."""
    if not isinstance(value, str):
        return isinstance(value, list | tuple | set | dict)
    text = value.strip()
    if text == "set()" or not text.endswith(_CLOSING.get(text[:1], " ")):
        return text == "set()"
    return not isinstance(as_nested(text), str) or bool(_PRINTED.match(text))


def as_nested(value: Any) -> Any:
    """The list or object that a text spells; any other value unchanged, an empty one as None."""
    if not isinstance(value, str) or not value:
        return value or None
    try:
        parsed = as_list(opened(value))
    except UnfitError:
        return value
    return parsed if isinstance(parsed, list | dict) else value
