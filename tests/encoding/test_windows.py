"""Words, sub-words and long rows as overlapping windows: nothing is lost.

Merging the windows gives what one long pass would.
"""

from __future__ import annotations

import random
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_entities import TYPES, tagged_rows
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tasks.core.ragged import gather
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import load_tokenizer
from tasks.encoding.windows import (
    OVERLAP,
    Frame,
    collate_windows,
    cut_windows,
    make_windows,
    merge_windows,
    split_windows,
    window_references,
)
from tasks.encoding.words import align, find_words, join_words, special_tokens, sub_words, words_of
from tasks.problems import load_problem

PROBLEM = load_problem("token-classification")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Angela Merkel visited Paris.", ["Angela", "Merkel", "visited", "Paris", "."]),
        (
            "O'Neil, Coca-Cola won't pay 3.5%!",
            ["O'Neil", ",", "Coca-Cola", "won't", "pay", "3.5", "%", "!"],
        ),
        ("我在北京2024年。", ["我", "在", "北", "京", "2024", "年", "。"]),
        ("हिन्दी में é \u200b❤\ufe0f\U0001f468", ["हिन्दी", "में", "é", "❤\ufe0f", "\U0001f468"]),
        ("@x\t#y_z\n# 3", ["@", "x", "#y_z", "#", "3"]),
        ("see http://t.co/a?b=1 now", ["see", "http://t.co/a?b=1", "now"]),
        (" \u200b ", []),
        ("", []),
    ],
)
def test_words_are_found_with_their_characters(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in find_words(text)] == words


def test_given_words_lie_where_they_are_joined() -> None:
    text, spans = join_words(["a b", "", "\U0001f355 ", None, "c"])
    assert text == "a b  \U0001f355   c"
    assert [text[start:end] for start, end in spans] == ["a b", "", "\U0001f355 ", "", "c"]


