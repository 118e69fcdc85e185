"""What can be wrong with a dialogue: roles, empty turns, nothing to learn, turns out of order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from tasks.data.quality.checks import Check
from tasks.encoding.dialogues import ASSISTANT, ROLES, SYSTEM, USER, as_turns

ROLE, EMPTY, ANSWERS, ORDER, LAST = (
    "messages.role",
    "messages.empty",
    "messages.answers",
    "messages.order",
    "messages.last",
)


def dialogue_checks() -> list[Check]:
    """Checks of the column `messages`."""
    null = "expect_column_values_to_be_null"
    return [
        Check("null_messages", "expect_column_values_to_not_be_null", {"column": "messages"}, "quarantine",
              "the messages are missing, or no list of {role, content}"),
        Check("unknown_role", null, {"column": ROLE}, "quarantine", f"a turn's role is not one of {', '.join(ROLES)}"),
        Check("empty_turn", null, {"column": EMPTY}, "quarantine", "a turn of the user or of the assistant is empty or blank"),
        Check("no_answer", null, {"column": ANSWERS}, "quarantine", "no turn is the assistant's: there is nothing to learn"),
        Check("turn_order", null, {"column": ORDER}, "quarantine",
              "user and assistant do not take turns, the user first (a system turn may stand before all others)"),
        Check("unanswered", null, {"column": LAST}, "warn", "the dialogue ends with the user: nothing is learnt of the last turn"),
    ]  # fmt: skip


def dialogue_facts(rows: pa.Table) -> pa.Table:
    """The facts that those checks judge, as columns: each in words, or null."""
    found: dict[str, list[str | None]] = {name: [] for name in (ROLE, EMPTY, ANSWERS, ORDER, LAST)}
    for value in rows["messages"].to_pylist():
        turns = as_turns(value)
        roles = [turn["role"] for turn in turns]
        there = value is not None
        found[ROLE].append(
            _first(
                f"{role!r} in turn {number}"
                for number, role in enumerate(roles, 1)
                if role not in ROLES
            )
        )
        blank = (
            number
            for number, turn in enumerate(turns, 1)
            if turn["role"] != SYSTEM and not turn["content"].strip()
        )
        found[EMPTY].append(_first(f"turn {number} ({roles[number - 1]})" for number in blank))
        found[ANSWERS].append(f"{len(turns)} turns" if there and ASSISTANT not in roles else None)
        found[ORDER].append(misplaced(roles) if there else None)
        found[LAST].append("user" if roles[-1:] == [USER] else None)
    return pa.table({name: pa.array(values, pa.string()) for name, values in found.items()})


def misplaced(roles: Sequence[str]) -> str | None:
    """The first turn that stands where it may not, in words; None where all stand right. Unknown roles are not judged."""
    before = [SYSTEM if roles[:1] == [SYSTEM] else ASSISTANT, *roles]
    allowed = {(SYSTEM, USER), (ASSISTANT, USER), (USER, ASSISTANT)}
    for number, (previous, role) in enumerate(pairwise(before), 1):
        first_system = number == 1 and role == SYSTEM
        if (
            role in ROLES
            and previous in ROLES
            and not first_system
            and (previous, role) not in allowed
        ):
            return f"{role} in turn {number}"
    return None


def _first(found: Any) -> str | None:
    return next(iter(found), None)
