"""Checks for dialogues: unknown roles, empty turns, no assistant turn, turns out of order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pyarrow as pa

from tasks.data.quality.checks import Check
from tasks.encoding.dialogues import ASSISTANT, ROLES, SYSTEM, USER, as_turns

ROLE, EMPTY, ANSWERS = "messages.role", "messages.empty", "messages.answers"
ORDER, LAST = "messages.order", "messages.last"


def dialogue_checks() -> list[Check]:
    """Checks for the column `messages`."""
    null = "expect_column_values_to_be_null"
    return [
        Check("null_messages", "expect_column_values_to_not_be_null", {"column": "messages"},
              "quarantine", "the messages are missing or are not a list of {role, content}"),
        Check("unknown_role", null, {"column": ROLE}, "quarantine",
              f"a turn's role is not one of {', '.join(ROLES)}"),
        Check("empty_turn", null, {"column": EMPTY}, "quarantine",
              "a user or assistant turn is empty or blank"),
        Check("no_answer", null, {"column": ANSWERS}, "quarantine",
              "there is no assistant turn, so there is nothing to learn"),
        Check("turn_order", null, {"column": ORDER}, "quarantine",
              "turns do not alternate between user and assistant, starting with the user "
              "(one system turn may come first)"),
        Check("unanswered", null, {"column": LAST}, "warn",
              "the dialogue ends with a user turn, from which nothing is learned"),
    ]  # fmt: skip


def dialogue_facts(rows: pa.Table) -> pa.Table:
    """The facts those checks judge, a column each: the problem in words, or null."""
    facts: dict[str, list[str | None]] = {name: [] for name in (ROLE, EMPTY, ANSWERS, ORDER, LAST)}
    for value in rows["messages"].to_pylist():
        turns = as_turns(value)
        roles = [turn["role"] for turn in turns]
        present = value is not None
        unknown = (f"{role!r} in turn {i}" for i, role in enumerate(roles, 1) if role not in ROLES)
        blank = (
            f"turn {i} ({turn['role']})"
            for i, turn in enumerate(turns, 1)
            if turn["role"] != SYSTEM and not turn["content"].strip()
        )
        facts[ROLE].append(next(unknown, None))
        facts[EMPTY].append(next(blank, None))
        facts[ANSWERS].append(f"{len(turns)} turns" if present and ASSISTANT not in roles else None)
        facts[ORDER].append(misplaced(roles) if present else None)
        facts[LAST].append("user" if roles[-1:] == [USER] else None)
    return pa.table({name: pa.array(values, pa.string()) for name, values in facts.items()})


def misplaced(roles: Sequence[str]) -> str | None:
    """The first turn out of order, in words, or None. Skips turns next to an unknown role."""
    previous_roles = [SYSTEM if roles[:1] == [SYSTEM] else ASSISTANT, *roles]
    allowed = {(SYSTEM, USER), (ASSISTANT, USER), (USER, ASSISTANT)}
    for number, (previous, role) in enumerate(pairwise(previous_roles), 1):
        leading_system = number == 1 and role == SYSTEM
        known = role in ROLES and previous in ROLES
        if known and not leading_system and (previous, role) not in allowed:
            return f"{role} in turn {number}"
    return None