def byte_level() -> Tokenizer:
    """A tokenizer like those of GPT-2 and RoBERTa.

    Blanks belong to the word after them, and one character may be several tokens.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        piece: number for number, piece in enumerate(["<s>", "</s>", *alphabet, "an", "er", "Ġa"])
    }
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "n"), ("e", "r"), ("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 1), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


@pytest.mark.parametrize("kind", ["word pieces", "bytes"])
def test_every_word_is_stood_for_by_its_first_token(base_dir: Path, kind: str) -> None:
    tokenizer = load_tokenizer(base_dir) if kind == "word pieces" else byte_level()
    words = [
        "the",
        "\U0001f468\u200d\U0001f469",
        "Berger",
        "\u200b",
        "",
        "an",
        "\ue001",
        "Ötzi",
        ".",
    ]
    text, spans = join_words(words)
    _, offsets = sub_words(tokenizer.encode(text))
    found, places = align(range(len(offsets)), offsets, spans, unknown=-1)
    assert [token for token in found if token >= 0] == list(range(len(offsets)))
    assert places == sorted(set(places))
    for (start, end), place in zip(spans, places, strict=True):
        mine = [
            token for token, (first, last) in enumerate(offsets) if first < end and last > start
        ]
        assert found[place] == (mine[0] if mine else -1)
    assert found[places[4]] == -1  # the empty word


def test_what_the_tokenizer_does_not_see_is_unknown(base_dir: Path) -> None:
    tokenizer = load_tokenizer(base_dir)
    features = encode_rows(
        PROBLEM.encoding, tokenizer, {"tokens": [["the", "\u200b", "film"]]}, TYPES
    )
    (ids,), (places,) = features["input_ids"], features["words"]
    assert [tokenizer.id_to_token(ids[place]) for place in places] == ["the", "[UNK]", "film"]


def test_a_cut_text_has_all_its_sub_words(base_dir: Path) -> None:
    text = "the good film was lovely and bright " * 9
    whole = sub_words(load_tokenizer(base_dir).encode(text))
    assert sub_words(load_tokenizer(base_dir, 16).encode(text)) == whole
    tokenizer = load_tokenizer(base_dir, 16)
    assert special_tokens(tokenizer) == (
        [tokenizer.token_to_id("[CLS]")],
        [tokenizer.token_to_id("[SEP]")],
    )


@pytest.mark.parametrize("seed", range(30))
def test_windows_cover_everything_and_overlap(seed: int) -> None:
    draw = random.Random(seed)
    capacity = draw.randint(4, 30)
    borders = [0]
    for _ in range(draw.randint(0, 60)):
        borders.append(
            borders[-1] + draw.randint(1, capacity if draw.random() < 0.2 else min(3, capacity))
        )
    overlap = int(OVERLAP * capacity)
    windows = cut_windows(borders, capacity, overlap)
    assert windows[0][0] == 0
    assert windows[-1][1] == borders[-1]
    assert {border for window in windows for border in window} <= set(borders)
    assert all(end - begin <= capacity for begin, end in windows)
    for (first, end), (begin, last) in pairwise(windows):
        assert first < begin <= end < last
        nearest = max(border for border in borders if border <= max(end - overlap, 0))
        reaching = min(
            border
            for border in borders
            if border >= min(border for border in borders if border > end) - capacity
        )
        assert begin <= max(nearest, reaching)  # it shares what it can
    assert len(windows) <= max(1, len(borders) - 1)


def test_each_word_is_taken_where_it_has_most_room() -> None:
    frame = Frame(8, [90], [91])
    row = make_windows(list(range(20)), list(range(20)), frame)
    assert not row.cut
    assert [row.input_ids[place] for place in row.words] == list(range(20))
    windows = split_windows([row.input_ids], [row.windows])
    ends = np.cumsum(row.windows)
    for word, place in enumerate(row.words):
        number = int(np.searchsorted(ends, place, "right"))
        rooms = [
            min(w.index(word) if w[1] else 99, len(w) - 1 - w.index(word) if w[-2] != 19 else 99)
            for w in windows
            if word in w[1:-1]
        ]
        mine = windows[number]
        assert min(
            mine.index(word) if mine[1] else 99,
            len(mine) - 1 - mine.index(word) if mine[-2] != 19 else 99,
        ) == max(rooms)


def test_a_word_longer_than_a_window_loses_its_end_and_nothing_else() -> None:
    row = make_windows([1, *[2] * 30, 3], [0, 1, 31], Frame(8, [90], [91]))
    assert row.cut
    assert [row.input_ids[place] for place in row.words] == [1, 2, 3]
    assert max(row.windows) <= 10


def features_of(base: Path, rows: dict[str, list[Any]], length: int | None) -> dict[str, list[Any]]:
    return encode_rows(PROBLEM.encoding, load_tokenizer(base, length), rows, TYPES)


def long_rows() -> dict[str, list[Any]]:
    short = tagged_rows(60)
    joined = {
        name: [
            list(chain.from_iterable(short[name][start : start + size]))
            for start, size in ((0, 1), (1, 9), (10, 2), (12, 20))
        ]
        for name in ("tokens", "tags")
    }
    return {name: [*values, []] for name, values in joined.items()}


def one_hot(features: dict[str, list[Any]], width: int = 200) -> np.ndarray:
    """A model that looks at each token alone."""
    return np.eye(width, dtype=np.float32)[collate_windows(features, 0)["input_ids"]]


@pytest.mark.parametrize("length", [8, 11, 16, 64])
def test_merged_windows_are_one_long_pass_where_context_does_not_matter(
    base_dir: Path, length: int
) -> None:
    rows = long_rows()
    parts, whole = features_of(base_dir, rows, length), features_of(base_dir, rows, None)
    assert all(len(windows) == 1 for windows in whole["windows"])
    assert max(map(len, parts["windows"])) > 1
    assert max(max(windows) for windows in parts["windows"]) <= length
    assert not any(parts["truncated"])
    merged, long = (merge_windows(one_hot(features), features) for features in (parts, whole))
    np.testing.assert_array_equal(merged[:-1], long[:-1])  # the last row has no words
    assert np.isfinite(merged[-1, 0]).all()
    counts = np.isfinite(merged[..., 0]).sum(1).tolist()
    assert counts == [*map(len, rows["tokens"][:-1]), 1]


def test_rows_merge_alike_alone_and_together(base_dir: Path) -> None:
    features = features_of(base_dir, long_rows(), 16)
    together = merge_windows(one_hot(features), features)
    alone = []
    for row in range(5):
        own = {name: values[row : row + 1] for name, values in features.items()}
        alone.append(merge_windows(one_hot(own), own))
    np.testing.assert_array_equal(gather(alone, [np.asarray([row]) for row in range(5)]), together)


def test_each_word_is_trained_on_once_and_other_tokens_never(base_dir: Path) -> None:
    features = features_of(base_dir, long_rows(), 16)
    references = window_references(features)
    assert references.shape == collate_windows(features, 0)["input_ids"].shape
    assert sorted(references[references >= 0].tolist()) == sorted(
        tag for tags in features["references"] for tag in tags
    )


def test_a_text_alone_gives_the_same_features_as_its_words(base_dir: Path) -> None:
    rows = tagged_rows(20)
    given = features_of(base_dir, {"tokens": rows["tokens"]}, 16)
    assert features_of(base_dir, {"text": rows["text"]}, 16) == given
    assert words_of({"text": rows["text"]}) == words_of({"tokens": rows["tokens"]})
