"""Dialogues in the `messages` form, a list of turns with `role` and `content`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES = (SYSTEM, USER, ASSISTANT)

Turn = dict[str, str]


def as_turns(value: Any) -> list[Turn]:
    """The turns of a row's value; a text alone is a user's, and nothing is no turn."""
    if isinstance(value, str):
        return [{"role": USER, "content": value}]
    turns = [turn or {} for turn in ([] if value is None else value)]
    return [
        {"role": turn.get("role") or "", "content": turn.get("content") or ""} for turn in turns
    ]


def without_oldest(turns: Sequence[Turn]) -> list[Turn] | None:
    """The dialogue without its oldest exchange (a user's turn and what follows, to the user's next); None if there is just one.

    Leading system turns stay.
    """
    start = next((place for place, turn in enumerate(turns) if turn["role"] != SYSTEM), len(turns))
    following = next(
        (place for place in range(start + 1, len(turns)) if turns[place]["role"] == USER), None
    )
    return None if following is None else [*turns[:start], *turns[following:]]
