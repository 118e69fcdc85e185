"""What predictions are called beside a user's own columns: the same in every format, and never a name that is taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import count
from typing import Any

from tasks.core.errors import ParamsError

PREFIX = "predicted_"


def named(prediction: Mapping[str, Any], prefix: str = PREFIX) -> dict[str, Any]:
    """`label` becomes `predicted_label`, and so on."""
    return {prefix + name: value for name, value in prediction.items()}


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """For tables: what is nested as columns of its own, `predicted_scores` as `predicted_scores.negative`, `predicted_scores.positive`."""
    columns: dict[str, Any] = {}
    for name, value in row.items():
        columns |= (
            {f"{name}.{inner}": item for inner, item in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return columns


def require_free(
    columns: Collection[str], example: Mapping[str, Any], prefix: str, place: str
) -> None:
    """ParamsError if a prediction like `example` would take the name of one of `columns`, which `place` has."""
    if taken := _taken(columns, example, prefix):
        free = next(other for n in count(1) if not _taken(columns, example, other := f"model{n}_"))
        raise ParamsError(
            f"{place}: has {'columns' if len(taken) > 1 else 'a column'} {', '.join(repr(name) for name in taken)}, "
            "as the predictions would be called.",
            f"Call them otherwise: --prefix {free}",
        )


def _taken(columns: Collection[str], example: Mapping[str, Any], prefix: str) -> list[str]:
    # many tools tell no cases apart
    ours = {
        name.lower()
        for names in (named(example, prefix), flat(named(example, prefix)))
        for name in names
    }
    return [name for name in columns if name.lower() in ours]
