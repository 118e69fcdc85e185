"""Names of prediction columns: the same in every format, never one that the user's data has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import count
from typing import Any

from tasks.core.errors import ParamsError

PREFIX = "predicted_"


def named(prediction: Mapping[str, Any], prefix: str = PREFIX) -> dict[str, Any]:
    """Prefix each key: `label` becomes `predicted_label`."""
    return {prefix + name: value for name, value in prediction.items()}


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a row for a table: `predicted_scores` becomes `predicted_scores.positive`, …."""
    columns: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            columns |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            columns[name] = value
    return columns


def require_free(
    columns: Collection[str], example: Mapping[str, Any], prefix: str, source: str
) -> None:
    """ParamsError if a prediction like `example` would take a name in `columns` of `source`."""
    if taken := _taken(columns, example, prefix):
        prefixes = (f"model{n}_" for n in count(1))
        free = next(name for name in prefixes if not _taken(columns, example, name))
        noun = "columns" if len(taken) > 1 else "a column"
        raise ParamsError(
            f"{source}: has {noun} {', '.join(map(repr, taken))}, "
            "as the predictions would be named.",
            f"Choose another prefix: --prefix {free}",
        )


def _taken(columns: Collection[str], example: Mapping[str, Any], prefix: str) -> list[str]:
    # compared without case: many tools ignore the case of column names
    prediction = named(example, prefix)
    reserved = {name.lower() for name in (*prediction, *flat(prediction))}
    return [name for name in columns if name.lower() in reserved]
