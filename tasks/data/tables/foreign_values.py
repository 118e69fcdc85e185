"""Values that other tools write: lists in Python's notation, contents of text parts, dialogues, spans with offsets.

SQL reaches these functions by name (`register`): each takes texts, mostly JSON, and returns what it found or, in words, what is wrong.
They run for the rows alone that are no plain texts or lists, which SQL reads by itself.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Callable, Sequence
from inspect import signature
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tasks.encoding.dialogues import ASSISTANT, SYSTEM, USER
from tasks.encoding.spans import OUTSIDE
from tasks.encoding.words import Spans, find_words

if TYPE_CHECKING:
    import duckdb

_SPEAKERS = {
    "human": USER,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bot": ASSISTANT,
    "model": ASSISTANT,
    "developer": SYSTEM,
}
_TOOLS = (
    "tool",
    "function",
    "function_call",
    "tool_call",
    "tool_calls",
    "tool_response",
    "observation",
    "ipython",
)
_STARTS, _ENDS, _LABELS = (
    ("start", "start_offset"),
    ("end", "end_offset"),
    ("label", "labels", "entity_group", "type"),
)
LABELS = "labels"  # Label Studio's name for results that are spans
_TEXT_PARTS = ("text", "input_text", "output_text")
_TAG = re.compile(r"O|[BIESLU]-\S+")
_SHOWN = 40  # characters of a value in a message


class UnfitError(Exception):
    """What is wrong with a value, in words."""


def register(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the functions known to the connection's SQL."""
    text, turns = (
        "STRUCT(text VARCHAR, problem VARCHAR)",
        "STRUCT(turns STRUCT(role VARCHAR, content VARCHAR)[], problem VARCHAR)",
    )
    items, tagged = (
        "STRUCT(items VARCHAR[], problem VARCHAR)",
        "STRUCT(tokens VARCHAR[], tags VARCHAR[], problem VARCHAR)",
    )
    functions: tuple[tuple[str, Callable[..., Any], str], ...] = (
        ("read_content", lambda value: _told("text", lambda: content_of(json.loads(value))), text),
        ("read_list", lambda value: _told("items", lambda: items_of(value)), items),
        ("read_dialogue", lambda value: _told("turns", lambda: turns_of(json.loads(value))), turns),
        (
            "read_exchange",
            lambda value, roles: _told(
                "turns", lambda: exchange_of(json.loads(value), roles.split(","))
            ),
            turns,
        ),
        ("read_tagged", read_tagged, tagged),
    )
    for name, function, result in functions:
        arguments = ["VARCHAR"] * len(signature(function).parameters)
        connection.create_function(name, function, arguments, result)  # type: ignore[arg-type]


def _told(member: str, read: Callable[[], Any]) -> dict[str, Any]:
    """What is read, or what is wrong with it."""
    try:
        return {member: read(), "problem": None}
    except (UnfitError, ValueError, RecursionError) as error:
        return {
            member: None,
            "problem": str(error) if isinstance(error, UnfitError) else "the value cannot be read",
        }


def read_tagged(tokens: str, tags: str) -> dict[str, Any]:
    """Words and their tags, or what is wrong with them."""
    told = _told("both", lambda: tagged_of(tokens, tags))
    words, names = told["both"] or (None, None)
    return {"tokens": words, "tags": names, "problem": told["problem"]}


def opened(text: str) -> Any:
    """The value that a text spells as JSON or Python do; UnfitError where it spells none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        tree = ast.parse(text.strip(), mode="eval")
        strings = sum(
            isinstance(node, ast.Constant) and isinstance(node.value, str)
            for node in ast.walk(tree)
        )
        tokens = tokenize.generate_tokens(io.StringIO(text.strip()).readline)
        written = sum(token.type == tokenize.STRING for token in tokens)
        value = ast.literal_eval(tree)
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        raise UnfitError(f"not a list: {text[:_SHOWN]}") from None
    if strings != written:  # Python would join neighbours
        raise UnfitError(f"a printed NumPy array, without commas: {text[:_SHOWN]}")
    return value


def as_list(value: Any) -> Any:
    """A tuple or a set as a list, a set's items in their order; what is neither as it is."""
    return (
        sorted(value, key=str)
        if isinstance(value, set)
        else [*value]
        if isinstance(value, tuple)
        else value
    )


