"""Synthetic rows for every problem, what should become of each, and files in every format."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Values = dict[str, Any]
SCHEMES = ("iob2", "iob1", "bioes")
FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")
WORDS = (
    "good", "bad", "table", "river", "naïve", '"quoted"', "semi;colon", "com,ma", "東京",
    "emoji😀", "NA", "null", "3.5", "it's", "\u2028x", "line\nbreak",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A source row and the columns that ingest should make of it; None: it should be set aside."""

    source: Values
    wanted: Values | None


@dataclass(frozen=True)
class Table:
    """Rows of one problem type, with what params.yaml says of them."""

    problem: str
    rows: Sequence[Row]
    ingest: Mapping[str, Any] = field(default_factory=dict)
    nested: bool = False  # CSV and TSV cannot hold it


def sentence(draw: random.Random, number: int) -> str:
    """A text that no other row has."""
    return f"row {number} " + " ".join(draw.choices(WORDS, k=draw.randint(1, 8)))


def classified(draw: random.Random, storage: str, odd: bool) -> Table:
    """Texts with a label each.

    storage  str, int, float, bool or mixed
    odd      some texts are lists, objects, content parts or missing
    """
    store: dict[str, Callable[[int], Any]] = {
        "str": lambda i: ("spam", "ham", "true story")[i], "int": int, "float": float,
        "bool": lambda i: i > 0, "mixed": lambda i: draw.choice((i, float(i), str(i), f"{i}.0")),
    }  # fmt: skip
    rows = []
    for number in range(draw.randint(12, 30)):
        kind = draw.randrange(3)
        text, label = sentence(draw, number), store[storage](kind)
        name = {"str": label, "bool": str(kind > 0).lower()}.get(storage, str(kind))
        choice = draw.random()
        if number and choice < 0.1:
            missing = draw.choice((None, float("nan"))) if storage in ("float", "mixed") else None
            rows.append(Row({"text": text, "label": missing}, None))
        elif odd and choice < 0.5:
            rows.append(_odd_text(draw, text, label, name))
        else:
            rows.append(Row({"text": text, "label": label}, {"text": text, "label": name}))
    return Table("text-classification", rows, nested=odd or storage == "mixed")


def _odd_text(draw: random.Random, text: str, label: Any, name: str) -> Row:
    part = {"type": "text", "text": text}
    value, joined = draw.choice((
        (None, None), ([text], None), ({"en": text}, None), ([part], text),
        ([part, part], f"{text}\n{text}"), ([], None),
        ([{"type": "image_url", "image_url": {"url": text}}], None),
        ([{"type": "text", "text": {"value": text}}], text),
        ("  ", None), (f'["{text[:5]}"]', f'["{text[:5]}"]'),
    ))  # fmt: skip
    return Row(
        {"text": value, "label": label}, None if joined is None else {"text": joined, "label": name}
    )


def several(draw: random.Random, written: str) -> Table:
    """Texts with any number of labels: lists, JSON, Python's notation, separators, 0/1 columns."""
    names, rows = ("a b", "c", "d'e"), []
    separator = written if written in "|;," else "|"
    for number in range(draw.randint(12, 30)):
        text, labels = sentence(draw, number), [name for name in names if draw.random() < 0.5]
        forms: dict[str, Any] = {"list": labels, "json": json.dumps(labels), "python": repr(labels)}
        if written == "flags":
            values: Values = {name: int(name in labels) for name in names}
            wrong = draw.random() < 0.1
            values |= {names[0]: 7} if wrong else {}
            rows.append(
                Row({"text": text, **values}, None if wrong else {"text": text, "labels": labels})
            )
        else:
            value = forms[written] if written in forms else separator.join(labels)
            rows.append(Row({"text": text, "labels": value}, {"text": text, "labels": labels}))
    columns = {"columns": {"labels": list(names)}} if written == "flags" else {}
    return Table(
        "multi-label-classification",
        rows,
        {"label_separator": separator, **columns},
        nested=written == "list",
    )


def talked(draw: random.Random, shape: str) -> Table:
    """Dialogues: OpenAI's, content parts, ShareGPT's, JSON text or columns; some call tools."""
    rows = []
    for number in range(draw.randint(12, 30)):
        asked, said = sentence(draw, number), sentence(draw, number)
        wanted = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        tools = shape != "columns" and draw.random() < 0.2
        turns: list[Values] = [{**turn} for turn in wanted]
        if tools:
            turns.insert(1, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]})
        if shape == "sharegpt":
            turns = [{
                "from": {
                    "user": "human",
                    "assistant": "function_call" if turn.get("tool_calls") else "gpt",
                }[turn["role"]],
                "value": turn["content"] or "",
            } for turn in turns]  # fmt: skip
        if shape == "parts":
            turns = [
                {**turn, "content": [{"type": "text", "text": turn["content"] or ""}]}
                for turn in turns
            ]
        source: Values = {
            "messages": json.dumps(turns, ensure_ascii=False) if shape == "text" else turns
        }
        if shape == "columns":
            source = {"prompt": asked, "completion": said}
        rows.append(Row(source, None if tools else {"messages": wanted}))
    columns = {"columns": {"messages": ["prompt", "completion"]}} if shape == "columns" else {}
    return Table("chat", rows, columns, nested=shape not in ("columns", "text"))


