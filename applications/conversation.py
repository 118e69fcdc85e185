"""A conversation in the terminal, or over pipes: a line in is the user's turn, the lines out the model's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tasks.encoding.dialogues import ASSISTANT, SYSTEM, USER, Turn

if TYPE_CHECKING:
    from tasks.inference.generation import Speaker

RESET, EXITS = "/reset", ("/exit", "/quit")


def converse(speaker: Speaker, called: str, system: str, *, as_json: bool = False) -> None:
    """Until the input ends; with `as_json` each answer is a line of JSON.

    What was said stays part of the dialogue as far as the model has room for it; oldest turns go first.
    """
    start: list[Turn] = [{"role": SYSTEM, "content": system}] if system else []
    dialogue = list(start)
    print(f"Talking to {called}. {RESET} begins anew, {EXITS[0]} ends.", file=sys.stderr)
    for line in _lines():
        if line in EXITS:
            return
        if line == RESET:
            dialogue = list(start)
            print("(begun anew)", file=sys.stderr)
        elif line.startswith("/"):
            print(f"There is {RESET} and {EXITS[0]}.", file=sys.stderr)
        elif line:
            dialogue.append({"role": USER, "content": line})
            dialogue.append(
                {
                    "role": ASSISTANT,
                    "content": _answer(speaker, dialogue) if as_json else _say(speaker, dialogue),
                }
            )


def _lines() -> Iterator[str]:
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(prompt).strip()
        except EOFError:
            return


def _answer(speaker: Speaker, dialogue: list[Turn]) -> str:
    """Print an answer when it is complete, for programs."""
    said = "".join(speaker.answer(dialogue)).strip()
    print(
        json.dumps({USER: dialogue[-1]["content"], ASSISTANT: said}, ensure_ascii=False), flush=True
    )
    return said


def _say(speaker: Speaker, dialogue: list[Turn]) -> str:
    """Print an answer as it comes."""
    said = ""
    for piece in speaker.answer(dialogue):
        print(piece, end="", flush=True)
        said += piece
    print(flush=True)
    return said.strip()