def items_of(text: str) -> list[str | None]:
    """A list, tuple or set of plain values, as texts, a set's in their order; NaN is None."""
    value = as_list(opened(text))
    if not isinstance(value, list) or any(
        isinstance(item, list | tuple | dict | set) for item in value
    ):
        raise UnfitError(f"wanted a list of plain values, found {text[:_SHOWN]}")
    return [_as_text(item) for item in value]


def content_of(value: Any) -> str:
    """A text, or the joined texts of parts such as {"type": "text", "text": ...}, at any depth."""
    if isinstance(value, dict):
        kind = value.get("type")
        if (kind is None or kind in _TEXT_PARTS) and "text" in value and value["text"] is not None:
            return content_of(value["text"])
        if isinstance(value.get("value"), str) and kind is None:
            return str(value["value"])
        raise UnfitError(
            f"a content part of type {kind}, which cannot be trained on"
            if kind
            else "wanted text, found an object"
        )
    if isinstance(value, list):
        if not value or not all(isinstance(part, dict) for part in value):
            raise UnfitError("wanted text, found a list")
        return "\n".join(map(content_of, value))
    return _as_text(value) or ""


def is_content(value: Any) -> bool:
    """Whether it is a list of typed content parts, one of them a text."""
    if not isinstance(value, list) or not all(
        isinstance(part, dict) and isinstance(part.get("type"), str) for part in value
    ):
        return False
    return any(part["type"] in _TEXT_PARTS and "text" in part for part in value)


def turns_of(value: Any) -> list[dict[str, str]] | None:
    """A dialogue's turns, of OpenAI's form (role, content) or ShareGPT's (from, value), or a text that spells them."""
    if isinstance(value, str):
        value = opened(value)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise UnfitError("wanted a list of turns")
    return [_turn(number, turn) for number, turn in enumerate(value, 1)]


def _turn(number: int, turn: dict[str, Any]) -> dict[str, str]:
    shape = (
        ("role", "content")
        if turn.get("role") is not None or "from" not in turn
        else ("from", "value")
    )
    role = str(turn.get(shape[0]) or "")
    if role.lower() in _TOOLS or turn.get("tool_calls") or turn.get("function_call"):
        raise UnfitError(f"turn {number}: a tool call or its answer, which cannot be trained on")
    if turn.get("weight") not in (None, 1):
        raise UnfitError(
            f"turn {number}: a weight of {turn['weight']}; all turns of the assistant are learnt alike"
        )
    try:
        return {
            "role": _SPEAKERS.get(role.lower(), role),
            "content": content_of(turn.get(shape[1])),
        }
    except UnfitError as error:
        raise UnfitError(f"turn {number}: {error}") from None


def exchange_of(values: Sequence[Any], roles: Sequence[str]) -> list[dict[str, str]]:
    """A dialogue from values of which each is said by one of `roles`; neighbours of one role are joined by a blank line.

    A value may be a list of turns itself.
    """
    turns: list[dict[str, str]] = []
    for value, role in zip(values, roles, strict=True):
        if isinstance(value, list) and all(
            isinstance(turn, dict) and not turn.keys().isdisjoint(("role", "from"))
            for turn in value
        ):
            turns += turns_of(value) or []
            continue
        said = content_of(value)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = "\n\n".join(
                text for text in (turns[-1]["content"], said) if text.strip()
            )
        elif said.strip() or role != SYSTEM:
            turns.append({"role": role, "content": said})
    return turns


