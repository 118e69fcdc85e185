"""JSON files that hold all rows in one value, as lines of one object each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.core.errors import DataError
from tasks.data.tables.text_files import Text

KEY = "_key"  # a row's name in an object of rows


def unfold_json(text: Text, name: str, target: Path) -> Path:
    """Write the rows of a JSON array, or of an object of objects, to `target`, one a line; the whole file is held in memory.

    name  what the user calls the file
    Rows of an object also get its key, as `_key`. Raises DataError for anything else.
    """
    with text.open() as file:
        try:
            value = json.load(file)
        except ValueError as error:
            raise DataError(
                f"{name}: not valid JSON: {error}",
                "Mend it, or name its `format` in params.yaml (jsonl: one object a line).",
            ) from None
    with target.open("w", encoding="utf-8", errors="surrogatepass") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(value, name))
    return target


def _rows(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict) and value and all(isinstance(row, dict) for row in value.values()):
        yield from ({KEY: key} | row for key, row in value.items())
    else:
        raise DataError(
            f"{name}: wanted a JSON array of objects, or an object of objects.",
            "See what it holds, and convert it to JSONL.",
        )
