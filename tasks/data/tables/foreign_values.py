"""Parse values that other tools write: Python lists, multi-part contents, dialogues, spans.

`register` makes these functions callable from SQL: each takes texts, mostly JSON, and returns the
parsed value or, in words, the problem. They run only for rows that SQL cannot read by itself,
which are those that do not hold plain texts or lists.
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

from tasks.data.tables.span_borders import SpanBorders
from tasks.encoding.dialogues import ASSISTANT, SYSTEM, USER
from tasks.encoding.spans import OUTSIDE
from tasks.encoding.words import Spans, find_words

if TYPE_CHECKING:
    import duckdb

_SPEAKERS = {
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model"), ASSISTANT),
    "human": USER,
    "developer": SYSTEM,
}
_TOOLS = (
    *("tool", "tool_call", "tool_calls", "tool_response"),
    *("function", "function_call", "observation", "ipython"),
)
# members of a turn beside its text
_NOT_TEXT = ("reasoning_content", "reasoning", "thinking", "image", "images", "audio", "videos")
_STARTS, _ENDS = ("start", "start_offset"), ("end", "end_offset")
_LABELS = ("label", "labels", "entity_group", "type")
LABELS = "labels"  # Label Studio's type of results that are spans
_TEXT_PARTS = ("text", "input_text", "output_text")
_TAG = re.compile(r"O|[BIESLU]-\S+")
_SHOWN = 40  # characters of a value in a message


class UnfitError(Exception):
    """A value cannot be used; the message says why."""


def register(connection: duckdb.DuckDBPyConnection) -> SpanBorders:
    """Make the functions callable from the connection's SQL; what they find of spans."""
    borders = SpanBorders()
    turns = "turns STRUCT(role VARCHAR, content VARCHAR)[]"
    functions: tuple[tuple[str, Callable[..., Any], str], ...] = (
        ("read_content", _read_content, "text VARCHAR"),
        ("read_list", lambda value: _attempt("items", lambda: items_of(value)), "items VARCHAR[]"),
        ("read_dialogue", _read_dialogue, turns),
        ("read_exchange", _read_exchange, turns),
        (
            "read_tagged",
            lambda tokens, tags: read_tagged(tokens, tags, borders),
            "tokens VARCHAR[], tags VARCHAR[]",
        ),
    )
    for name, function, members in functions:
        arguments = ["VARCHAR"] * len(signature(function).parameters)
        result = f"STRUCT({members}, problem VARCHAR)"
        connection.create_function(name, function, arguments, result)  # type: ignore[arg-type]
    return borders


def _attempt(member: str, read: Callable[[], Any]) -> dict[str, Any]:
    """The value that `read` returns, as `member`; or the problem that it raises."""
    try:
        return {member: read(), "problem": None}
    except UnfitError as error:
        return {member: None, "problem": str(error)}
    except (ValueError, RecursionError):
        return {member: None, "problem": "the value cannot be read"}


def _read_content(value: str) -> dict[str, Any]:
    return _attempt("text", lambda: content_of(json.loads(value)))


def _read_dialogue(value: str) -> dict[str, Any]:
    return _attempt("turns", lambda: turns_of(json.loads(value)))


def _read_exchange(value: str, roles: str) -> dict[str, Any]:
    return _attempt("turns", lambda: exchange_of(json.loads(value), roles.split(",")))


def read_tagged(tokens: str, tags: str, borders: SpanBorders) -> dict[str, Any]:
    """Words and their tags, or the problem with them; spans are added to `borders`."""
    result = _attempt("both", lambda: tagged_of(tokens, tags, borders))
    words, word_tags = result["both"] or (None, None)
    return {"tokens": words, "tags": word_tags, "problem": result["problem"]}