def tagged_of(tokens: str, tags: str) -> tuple[list[str | None] | None, list[str | None] | None]:
    """Words and their tags: two lists, which blanks or commas may divide in place of a notation; or a text and spans of its characters."""
    spans = split_tags(tags) or opened(tags)
    if spans is None:
        return None, None
    if not isinstance(spans, list | tuple):
        raise UnfitError(f"wanted a list of tags or of spans, found {tags[:_SHOWN]}")
    words = _words(tokens)
    nested = any(isinstance(span, list | tuple | dict) for span in spans)
    if not nested and (spans or words == []):
        if words is None:
            words = [*tokens.split()]
            if len(words) != len(spans):
                raise UnfitError(
                    f"tags without a list of words: {len(spans)} tags, {len(words)} words between blanks"
                )
        return words, [_as_text(tag) for tag in spans]
    return tag_words(tokens, [_span(tokens, span) for span in _of_label_studio(spans)])


def split_tags(text: str) -> list[str] | None:
    """The tags of a text that is made of two or more, with blanks or commas between them; None where it is not."""
    tags = re.split(r"[\s,;|]+", text.strip())
    return tags if len(tags) > 1 and all(map(_TAG.fullmatch, tags)) else None


def _words(text: str) -> list[str | None] | None:
    try:
        return items_of(text) if text.lstrip().startswith(("[", "(")) else None
    except UnfitError:
        return None


def tag_words(
    text: str, spans: Sequence[tuple[int, int, str]]
) -> tuple[list[str | None], list[str | None]]:
    """The words of a text, cut where a span begins or ends, with BIO tags."""
    borders = sorted({border for start, end, _ in spans for border in (start, end)})
    words: Spans = []
    for start, end in find_words(text):
        cuts = [start, *(border for border in borders if start < border < end), end]
        words += pairwise(cuts)
    tags = [OUTSIDE] * len(words)
    for first, last, label in spans:
        inside = [
            place for place, (start, end) in enumerate(words) if first <= start and end <= last
        ]
        if not inside:
            raise UnfitError(f"the span {first} to {last} holds no word")
        if any(tags[place] != OUTSIDE for place in inside):
            raise UnfitError(f"the span {first} to {last} overlaps another")
        for place in inside:
            tags[place] = f"{'B' if place == inside[0] else 'I'}-{label}"
    return [text[start:end] for start, end in words], [*tags]


def _of_label_studio(spans: Sequence[Any]) -> list[Any]:
    """Spans as they are, or the values of the only annotation of a task that Label Studio exported."""
    if not any(isinstance(span, dict) and "result" in span for span in spans):
        return list(spans)
    if len(spans) != 1:
        raise UnfitError(f"{len(spans)} annotations of one text; wanted one")
    if spans[0].get("was_cancelled"):
        raise UnfitError("the annotator skipped the text")
    results = spans[0]["result"] or []
    found = [result.get("value") for result in results if result.get("type", LABELS) == LABELS]
    if results and not found:
        raise UnfitError(f"an annotation of type {results[0]['type']}, which is no span")
    return found


def _span(text: str, span: Any) -> tuple[int, int, str]:
    """(first character, character after the last, label) of a span, without blanks around it."""
    if isinstance(span, dict):
        named = [
            [span[name] for name in names if span.get(name) is not None]
            for names in (_STARTS, _ENDS, _LABELS)
        ]
        start, end, label = (values[0] if values else None for values in named)
    else:
        start, end, label = (
            span if isinstance(span, list | tuple) and len(span) == 3 else (None, None, None)
        )
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if not (_is_whole(start) and _is_whole(end) and isinstance(label, str) and label):
        raise UnfitError(
            f"wanted a span's start, end and one label, found {json.dumps(span, ensure_ascii=False)[:_SHOWN]}"
        )
    start, end = int(start), int(end)  # type: ignore[arg-type]
    if not 0 <= start < end <= len(text):
        raise UnfitError(
            f"the span {start} to {end} is not within the text's {len(text)} characters"
        )
    held = text[start:end]
    if isinstance(span, dict) and isinstance(span.get("text"), str) and span["text"] != held:
        raise UnfitError(
            f"the span {start} to {end} is said to hold {span['text'][:_SHOWN]!r}, the text has {held[:_SHOWN]!r} there"
        )
    return start + len(held) - len(held.lstrip()), end - len(held) + len(held.rstrip()), label


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float) and value == value // 1


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value)
