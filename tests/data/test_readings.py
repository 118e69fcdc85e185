"""Values keep their meaning however they are stored, or their row is set aside with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_entities import tagged_rows

from tasks.core.errors import DataError, ParamsError
from tasks.core.files import read_jsonl
from tasks.core.progress import silent
from tasks.ingestion import read_sources
from tasks.params.ingestion import IngestParams
from tasks.params.labels import canonical_label, label_variants

ASKED, SAID = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ingest(
    root: Path, sources: list[Path], problem: str = "text-classification", **values: Any
) -> tuple[list[dict[str, Any]], list[Any]]:
    """(rows, (line, reason) of those that were set aside)."""
    params = IngestParams.model_validate(
        {"sources": [{"url": str(source)} for source in sources], **values}
    )
    read_sources(
        root / "raw", problem=problem, ingest=params, root=root, cache=root / "cache", report=silent
    )
    aside = [
        (entry["line"], entry["reason"]) for entry in read_jsonl(root / "raw" / "quarantine.jsonl")
    ]
    return pq.read_table(root / "raw" / "rows.parquet").to_pylist(), aside


# --- labels ---


@pytest.mark.parametrize(
    ("stored", "labels"),
    [
        ([1, 0, 2], ["1", "0", "2"]),
        ([1.0, 0.0, -2.0, 0.5, float("nan"), None], ["1", "0", "-2", "0.5", None, None]),
        ([True, False, None], ["true", "false", None]),
        ([1e15, -3e15], ["1000000000000000", "-3000000000000000"]),
        (
            ["1.0", "True", "TRUE", "01", "1.50", "10", "-0.0", "nan", "NA"],
            ["1", "true", "true", "01", "1.50", "10", "0", "nan", "NA"],
        ),
    ],
)
def test_a_label_has_one_form_for_one_value(
    stored: list[Any], labels: list[str | None], tmp_path: Path
) -> None:
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(stored)]
    for name in ("a.parquet", "b.jsonl"):
        found, aside = ingest(tmp_path, [write(tmp_path / name, rows)])
        assert [row["label"] for row in found] == labels, name
        assert aside == []
    csv = "text,label\n" + "".join(
        f"text {i},{'' if label is None or label != label else label}\n"
        for i, label in enumerate(stored)
    )
    (tmp_path / "c.csv").write_text(csv, encoding="utf-8")
    assert [row["label"] for row in ingest(tmp_path, [tmp_path / "c.csv"])[0]] == [
        label or "" for label in labels
    ]


def test_files_that_store_labels_differently_agree(tmp_path: Path) -> None:
    """Each file by its own types: together they would be floats, or texts."""
    values: list[list[Any]] = [[0, 1], [0.0, 1.0], ["0", "1"], [False, True]]
    sources = [
        write(tmp_path / f"{i}.parquet", [{"text": "x", "label": label} for label in some])
        for i, some in enumerate(values)
    ]
    found, _ = ingest(tmp_path, sources)
    assert [row["label"] for row in found] == ["0", "1"] * 3 + ["false", "true"]


def test_a_column_of_mixed_types_is_read_value_by_value(tmp_path: Path) -> None:
    labels = [1, 1.0, "1", "1.0", True, "true", None, ["a"], {"b": 1}]
    found, aside = ingest(
        tmp_path, [write(tmp_path / "a.jsonl", [{"text": "x", "label": label} for label in labels])]
    )
    assert [row["label"] for row in found] == ["1", "1", "1", "1", "true", "true", None]
    assert aside == [
        (line, "label: wanted one label, found a list or an object") for line in (8, 9)
    ]


def test_labels_that_differ_by_case_and_blanks_are_one_when_asked(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.jsonl",
        [{"text": "x", "label": label} for label in ("Spam ", "spam", "SPAM\xa0", "ham")],
    )
    assert [row["label"] for row in ingest(tmp_path, [source])[0]] == [
        "Spam ",
        "spam",
        "SPAM\xa0",
        "ham",
    ]
    assert [row["label"] for row in ingest(tmp_path, [source], merge_labels=True)[0]] == [
        "spam",
        "spam",
        "spam",
        "ham",
    ]
    assert label_variants(["Spam ", "ham", "spam"]) == [["Spam ", "spam"]]


def test_sql_and_python_agree_on_what_a_label_is(tmp_path: Path) -> None:
    texts = [
        "1.0",
        "-0.00",
        "0",
        "00.0",
        "1.",
        "+1.0",
        "10.000",
        "True",
        "tRUE",
        "false",
        "Falsey",
        " true",
        "İ",
        "Straße ",
        "\tx",
        "1.0 ",
    ]
    source = write(tmp_path / "a.jsonl", [{"text": "x", "label": text} for text in texts])
    for merge in (False, True):
        found = [row["label"] for row in ingest(tmp_path, [source], merge_labels=merge)[0]]
        expected = [canonical_label(text, merge=merge) for text in texts]
        assert [
            pair
            for pair in zip(found, expected, strict=True)
            if pair[0] != pair[1] and "İ" not in texts[found.index(pair[0])]
        ] == []


# --- nested texts ---


def test_text_parts_are_joined_and_other_nested_values_set_aside(tmp_path: Path) -> None:
    part = {"type": "text", "text": "one"}
    texts: list[Any] = [
        "plain", [part, {"type": "text", "text": "two"}],
        [{"type": "text", "text": {"value": "deep"}}], ["a", "b"], {"en": "x"},
        [part, {"type": "image_url", "image_url": {"url": "u"}}], 7, '["as it is"]', [],
    ]  # fmt: skip
    source = write(tmp_path / "a.jsonl", [{"text": text, "label": "p"} for text in texts])
    found, aside = ingest(tmp_path, [source])
    assert [row["text"] for row in found] == ["plain", "one\ntwo", "deep", "7", '["as it is"]']
    image = "text: a content part of type image_url, which cannot be trained on"
    assert aside == [
        (4, "text: wanted text, found a list"),
        (5, "text: wanted text, found an object"),
        (6, image),
        (9, aside[3][1]),
    ]
    queried, also = ingest(tmp_path, [source], query="SELECT text, label, _file, _line FROM data")
    assert [row["text"] for row in queried] == [
        "plain",
        "one\ntwo",
        "deep",
        "7",
    ]  # a list in a text cannot be told from a list here
    assert [line for line, _ in also] == [4, 5, 6, 8, 9]


def test_a_file_of_lists_beside_a_file_of_texts_is_no_text(tmp_path: Path) -> None:
    sources = [
        write(tmp_path / "a.parquet", [{"text": "x", "label": "p"}]),
        write(tmp_path / "b.parquet", [{"text": ["y"], "label": "p"}]),
    ]
    with pytest.raises(DataError, match=r"wanted text, found VARCHAR\[\]"):
        ingest(tmp_path, sources)


def test_members_of_structures_are_columns(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.jsonl",
        [
            {"data": {"text": "x", "meta": {"label": 1.0}}},
            {"data": {"text": "y", "meta": {"label": 0}}},
        ],
    )
    found, _ = ingest(tmp_path, [source], columns={"text": "data.text", "label": "data.meta.label"})
    assert [(row["text"], row["label"]) for row in found] == [("x", "1"), ("y", "0")]
    with pytest.raises(DataError, match=r"no column 'data\.txt'"):
        ingest(tmp_path, [source], columns={"text": "data.txt", "label": "data.meta.label"})


# --- dialogues ---


@pytest.mark.parametrize(
    "value",
    [
        [ASKED, SAID],
        [
            {**ASKED, "content": [{"type": "text", "text": "Hi?"}]},
            {**SAID, "content": [{"type": "text", "text": "Hello."}]},
        ],
        [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}],
        json.dumps([ASKED, SAID]),
        repr([ASKED, SAID]),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_dialogues_are_read_in_every_shape(value: Any, name: str, tmp_path: Path) -> None:
    found, aside = ingest(
        tmp_path,
        [write(tmp_path / name, [{"talk": value}] * 2)],
        "chat",
        columns={"messages": "talk"},
    )
    assert [row["messages"] for row in found] == [[ASKED, SAID]] * 2
    assert [row["text"] for row in found] == ["Hi?\nHello."] * 2
    assert aside == []


def test_columns_of_questions_and_answers_are_dialogues(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        {"instruction": "Hi?", "input": "", "output": "Hello."},
    ]
    columns = {"messages": ["instruction", "input", "output"]}
    found, _ = ingest(tmp_path, [write(tmp_path / "a.jsonl", rows)], "chat", columns=columns)
    assert [[turn["content"] for turn in row["messages"]] for row in found] == [
        ["Add.\n\n1, 2", "3"],
        ["Hi?", "Hello."],
    ]
    assert {tuple(turn["role"] for turn in row["messages"]) for row in found} == {
        ("user", "assistant")
    }
    talked = [{"prompt": [{"role": "system", "content": "Be brief."}, ASKED], "completion": [SAID]}]
    [row], _ = ingest(
        tmp_path,
        [write(tmp_path / "b.jsonl", talked)],
        "chat",
        columns={"messages": ["prompt", "completion"]},
    )
    assert row["messages"] == [{"role": "system", "content": "Be brief."}, ASKED, SAID]
    shared = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}]
    told: list[dict[str, Any]] = [
        {"system": "Be brief.", "conversations": shared},
        {"system": None, "conversations": shared},
    ]
    found, _ = ingest(
        tmp_path,
        [write(tmp_path / "c.jsonl", told)],
        "chat",
        columns={"messages": ["system", "conversations"]},
    )
    assert [row["messages"] for row in found] == [
        [{"role": "system", "content": "Be brief."}, ASKED, SAID],
        [ASKED, SAID],
    ]


def test_what_a_dialogue_cannot_teach_is_set_aside(tmp_path: Path) -> None:
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "f"}}],
    }
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}
    talks = [
        [ASKED, SAID],
        [ASKED, call, {"role": "tool", "content": "4"}, SAID],
        [image, SAID],
        [ASKED, {**SAID, "weight": 0}],
    ]
    found, aside = ingest(
        tmp_path, [write(tmp_path / "a.jsonl", [{"messages": talk} for talk in talks])], "chat"
    )
    assert [row["messages"] for row in found] == [[ASKED, SAID]]
    reasons = [
        "turn 2: a tool call",
        "turn 1: a content part of type image_url",
        "turn 2: a weight of 0",
    ]
    assert [line for line, _ in aside] == [2, 3, 4]
    assert all(
        said.startswith(f"messages: {reason}")
        for (_, said), reason in zip(aside, reasons, strict=True)
    )


# --- several labels ---


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        ([["a", "b"], ["a"], []], {}),
        (['["a", "b"]', '["a"]', "[]"], {}),
        (["['a', 'b']", "['a']", "[]"], {}),
        (["a|b", " a ", ""], {}),
        (["a;b", "a", ""], {"label_separator": ";"}),
        (["a, b", "a", ""], {"label_separator": ","}),
    ],
)
def test_several_labels_are_read_in_every_shape(
    values: list[Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    rows = [{"text": f"text {i}", "labels": value} for i, value in enumerate(values)]
    for name in ("a.jsonl", "a.parquet"):
        found, aside = ingest(
            tmp_path, [write(tmp_path / name, rows)], "multi-label-classification", **settings
        )
        assert ([row["labels"] for row in found], aside) == ([["a", "b"], ["a"], []], [])


def test_numbers_in_lists_are_labels_by_value_and_what_is_no_list_is_set_aside(
    tmp_path: Path,
) -> None:
    values: list[Any] = [[1.0, 2], "['1', 2.0]", "[1 2", "['a' 'b']", [None], {"a": 1}, [["a"]]]
    found, aside = ingest(
        tmp_path,
        [write(tmp_path / "a.jsonl", [{"text": "x", "labels": value} for value in values])],
        "multi-label-classification",
    )
    assert [row["labels"] for row in found] == [["1", "2"], ["1", "2"]]
    assert [line for line, _ in aside] == [3, 4, 5, 6, 7]
    assert "NumPy" in aside[1][1]
    assert "missing" in aside[2][1]


def test_columns_of_zeros_and_ones_are_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "text,toxic,rude\nx,1,0\ny,0,0\nz,1.0,True\nw,-1,0\nv,,1\nu,No,YES\n", encoding="utf-8"
    )
    found, aside = ingest(
        tmp_path,
        [tmp_path / "a.csv"],
        "multi-label-classification",
        columns={"labels": ["toxic", "rude"]},
    )
    assert [row["labels"] for row in found] == [["toxic"], [], ["toxic", "rude"], ["rude"]]
    assert aside == [
        (5, "toxic: wanted 0 or 1, found -1"),
        (6, "toxic: missing, which is neither 0 nor 1; `ingest.query` can say what it means"),
    ]


def test_several_columns_for_one_text_are_told(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"a": "x", "b": "y", "label": "p"}])
    with pytest.raises(ParamsError, match=r"ingest\.columns\.text: wanted one column, found 2"):
        ingest(tmp_path, [source], columns={"text": ["a", "b"]})


# --- entities ---

NUMBERS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def in_scheme(tags: list[str], scheme: str) -> list[Any]:
    """IOB2 tags as another tool writes them."""
    found: list[Any] = []
    for place, tag in enumerate(tags):
        before, after = tags[place - 1] if place else "O", [*tags, "O"][place + 1]
        goes_on = after == f"I-{tag[2:]}"
        if scheme == "numbers":
            found.append(NUMBERS.index(tag))
        elif tag == "O" or scheme == "iob2":
            found.append(tag)
        elif scheme == "iob1":
            found.append(tag if tag[0] == "I" or before[2:] == tag[2:] else f"I-{tag[2:]}")
        else:
            single, last = ("S", "E") if scheme == "bioes" else ("U", "L")
            found.append(f"{tag[0] if goes_on else {'B': single, 'I': last}[tag[0]]}-{tag[2:]}")
    return found


def offsets(tokens: list[str], tags: list[str]) -> list[tuple[int, int, str]]:
    """Spans of the words joined by blanks."""
    starts = [sum(len(token) + 1 for token in tokens[:place]) for place in range(len(tokens))]
    spans: list[tuple[int, int, str]] = []
    for start, token, tag in zip(starts, tokens, tags, strict=True):
        if tag[0] == "B":
            spans.append((start, start + len(token), tag[2:]))
        elif tag[0] == "I":
            spans[-1] = (spans[-1][0], start + len(token), tag[2:])
    return spans


@pytest.mark.parametrize("scheme", ["iob2", "iob1", "bioes", "bilou", "numbers"])
@pytest.mark.parametrize("written", [list, json.dumps, repr])
def test_tags_of_every_scheme_become_iob2(scheme: str, written: Any, tmp_path: Path) -> None:
    rows = tagged_rows(40)
    touching = ["B-PER", "B-PER", "I-PER", "O"]
    tokens, tags = [*rows["tokens"], ["Ida", "Max", "Thal", "left"]], [*rows["tags"], touching]
    data = [
        {"tokens": written(words), "tags": written(in_scheme(some, scheme))}
        for words, some in zip(tokens, tags, strict=True)
    ]
    settings: dict[str, dict[str, Any]] = {
        "numbers": {"tag_names": NUMBERS},
        "iob1": {"tag_scheme": "iob1"},
    }
    found, aside = ingest(
        tmp_path,
        [write(tmp_path / "a.jsonl", data)],
        "token-classification",
        **settings.get(scheme, {}),
    )
    assert ([row["tags"] for row in found], aside) == (tags, [])
    assert [row["tokens"] for row in found] == tokens


def test_numbers_of_tags_ask_for_their_names(tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", [{"tokens": ["a", "b"], "tags": [0, 1]}])
    with pytest.raises(ParamsError, match="holds tag numbers") as error:
        ingest(tmp_path, [source], "token-classification")
    assert "tag_names" in error.value.remedy


@pytest.mark.parametrize(
    "tool", ["doccano", "doccano objects", "prodigy", "label studio", "label studio tasks"]
)
def test_spans_with_offsets_become_tags(tool: str, tmp_path: Path) -> None:
    rows = tagged_rows(40)
    data, columns = [], {"tokens": "text", "tags": "spans"}
    for text, tokens, tags in zip(rows["text"], rows["tokens"], rows["tags"], strict=True):
        spans = offsets(tokens, tags)
        values = [
            {"start": start, "end": end, "text": text[start:end], "labels": [label]}
            for start, end, label in spans
        ]
        found: Any = {
            "doccano": [list(span) for span in spans],
            "doccano objects": [
                {"id": 1, "label": label, "start_offset": start, "end_offset": end}
                for start, end, label in spans
            ],
            "prodigy": [
                {"start": start, "end": end, "token_start": 0, "label": label}
                for start, end, label in spans
            ],
            "label studio": values,
            "label studio tasks": [
                {"id": 1, "result": [{"type": "labels", "value": value} for value in values]}
            ],
        }[tool]
        data.append(
            {"data": {"text": text}, "annotations": found}
            if tool.endswith("tasks")
            else {"text": text, "spans": found}
        )
    if tool.endswith("tasks"):
        columns = {"tokens": "data.text", "tags": "annotations"}
    found, aside = ingest(
        tmp_path, [write(tmp_path / "a.jsonl", data)], "token-classification", columns=columns
    )
    assert ([row["tags"] for row in found], aside) == (rows["tags"], [])


def test_spans_that_cannot_be_are_set_aside_and_a_word_is_cut_where_one_ends(
    tmp_path: Path,
) -> None:
    text = "I met Anna's dog."
    spans: list[Any] = [
        [[6, 10, "PER"]], [[6, 12, "PER"], [6, 10, "PER"]], [[6, 99, "PER"]], [[6, 10, None]],
        [[5, 11, "PER"]], [[5, 6, "PER"]],
        [{"start": 6, "end": 10, "label": "PER", "text": "nna'"}],
    ]  # fmt: skip
    source = write(tmp_path / "a.jsonl", [{"text": text, "spans": some} for some in spans])
    found, aside = ingest(
        tmp_path, [source], "token-classification", columns={"tokens": "text", "tags": "spans"}
    )
    assert [(row["tokens"], row["tags"]) for row in found[:1]] == [
        (["I", "met", "Anna", "'s", "dog", "."], ["O", "O", "B-PER", "O", "O", "O"])
    ]
    assert [line for line, _ in aside] == [2, 3, 4, 6, 7]
    assert "overlaps" in aside[0][1]
    assert "17 characters" in aside[1][1]


# --- files ---


def test_the_header_once_more_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,p\ntext,label\ny,n\n", encoding="utf-8")
    found, aside = ingest(tmp_path, [tmp_path / "a.csv"])
    assert ([row["text"] for row in found], aside) == (["x", "y"], [(3, "repeats the header")])


@pytest.mark.parametrize(
    "content",
    [
        "text;label;note, if any\na, b;p;\nc;n;\n",
        "sep=;\ntext;label\na, b;p\nc;n\n",
        'sep=,\r\ntext,label\r\n"a, b",p\r\nc,n\r\n',
    ],
)
def test_the_delimiter_is_what_divides_the_records(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8", newline="")
    found, aside = ingest(tmp_path, [tmp_path / "a.csv"])
    assert ([(row["text"], row["label"]) for row in found], aside) == (
        [("a, b", "p"), ("c", "n")],
        [],
    )