def opened(text: str) -> Any:
    """Parse a text as JSON, or else as a Python literal; UnfitError if it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        tree = ast.parse(text.strip(), mode="eval")
        constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        parsed_strings = sum(isinstance(node.value, str) for node in constants)
        tokens = tokenize.generate_tokens(io.StringIO(text.strip()).readline)
        written_strings = sum(token.type == tokenize.STRING for token in tokens)
        value = ast.literal_eval(tree)
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        raise UnfitError(f"not a list: {text[:_SHOWN]}") from None
    if parsed_strings != written_strings:  # Python concatenates adjacent strings
        raise UnfitError(f"a printed NumPy array, without commas: {text[:_SHOWN]}")
    return value


def as_list(value: Any) -> Any:
    """Convert a tuple, or a set with its items sorted, to a list; return other values unchanged."""
    if isinstance(value, set):
        return sorted(value, key=str)
    return [*value] if isinstance(value, tuple) else value


def items_of(text: str) -> list[str | None]:
    """Items of a list, tuple or set (sorted) of plain values, as texts; NaN becomes None."""
    value = as_list(opened(text))
    nested_types = (list, tuple, dict, set)
    if not isinstance(value, list) or any(isinstance(item, nested_types) for item in value):
        raise UnfitError(f"wanted a list of plain values, found {text[:_SHOWN]}")
    return [_as_text(item) for item in value]


def content_of(value: Any) -> str:
    """A text, or the joined texts of parts such as {"type": "text", "text": ...}, at any depth."""
    if isinstance(value, dict):
        part_type = value.get("type")
        if part_type in _TEXT_PARTS and value.get("text") is not None:
            return content_of(value["text"])
        if part_type:
            raise UnfitError(f"a content part of type {part_type}, which cannot be trained on")
        members = {name: member for name, member in value.items() if member not in (None, [], {})}
        if members.keys() == {"text"} or (
            members.keys() == {"value"} and isinstance(members["value"], str)
        ):
            return content_of(*members.values())
        raise UnfitError("wanted text, found an object")
    if isinstance(value, list):
        if not value or not all(isinstance(part, dict) for part in value):
            raise UnfitError("wanted text, found a list")
        return "\n".join(map(content_of, value))
    return _as_text(value) or ""


def is_content(value: Any) -> bool:
    """Whether a value is a list of typed content parts, at least one of them a text."""
    if not isinstance(value, list):
        return False
    if not all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in value):
        return False
    return any(part["type"] in _TEXT_PARTS and "text" in part for part in value)


def turns_of(value: Any) -> list[dict[str, str]] | None:
    """A dialogue's turns in OpenAI's form (role, content) or ShareGPT's (from, value).

    A text is parsed first.
    """
    if isinstance(value, str):
        value = opened(value)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise UnfitError("wanted a list of turns")
    return [_turn(number, turn) for number, turn in enumerate(value, 1)]


def _turn(number: int, turn: dict[str, Any]) -> dict[str, str]:
    is_openai = turn.get("role") is not None or "from" not in turn
    role_key, content_key = ("role", "content") if is_openai else ("from", "value")
    role = str(turn.get(role_key) or "")
    if role.lower() in _TOOLS or turn.get("tool_calls") or turn.get("function_call"):
        raise UnfitError(f"turn {number}: a tool call or its answer, which cannot be trained on")
    if lost := [name for name in _NOT_TEXT if turn.get(name)]:
        raise UnfitError(f"turn {number}: {lost[0]}, which is not trained on")
    if turn.get("weight") not in (None, 1):
        raise UnfitError(
            f"turn {number}: a weight of {turn['weight']}; "
            "all turns of the assistant are trained on equally"
        )
    try:
        content = content_of(turn.get(content_key))
    except UnfitError as error:
        raise UnfitError(f"turn {number}: {error}") from None
    return {"role": _SPEAKERS.get(role.lower(), role), "content": content}


def exchange_of(values: Sequence[Any], roles: Sequence[str]) -> list[dict[str, str]]:
    """A dialogue from columns: each value is a turn of the role at the same position.

    A value may also be a list of turns. Adjacent turns of one role are joined by a blank line.
    """
    turns: list[dict[str, str]] = []
    for value, role in zip(values, roles, strict=True):
        if isinstance(value, list) and all(
            isinstance(turn, dict) and not turn.keys().isdisjoint(("role", "from"))
            for turn in value
        ):
            turns += turns_of(value) or []
            continue
        content = content_of(value)
        if turns and turns[-1]["role"] == role:
            texts = [text for text in (turns[-1]["content"], content) if text.strip()]
            turns[-1]["content"] = "\n\n".join(texts)
        elif content.strip() or role != SYSTEM:
            turns.append({"role": role, "content": content})
    return turns


def tagged_of(
    tokens: str, tags: str, borders: SpanBorders
) -> tuple[list[str | None] | None, list[str | None] | None]:
    """Words and their tags, from two lists or from a text and character spans.

    The lists may also be texts separated by blanks (words) or by blanks and commas (tags).
    """
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
                    f"tags without a list of words: {len(spans)} tags, "
                    f"{len(words)} words separated by blanks"
                )
        return words, [_as_text(tag) for tag in spans]
    marked = [_span(tokens, span) for span in _of_label_studio(spans)]
    borders.add(tokens, marked)
    return tag_words(tokens, marked)


def split_tags(text: str) -> list[str] | None:
    """Tags of a text of two or more tags, separated by blanks or commas; None for other texts."""
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
    """Split a text into words, also where a span begins or ends, with BIO tags."""
    borders = sorted({border for start, end, _ in spans for border in (start, end)})
    words: Spans = []
    for start, end in find_words(text):
        cuts = [start, *(border for border in borders if start < border < end), end]
        words += pairwise(cuts)
    tags = [OUTSIDE] * len(words)
    for first, last, label in spans:
        inside = [i for i, (start, end) in enumerate(words) if first <= start and end <= last]
        if not inside:
            raise UnfitError(f"the span {first} to {last} holds no word")
        if any(tags[i] != OUTSIDE for i in inside):
            raise UnfitError(f"the span {first} to {last} overlaps another")
        for i in inside:
            tags[i] = f"{'B' if i == inside[0] else 'I'}-{label}"
    return [text[start:end] for start, end in words], [*tags]


def _of_label_studio(spans: Sequence[Any]) -> list[Any]:
    """Unwrap the single annotation of a task exported by Label Studio; keep other spans as is."""
    if not any(isinstance(span, dict) and "result" in span for span in spans):
        return list(spans)
    if len(spans) != 1:
        raise UnfitError(f"{len(spans)} annotations of one text; wanted one")
    if spans[0].get("was_cancelled"):
        raise UnfitError("the annotator skipped the text")
    results = spans[0]["result"] or []
    values = [result.get("value") for result in results if result.get("type", LABELS) == LABELS]
    if results and not values:
        raise UnfitError(f"an annotation of type {results[0]['type']}, which is not a span")
    return values


def _span(text: str, span: Any) -> tuple[int, int, str]:
    """(start, end, label) of a span, in characters, end exclusive; surrounding blanks trimmed."""
    start = end = label = None
    if isinstance(span, dict):
        start, end, label = (
            next((span[name] for name in names if span.get(name) is not None), None)
            for names in (_STARTS, _ENDS, _LABELS)
        )
    elif isinstance(span, list | tuple) and len(span) == 3:
        start, end, label = span
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if not (_is_whole(start) and _is_whole(end) and isinstance(label, str) and label):
        shown = json.dumps(span, ensure_ascii=False)[:_SHOWN]
        raise UnfitError(f"wanted a span's start, end and one label, found {shown}")
    start, end = int(start), int(end)  # type: ignore[arg-type]
    if not 0 <= start < end <= len(text):
        raise UnfitError(f"the span {start} to {end} is outside the text's {len(text)} characters")
    covered = text[start:end]
    if isinstance(span, dict) and isinstance(span.get("text"), str) and span["text"] != covered:
        raise UnfitError(
            f"the span {start} to {end} is declared as {span['text'][:_SHOWN]!r}, "
            f"but covers {covered[:_SHOWN]!r}"
        )
    leading = len(covered) - len(covered.lstrip())
    trailing = len(covered) - len(covered.rstrip())
    return start + leading, end - trailing, label


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float) and value == value // 1


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value)