def tagged(draw: random.Random, scheme: str, written: str) -> Table:
    """Words tagged in one of SCHEMES, as lists or as strings of them; or texts with spans."""
    rows = []
    for number in range(draw.randint(12, 30)):
        tokens = [
            "row",
            str(number),
            *draw.choices(("Anna", "Berg", "left", "Straße", "d'Arc"), k=draw.randint(2, 8)),
        ]
        tags = ["O", "O"]
        while len(tags) < len(tokens):
            length = min(draw.randint(1, 2), len(tokens) - len(tags))
            kind = draw.choice(("PER", "LOC", ""))
            tags += [f"{'I' if place else 'B'}-{kind}" if kind else "O" for place in range(length)]
        rows.append(Row(_entities(tokens, tags, scheme, written), {"tokens": tokens, "tags": tags}))
    return Table(
        "token-classification",
        rows,
        {"tag_scheme": "iob1"} if scheme == "iob1" else {},
        nested=written in ("list", "spans"),
    )


def _entities(tokens: list[str], tags: list[str], scheme: str, written: str) -> Values:
    if written == "spans":
        spans: list[Values] = []
        at = 0
        for token, tag in zip(tokens, tags, strict=True):
            if tag[0] == "B":
                spans.append({"start": at, "end": at + len(token), "label": tag[2:]})
            elif tag[0] == "I":
                spans[-1]["end"] = at + len(token)
            at += len(token) + 1
        return {"tokens": " ".join(tokens), "tags": spans}
    shown = [_in_scheme(tags, place, scheme) for place in range(len(tags))]
    writers: dict[str, Callable[[list[str]], Any]] = {
        "list": list, "json": json.dumps, "python": repr,
    }  # fmt: skip
    write = writers[written]
    return {"tokens": write(tokens), "tags": write(shown)}


def _in_scheme(tags: Sequence[str], place: int, scheme: str) -> str:
    tag, before, after = tags[place], tags[place - 1] if place else "O", [*tags, "O"][place + 1]
    if tag == "O" or scheme == "iob2":
        return tag
    if scheme == "iob1":
        return tag if tag[0] == "I" or before[2:] == tag[2:] else f"I-{tag[2:]}"
    goes_on = after == f"I-{tag[2:]}"
    return f"{tag[0] if goes_on else {'B': 'S', 'I': 'E'}[tag[0]]}-{tag[2:]}"


def write(
    path: Path, rows: Sequence[Values], encoding: str = "utf-8", line_end: str = "\n"
) -> list[int]:
    """Write the rows in the format that the path's suffix names.

    Returns the line at which each row begins, as ingest counts lines.
    """
    kind = path.suffix[1:]
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif kind == "json":
        path.write_text(json.dumps(list(rows), ensure_ascii=False, indent=1), encoding=encoding)
    elif kind == "jsonl":
        path.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + line_end for row in rows),
            encoding=encoding,
            newline="",
        )
    else:
        return _write_csv(path, rows, encoding, line_end)
    return list(range(1, len(rows) + 1))


def _write_csv(path: Path, rows: Sequence[Values], encoding: str, line_end: str) -> list[int]:
    file = io.StringIO(newline="")
    writer = csv.writer(
        file, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator=line_end
    )
    writer.writerow(rows[0])
    lines = []
    for row in rows:
        lines.append(file.getvalue().count("\n") + 1)
        writer.writerow("" if value is None or value != value else value for value in row.values())
    path.write_text(file.getvalue(), encoding=encoding, newline="")
    return lines


def add_broken_lines(draw: random.Random, path: Path, encoding: str, line_end: str) -> list[int]:
    """Append lines that are not rows to a CSV or TSV file.

    They are the header again, a row with one field too many, a blank line and an unclosed quote.
    Returns the lines that have to be set aside.
    """
    delimiter = "\t" if path.suffix == ".tsv" else ","
    text = path.read_bytes().decode(encoding)
    header = text.split(line_end)[0]
    extra = draw.sample(
        [header, header.replace(delimiter, "x" + delimiter) + delimiter, "", '"open' + delimiter],
        draw.randint(1, 4),
    )
    first = text.count("\n") + 1
    path.write_text(text + line_end.join(extra) + line_end, encoding=encoding, newline="")
    return [first + number for number, line in enumerate(extra) if line]
