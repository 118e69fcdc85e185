"""Chat in the terminal or over pipes: each input line is a user turn, the output the model's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tasks.encoding.dialogues import ASSISTANT, SYSTEM, USER, Turn

if TYPE_CHECKING:
    from tasks.inference.generation import ChatModel

RESET, EXITS = "/reset", ("/exit", "/quit")


def converse(speaker: ChatModel, system: str, *, as_json: bool = False) -> None:
    """Chat until the input ends.

    system   system prompt; "": none
    as_json  print each answer as a line of JSON
    The dialogue is kept as far as it fits the model's context; the oldest turns are dropped first.
    """
    start: list[Turn] = [{"role": SYSTEM, "content": system}] if system else []
    dialogue = list(start)
    print(f"{RESET} starts over, {EXITS[0]} ends.", file=sys.stderr)
    for line in _lines():
        if line in EXITS:
            return
        if line == RESET:
            dialogue = list(start)
            print("(started over)", file=sys.stderr)
        elif line.startswith("/"):
            print(f"Commands: {RESET} and {EXITS[0]}.", file=sys.stderr)
        elif line:
            dialogue.append({"role": USER, "content": line})
            answer = _answer(speaker, dialogue) if as_json else _stream(speaker, dialogue)
            dialogue.append({"role": ASSISTANT, "content": answer})


def _lines() -> Iterator[str]:
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(prompt).strip()
        except EOFError:
            return


def _answer(speaker: ChatModel, dialogue: list[Turn]) -> str:
    """Print the complete answer as JSON."""
    answer = "".join(speaker.answer(dialogue)).strip()
    exchange = {USER: dialogue[-1]["content"], ASSISTANT: answer}
    print(json.dumps(exchange, ensure_ascii=False), flush=True)
    return answer


def _stream(speaker: ChatModel, dialogue: list[Turn]) -> str:
    """Print the answer as it is generated."""
    answer = ""
    for piece in speaker.answer(dialogue):
        print(piece, end="", flush=True)
        answer += piece
    print(flush=True)
    return answer.strip()
