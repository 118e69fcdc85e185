"""Token classification: named entities; words in, spans of them out.

`labels` are the types of entities; the model predicts a BIO tag for each word. Rows have `tokens`;
where only `text` is given, its words are found (encoding/words.py). Long rows are windowed
(encoding/windows.py): outputs and references have one position a word, whatever the tokenizer does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Array, Columns, Features, Floats, Indices
from tasks.core.errors import ParamsError
from tasks.data.quality.checks import Check
from tasks.data.quality.tag_checks import bio_checks, bio_facts
from tasks.data.row_format import Guessed
from tasks.data.tables.column_guesses import lists, texts
from tasks.data.tables.readings import Reading, one_column, read_as
from tasks.data.tables.tag_schemes import (
    PREFIXES,
    as_iob2,
    is_iob1,
    numbered,
    spans_of,
    unnamed_number,
)
from tasks.encoding.padding import pad_rows
from tasks.encoding.spans import OUTSIDE, tag_ids, tag_names
from tasks.encoding.windows import (
    IGNORE_INDEX,
    Frame,
    collate_windows,
    make_windows,
    merge_windows,
    window_references,
)
from tasks.encoding.words import align, special_tokens, sub_words, unknown_token, words_of
from tasks.problems.parts.entities import EntityDecoder, EntityScorer, TagObjective, entity_figures
from tasks.problems.parts.rows import Rows, SourceColumns
from tasks.problems.parts.texts import INFERENCE_TOKENS
from tasks.problems.problem import Problem

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.params.ingestion import ReadingParams
    from tasks.params.schema import ValidateParams

COLUMNS = {
    "tokens": "the words, a list, or a text",
    "tags": "a tag for each word, or spans of the text",
}
MOST = 0.9  # share of rows that must look right for a guess; a few bad ones do not hide the rest


def read(given: SourceColumns, params: ReadingParams) -> dict[str, Reading] | None:
    """Lists of words and tags, or a text and spans of its characters."""
    if given.keys() != set(COLUMNS):
        return None
    columns = {name: one_column(name, column) for name, column in given.items()}
    tokens, tags = columns["tokens"], columns["tags"]
    if tokens.is_list and tags.is_list:
        readings = {name: Reading(f"{column.sql}::VARCHAR[]") for name, column in columns.items()}
    else:
        call = f"read_tagged({tokens.text}, {tags.text})"
        readings = {name: read_as(call, name, column.name) for name, column in columns.items()}
    value = as_iob2(readings["tags"].value, tags, params)
    unnamed = unnamed_number(value, tags.name)
    problem = f"coalesce({readings['tags'].problem or 'NULL'}, {unnamed})"
    return {**readings, "tags": Reading(value, problem)}


def guess_columns(rows: Columns) -> Guessed | None:
    """Lists of words and tags of equal lengths, or a text and tags or spans of it."""
    word_lists = lists(rows)
    tagged = (name for name in word_lists if _mostly(map(_are_tags, rows[name])))
    tags = next(tagged, None) or numbered(rows)
    if tags is None:
        text, spans = next(iter(texts(rows)), None), spans_of(rows)
        return {"tokens": text, "tags": spans} if text and spans else None
    lengths = [len(value or ()) for value in rows[tags]]
    fitting = [
        name
        for name in word_lists
        if name != tags and _mostly(map(_has_length, rows[name], lengths))
    ]
    words = {name: [(text or "").split() for text in rows[name]] for name in texts(rows)}
    fitting = fitting or sorted(
        words, key=lambda name: not _mostly(map(_has_length, words[name], lengths))
    )
    if not fitting:
        return None
    return {"tokens": min(fitting, key=lambda name: name != "tokens"), "tags": tags}


def guess_reading(rows: Columns, columns: Guessed) -> dict[str, Any]:
    """The scheme of the tags, where it is not IOB2."""
    return {"tag_scheme": "iob1"} if is_iob1(rows[str(columns["tags"])]) else {}


def tag_checks(validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
    """Checks of the tags; ParamsError where there are no types of entities."""
    if not labels:
        raise ParamsError(
            "labels: empty; wanted every type of entity.",
            "List them in params.yaml: `labels: [LOC, ORG, PER]`.",
        )
    return bio_checks(validate, labels)


def _are_tags(values: Sequence[Any] | None) -> bool:
    return all(
        isinstance(value, str) and (value == OUTSIDE or value.startswith(PREFIXES))
        for value in values or ()
    )


def _has_length(values: Sequence[Any] | None, length: int) -> bool:
    return len(values or ()) == length


def _mostly(holds: Iterable[bool]) -> bool:
    return bool(np.mean(list(holds)) >= MOST)


class WordEncoder:
    """Windows of word pieces; one tag a word."""

    batch_tokens = INFERENCE_TOKENS
    random_inputs = False

    def encode(self, tokenizer: Tokenizer, rows: Columns) -> Features:
        row_texts, words = words_of(rows)
        before, after = special_tokens(tokenizer)
        longest = tokenizer.truncation["max_length"] if tokenizer.truncation else sys.maxsize
        frame = Frame(longest - len(before) - len(after), before, after)
        unknown = unknown_token(tokenizer)
        windowed = [
            make_windows(*align(*sub_words(encoding), characters, unknown), frame)
            for encoding, characters in zip(tokenizer.encode_batch(row_texts), words, strict=True)
        ]
        return {
            "input_ids": [row.input_ids for row in windowed],
            "truncated": [row.cut for row in windowed],
            "windows": [row.windows for row in windowed],
            "words": [row.words for row in windowed],
        }

    def encode_answers(self, rows: Columns, labels: Sequence[str]) -> Features:
        if "tags" not in rows:
            return {}
        lengths = list(map(len, words_of(rows)[1]))
        return {"references": tag_ids(rows["tags"], lengths, tag_names(labels))}

    def collate(self, features: Features, pad_token_id: int) -> dict[str, Indices]:
        return collate_windows(features, pad_token_id)

    def references(self, features: Features) -> Array:
        return pad_rows(features["references"], IGNORE_INDEX)

    def training_batch(
        self, features: Features, pad_token_id: int
    ) -> tuple[dict[str, Array], Array]:
        return {**self.collate(features, pad_token_id)}, window_references(features)

    def reduce(self, outputs: Floats, features: Features) -> Floats:
        return merge_windows(outputs, features)


PROBLEM = Problem(
    rows=Rows(
        name="token-classification",
        columns=COLUMNS,
        types={"tokens": "VARCHAR[]", "tags": "VARCHAR[]", "entities": "VARCHAR[]"},
        derived={
            "text": "array_to_string(tokens, ' ')",
            "entities": "list_sort(list_distinct(list_transform("
            "list_filter(tags, lambda tag: regexp_full_match(tag, '[BI]-.+')),"
            " lambda tag: tag[3:])))",
        },
        text_columns=("text",),
        label_column="entities",
        guess_columns=guess_columns,
        guess_reading=guess_reading,
        expectations=tag_checks,
        facts=bio_facts,
        read=read,
    ),
    encoding=WordEncoder(),
    objective=TagObjective(),
    scoring=EntityScorer(),
    decoding=EntityDecoder(),
    figures=entity_figures,
)
