"""Made-up rows of every problem's shape, what ingest should make of each, and files that hold them.

The files come in every format.
"""

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
    """A row as the source holds it, and the columns that ingest should make of it.

    wanted  None: the row should be set aside
    """

    source: Values
    wanted: Values | None


@dataclass(frozen=True)
class Table:
    """Rows of one problem type, with their settings of params.yaml's `ingest`."""

    problem: str
    rows: Sequence[Row]
    ingest: Mapping[str, Any] = field(default_factory=dict)
    nested: bool = False  # CSV and TSV cannot hold it


def sentence(draw: random.Random, number: int) -> str:
    """A text unlike any other row's."""
    return f"row {number} " + " ".join(draw.choices(WORDS, k=draw.randint(1, 8)))


def classified(draw: random.Random, storage: str, odd: bool) -> Table:
    """Texts with one label each.

    storage  str, int, float, bool or mixed
    odd      some texts are lists, objects, content parts or missing
    """
    store: dict[str, Callable[[int], Any]] = {
        "str": lambda i: ("spam", "ham", "true story")[i],
        "int": int,
        "float": float,
        "bool": lambda i: i > 0,
        "mixed": lambda i: draw.choice((i, float(i), str(i), f"{i}.0")),
    }
    rows = []
    for number in range(draw.randint(12, 30)):
        class_index = draw.randrange(3)
        text, label = sentence(draw, number), store[storage](class_index)
        names = {"str": label, "bool": str(class_index > 0).lower()}
        name = names.get(storage, str(class_index))
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
    forms = (
        (None, None),
        ([text], None),
        ({"en": text}, None),
        ([part], text),
        ([part, part], f"{text}\n{text}"),
        ([], None),
        ([{"type": "image_url", "image_url": {"url": text}}], None),
        ([{"type": "text", "text": {"value": text}}], text),
        ("  ", None),
        (f'["{text[:5]}"]', f'["{text[:5]}"]'),
    )
    value, joined = draw.choice(forms)
    wanted = None if joined is None else {"text": joined, "label": name}
    return Row({"text": value, "label": label}, wanted)


def several(draw: random.Random, written: str) -> Table:
    """Texts with any number of labels each.

    written  list, json, python (a literal), flags (columns of 0 and 1), or a separator
    """
    names, rows = ("a b", "c", "d'e"), []
    separator = written if written in "|;," else "|"
    forms: dict[str, Callable[[Any], Any]] = {
        "list": lambda labels: labels,
        "json": json.dumps,
        "python": repr,
    }
    for number in range(draw.randint(12, 30)):
        text, labels = sentence(draw, number), [name for name in names if draw.random() < 0.5]
        wanted = {"text": text, "labels": labels}
        if written == "flags":
            values: Values = {name: int(name in labels) for name in names}
            wrong = draw.random() < 0.1
            values |= {names[0]: 7} if wrong else {}
            rows.append(Row({"text": text, **values}, None if wrong else wanted))
        else:
            value = forms[written](labels) if written in forms else separator.join(labels)
            rows.append(Row({"text": text, "labels": value}, wanted))
    columns = {"columns": {"labels": list(names)}} if written == "flags" else {}
    ingest = {"label_separator": separator, **columns}
    return Table("multi-label-classification", rows, ingest, nested=written == "list")


def talked(draw: random.Random, shape: str) -> Table:
    """Dialogues, some of which call tools.

    shape  plain (OpenAI's), parts (content parts), sharegpt, text (JSON), or columns
    """
    rows = []
    for number in range(draw.randint(12, 30)):
        prompt, completion = sentence(draw, number), sentence(draw, number)
        wanted = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": completion},
        ]
        tools = shape != "columns" and draw.random() < 0.2
        turns: list[Values] = [{**turn} for turn in wanted]
        if tools:
            turns.insert(1, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]})
        if shape == "sharegpt":
            turns = [
                {"from": _sharegpt_speaker(turn), "value": turn["content"] or ""} for turn in turns
            ]
        if shape == "parts":
            turns = [
                {**turn, "content": [{"type": "text", "text": turn["content"] or ""}]}
                for turn in turns
            ]
        as_text = shape == "text"
        source: Values = {"messages": json.dumps(turns, ensure_ascii=False) if as_text else turns}
        if shape == "columns":
            source = {"prompt": prompt, "completion": completion}
        rows.append(Row(source, None if tools else {"messages": wanted}))
    columns = {"columns": {"messages": ["prompt", "completion"]}} if shape == "columns" else {}
    return Table("chat", rows, columns, nested=shape not in ("columns", "text"))


