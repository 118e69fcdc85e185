"""Convert JSON files that hold all rows in one value to JSONL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError
from tasks.data.tables.text_files import Text

if TYPE_CHECKING:
    from tasks.params.ingestion import Source

KEY = "_key"  # column with a row's key, where the file is an object of rows


def unfold_json(text: Text, name: str, source: Source, target: Path) -> Path:
    """Write the rows of a JSON array, or of an object of objects, to `target` as JSONL.

    name  the file's name in messages
    Rows of an object also get their key, as `_key`. Loads the whole file into memory.
    Raises DataError for anything else.
    """
    with text.open() as file:
        try:
            value = json.load(file, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{name}: not valid JSON: {error}",
                f"Fix it. If each line is an object: {source.setting('format', 'jsonl')}",
            ) from None
    with target.open("w", encoding="utf-8", errors="surrogatepass") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(value, name))
    return target


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key '{twice}' twice")
    return value


def _rows(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict) and value and all(isinstance(row, dict) for row in value.values()):
        yield from ({KEY: key} | row for key, row in value.items())
    else:
        raise DataError(
            f"{name}: wanted a JSON array of objects, or an object of objects.",
            "Check its content, and convert it to JSONL.",
        )
