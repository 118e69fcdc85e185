"""Dialogues in the `messages` format: a list of turns with `role` and `content`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES = (SYSTEM, USER, ASSISTANT)

Turn = dict[str, str]


def as_turns(value: Any) -> list[Turn]:
    """The turns of a row's value: a plain string is one user turn, None is no turns."""
    if isinstance(value, str):
        return [{"role": USER, "content": value}]
    turns = [turn or {} for turn in ([] if value is None else value)]
    return [
        {"role": turn.get("role") or "", "content": turn.get("content") or ""} for turn in turns
    ]


def without_oldest(turns: Sequence[Turn]) -> list[Turn] | None:
    """The dialogue without its oldest exchange; None if it has only one.

    An exchange runs from a user turn to the next user turn. Leading system turns stay.
    """
    start = next((index for index, turn in enumerate(turns) if turn["role"] != SYSTEM), len(turns))
    following = next(
        (index for index in range(start + 1, len(turns)) if turns[index]["role"] == USER), None
    )
    return None if following is None else [*turns[:start], *turns[following:]]