def _sharegpt_speaker(turn: Values) -> str:
    if turn["role"] == "user":
        return "human"
    return "function_call" if turn.get("tool_calls") else "gpt"


def tagged(draw: random.Random, scheme: str, written: str) -> Table:
    """Words with tags of one of SCHEMES.

    written  list, json or python (a literal); or spans: texts with character offsets
    """
    words = ("Anna", "Berg", "left", "Straße", "d'Arc")
    rows = []
    for number in range(draw.randint(12, 30)):
        tokens = ["row", str(number), *draw.choices(words, k=draw.randint(2, 8))]
        tags = ["O", "O"]
        while len(tags) < len(tokens):
            length = min(draw.randint(1, 2), len(tokens) - len(tags))
            entity = draw.choice(("PER", "LOC", ""))
            tags += [f"{'I' if i else 'B'}-{entity}" if entity else "O" for i in range(length)]
        rows.append(Row(_entities(tokens, tags, scheme, written), {"tokens": tokens, "tags": tags}))
    ingest = {"tag_scheme": "iob1"} if scheme == "iob1" else {}
    return Table("token-classification", rows, ingest, nested=written in ("list", "spans"))


def _entities(tokens: list[str], tags: list[str], scheme: str, written: str) -> Values:
    if written == "spans":
        spans: list[Values] = []
        start = 0
        for token, tag in zip(tokens, tags, strict=True):
            if tag[0] == "B":
                spans.append({"start": start, "end": start + len(token), "label": tag[2:]})
            elif tag[0] == "I":
                spans[-1]["end"] = start + len(token)
            start += len(token) + 1
        return {"tokens": " ".join(tokens), "tags": spans}
    converted = [_in_scheme(tags, index, scheme) for index in range(len(tags))]
    write = {"list": list, "json": json.dumps, "python": repr}[written]
    return {"tokens": write(tokens), "tags": write(converted)}


def _in_scheme(tags: Sequence[str], index: int, scheme: str) -> str:
    tag, before, after = tags[index], tags[index - 1] if index else "O", [*tags, "O"][index + 1]
    if tag == "O" or scheme == "iob2":
        return tag
    if scheme == "iob1":
        return tag if tag[0] == "I" or before[2:] == tag[2:] else f"I-{tag[2:]}"
    continues = after == f"I-{tag[2:]}"
    return f"{tag[0] if continues else {'B': 'S', 'I': 'E'}[tag[0]]}-{tag[2:]}"


def write(
    path: Path, rows: Sequence[Values], encoding: str = "utf-8", line_end: str = "\n"
) -> list[int]:
    """Write the rows in the format of the path's suffix.

    Returns the line at which each row begins, as ingest counts lines.
    """
    file_format = path.suffix[1:]
    if file_format == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif file_format == "json":
        path.write_text(json.dumps(list(rows), ensure_ascii=False, indent=1), encoding=encoding)
    elif file_format == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + line_end for row in rows)
        path.write_text(text, encoding=encoding, newline="")
    else:
        return _write_csv(path, rows, encoding, line_end)
    return list(range(1, len(rows) + 1))


def _write_csv(path: Path, rows: Sequence[Values], encoding: str, line_end: str) -> list[int]:
    file = io.StringIO(newline="")
    delimiter = "\t" if path.suffix == ".tsv" else ","
    writer = csv.writer(file, delimiter=delimiter, lineterminator=line_end)
    writer.writerow(rows[0])
    lines = []
    for row in rows:
        lines.append(file.getvalue().count("\n") + 1)
        writer.writerow("" if value is None or value != value else value for value in row.values())
    path.write_text(file.getvalue(), encoding=encoding, newline="")
    return lines


def add_broken_lines(draw: random.Random, path: Path, encoding: str, line_end: str) -> list[int]:
    """Append lines that are no rows to a CSV or TSV file.

    A repeated header, a field too many, a blank line, an unclosed quote. Returns the numbers of the
    lines that must be set aside.
    """
    delimiter = "\t" if path.suffix == ".tsv" else ","
    text = path.read_bytes().decode(encoding)
    header = text.split(line_end)[0]
    wide_header = header.replace(delimiter, "x" + delimiter) + delimiter
    extra = draw.sample([header, wide_header, "", '"open' + delimiter], draw.randint(1, 4))
    first = text.count("\n") + 1
    path.write_text(text + line_end.join(extra) + line_end, encoding=encoding, newline="")
    return [first + number for number, line in enumerate(extra) if line]
