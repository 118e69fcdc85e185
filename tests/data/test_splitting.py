"""Splitting: laws that hold for any rows."""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import tiny_rows

from tasks.core.errors import DataError
from tasks.core.files import read_json, read_jsonl
from tasks.core.progress import silent
from tasks.data.duplicates.distinct_texts import DistinctTexts
from tasks.data.duplicates.near_duplicates import NearDuplicates
from tasks.data.duplicates.normalization import (
    _normalize,
    _normalize_unicode,
    digests,
    normalize_rows,
    positions,
)
from tasks.data.duplicates.shingles import jaccard, shingles
from tasks.data.quality.row_account import Account
from tasks.data.tables.loaded import SPLITS
from tasks.params.schema import SplitParams
from tasks.splitting import split_rows

LABELS = ("negative", "neutral", "positive")
SIMILARITY = 0.85


def table(
    texts: Sequence[str | None], labels: list[str] | None = None, **columns: list[Any]
) -> pa.Table:
    count = len(texts)
    labels = labels or [LABELS[i % 3] for i in range(count)]
    return pa.table(
        {
            "row": pa.array(range(count), pa.int64()),
            "text": pa.array(texts, pa.string()),
            "label": labels,
            **columns,
        }
        | {"_file": ["rows.csv"] * count, "_line": pa.array(range(2, count + 2), pa.int64())}
    )


def run(
    root: Path,
    rows: pa.Table,
    labels: tuple[str, ...] = LABELS,
    row_group: int = 1_000_000,
    account: Account | None = None,
    **values: float,
) -> Path:
    """The directory that splitting makes of the rows."""
    (root / "valid").mkdir(parents=True)
    pq.write_table(rows, root / "valid" / "rows.parquet", row_group_size=row_group)
    account = account or Account(len(rows), len(rows))
    account.write(root / "valid")
    split = SplitParams.model_validate(values)
    split_rows(
        root / "valid",
        root / "splits",
        problem="text-classification",
        labels=labels,
        split=split,
        report=silent,
    )
    return root / "splits"


def read(splits: Path, name: str) -> pa.Table:
    return pq.read_table(splits / f"{name}.parquet")


def assignment(splits: Path) -> dict[str, str]:
    return {text: name for name in SPLITS for text in read(splits, name)["text"].to_pylist()}


def normalized(texts: list[str]) -> list[str]:
    result: list[str] = normalize_rows(
        [pa.chunked_array([pa.array(texts, pa.string())])]
    ).to_pylist()
    return result


def with_near_duplicates(count: int, seed: int) -> list[str]:
    """Sentences, and copies of some of them with a character or two changed, or with other punctuation."""
    draw = random.Random(seed)
    texts = tiny_rows(count, seed)["text"]
    for text in draw.sample(texts, count // 2):
        characters = list(text)
        for _ in range(draw.randint(1, 3)):
            characters[draw.randrange(len(characters))] = draw.choice("abcdefgh")
        texts.append("".join(characters))
        texts.append(text.upper().replace(" ", "  ") + "!!")
    draw.shuffle(texts)
    return texts


def test_no_text_and_no_near_duplicate_is_in_two_splits(tmp_path: Path) -> None:
    splits = run(tmp_path, table(with_near_duplicates(300, 1)), validation=0.25, test=0.25)
    assert read_jsonl(splits / "quarantine.jsonl")
    sets = {
        name: {shingles(text) for text in normalized(read(splits, name)["text"].to_pylist())}
        for name in SPLITS
    }
    assert all(sets.values())
    for i, one in enumerate(SPLITS):
        for other in SPLITS[i + 1 :]:
            assert max(jaccard(a, b) for a in sets[one] for b in sets[other]) < SIMILARITY


def test_rows_in_are_rows_in_splits_and_quarantine(tmp_path: Path) -> None:
    rows = table(with_near_duplicates(300, 2))
    splits = run(tmp_path, rows)
    kept = [number for name in SPLITS for number in read(splits, name)["row"].to_pylist()]
    aside = read_jsonl(splits / "quarantine.jsonl")
    assert sorted(kept + [entry["row"] for entry in aside]) == rows["row"].to_pylist()
    described = read_json(splits / "split.json")
    assert (described["rows_in"], described["rows_out"], described["quarantined"]) == (
        len(rows),
        len(kept),
        len(aside),
    )


def test_what_leaves_names_the_row_it_resembles(tmp_path: Path) -> None:
    rows = table(with_near_duplicates(300, 3))
    splits = run(tmp_path, rows, validation=0.25, test=0.25)
    texts = rows["text"].to_pylist()
    where = assignment(splits)
    for entry in read_jsonl(splits / "quarantine.jsonl"):
        like = entry["like"]
        assert entry["values"]["text"] == texts[entry["row"]]
        assert where[texts[like["row"]]] == like["split"]
        assert SPLITS.index(entry["split"]) < SPLITS.index(like["split"])
        found = jaccard(
            *(shingles(text) for text in normalized([texts[entry["row"]], texts[like["row"]]]))
        )
        assert found == pytest.approx(entry["similarity"], abs=1e-4)
        assert found >= SIMILARITY


def test_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    texts = with_near_duplicates(200, 4)
    first = assignment(run(tmp_path / "a", table(texts), validation=0.2, test=0.2))
    random.Random(0).shuffle(texts)
    assert assignment(run(tmp_path / "b", table(texts), validation=0.2, test=0.2)) == first


@pytest.mark.parametrize("given", [False, True])
def test_rows_in_batches_are_split_as_all_at_once(
    given: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = with_near_duplicates(200, 7)
    rows = table(texts, **({"split": [SPLITS[i % 3] for i in range(len(texts))]} if given else {}))
    whole = run(tmp_path / "whole", rows, validation=0.2, test=0.2)
    monkeypatch.setattr("tasks.data.tables.row_store.BATCH_ROWS", 50)
    monkeypatch.setattr("tasks.data.duplicates.distinct_texts.MAX_CHARACTERS", 2000)
    monkeypatch.setattr("tasks.data.duplicates.near_duplicates._INDEXED", 500)
    parts = run(tmp_path / "parts", rows, row_group=9, validation=0.2, test=0.2)
    for name in SPLITS:
        assert read(parts, name).equals(read(whole, name))
    for file in ("split.json", "quarantine.jsonl"):
        assert (parts / file).read_bytes() == (whole / file).read_bytes()
    assert read_json(parts / "split.json")["warnings"]


def test_added_rows_never_move_a_row_and_the_test_set_only_grows(tmp_path: Path) -> None:
    texts = with_near_duplicates(400, 5)
    before = assignment(run(tmp_path / "a", table(texts[:300]), validation=0.2, test=0.2))
    after = assignment(run(tmp_path / "b", table(texts), validation=0.2, test=0.2))
    assert all(after.get(text, name) == name for text, name in before.items())
    assert all(text in after for text, name in before.items() if name == "test")


def test_assignment_is_what_it_was_when_this_was_written() -> None:
    """The number is SHA-256's first 52 bits, of a text anyone can write down: no version or machine may change it."""
    texts = [
        "The room was clean.",
        "THE ROOM, was clean!!",
        "Ｆｕｌｌ ｗｉｄｔｈ",
        "naïve Ünïcode",
        "ΟΔΟΣ οδός",
        "👍👍",
        "!?",
        "中文 测试。",
        "हिन्दी",
        "2 + 2 = 4",
    ]
    expected = ["theroomwasclean"] * 2 + [
        "fullwidth",
        "naiveunicode",
        "οδοσοδοσ",
        "👍👍",
        "!?",
        "中文测试",
        "हिन्दी",
        "224",
    ]
    assert normalized(texts) == expected
    wanted = [int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 2**52 for text in expected]
    np.testing.assert_array_equal(
        positions(digests(pa.chunked_array([pa.array(expected)]))), wanted
    )
    assert wanted[0] == pytest.approx(0.96608888, abs=1e-8)


def test_normalizing_agrees_with_pythons_unicode_tables() -> None:
    texts = [
        "Straße Ǆ ﬁ ½ Ⅷ Å",
        "İstanbul ışık",
        "ἈΡΧΉ",
        "한국어 ㈜",
        "カﾀｶナ",
        "é e\u0301",
        "x²",
        "Ⓐ",
        "٣",
        "ñ Ñ",
    ]

    def reference(text: str) -> str:
        folded = (
            unicodedata.normalize("NFKD", text).upper().lower().replace("ς", "σ").replace("ss", "ß")
        )
        kept = re.sub("[\u0300-\u036f]", "", folded)
        return "".join(
            c
            for c in kept
            if unicodedata.category(c)[0] in "LMN" or unicodedata.category(c) == "So"
        )

    assert normalized(texts) == [reference(text) for text in texts]


def test_the_quick_way_of_ascii_is_the_careful_one() -> None:
    draw = random.Random(0)
    ascii_, others = [chr(i) for i in range(128)], list("éßſςΣﬁ½Ⅷ中👍\u0301\u200b")
    texts = [
        None
        if draw.random() < 0.05
        else "".join(
            draw.choices(ascii_ if draw.random() < 0.7 else ascii_ + others, k=draw.randint(0, 12))
        )
        for _ in range(20_000)
    ]
    column = pa.array(texts, pa.large_string())
    for some in (column, column.slice(7, 100), column.slice(0, 0)):
        assert _normalize(some).equals(_normalize_unicode(some))


def test_null_texts_stay_null_and_columns_do_not_run_together() -> None:
    columns = [
        pa.chunked_array([pa.array(values, pa.string())])
        for values in (["ab", "a", None], ["c", "bc", "x"])
    ]
    first, second, third = normalize_rows(columns).to_pylist()
    assert first != second
    assert third is None


def search(root: Path, texts: list[str], similarity: float) -> tuple[NearDuplicates, list[str]]:
    """A search among distinct texts, and they by their numbers."""
    column = pa.chunked_array([pa.array(texts, pa.large_string())])
    distinct = DistinctTexts(root, [column.slice(0, 100), column.slice(100)])
    assert len(distinct) == len(texts)
    return NearDuplicates(distinct, similarity, root / "shingles"), [
        texts[row] for row in distinct.first
    ]


@pytest.mark.parametrize("indexed", [8_000_000, 100])
@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.85, 0.95, 1.0])
@pytest.mark.parametrize(
    "alphabet", ["abc", "abcdefghijklmnopqrstuvwxyz0123456789", "好坏天气中文字"]
)
def test_every_similar_pair_is_found(
    similarity: float, alphabet: str, indexed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.data.duplicates.near_duplicates._INDEXED", indexed)
    draw = random.Random(f"{similarity}{alphabet}")
    texts = {"".join(draw.choices(alphabet, k=draw.randint(1, 90))) for _ in range(60)}
    for text in sorted(texts):
        for _ in range(3):
            at = draw.randrange(len(text))
            texts.add(text[:at] + draw.choice(alphabet) + text[at + draw.randint(0, 2) :])
        texts.add(text + text[: draw.randint(0, 30)])
    searched, ordered = search(tmp_path, sorted(texts), similarity)
    seekers = np.array([draw.random() < 0.6 for _ in ordered])
    sets = [shingles(text) for text in ordered]
    others = np.flatnonzero(~seekers)
    expected = [
        i
        for i in np.flatnonzero(seekers)
        if any(jaccard(sets[i], sets[j]) >= similarity for j in others)
    ]
    found = searched.find(seekers, ~seekers)
    assert [match.text for match in found] == expected
    assert all(match.partner is not None and not seekers[match.partner] for match in found)


def test_a_crowd_of_look_alikes_is_settled_without_comparing_all(tmp_path: Path) -> None:
    texts = sorted(
        f"your order {number:07} has left our warehouse and will arrive at your door tomorrow morning"
        * 2
        for number in range(4000)
    )
    held_out = np.arange(len(texts)) % 5 == 0
    searched, _ = search(tmp_path, texts, 0.8)
    assert len(searched.find(~held_out, held_out)) == (~held_out).sum()


def test_what_cannot_be_compared_leaves_rather_than_leaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.data.duplicates.near_duplicates._MAX_PAIRS", 1)
    monkeypatch.setattr("tasks.data.duplicates.near_duplicates._FIRST_LOOK", 1)
    draw = random.Random(0)
    # alike enough to be looked at, most not enough to be near-duplicates
    texts = [
        "same beginning for every one " + "".join(draw.choices("abc", k=8)) for _ in range(400)
    ]
    splits = run(tmp_path, table(texts), validation=0.3, test=0.3, near_duplicate_similarity=0.8)
    aside = read_jsonl(splits / "quarantine.jsonl")
    assert any(entry["like"] is None for entry in aside)
    assert any(
        "left uncompared" in warning for warning in read_json(splits / "split.json")["warnings"]
    )


def test_copies_share_a_split_and_similarity_one_turns_the_search_off(tmp_path: Path) -> None:
    texts = with_near_duplicates(200, 6)
    splits = run(tmp_path, table(texts), near_duplicate_similarity=1)
    assert read_jsonl(splits / "quarantine.jsonl") == []
    groups = {name: set(normalized(read(splits, name)["text"].to_pylist())) for name in SPLITS}
    assert (
        not groups["train"] & groups["test"]
        | groups["train"] & groups["validation"]
        | groups["validation"] & groups["test"]
    )


def test_given_splits_are_used_as_they_are_and_leaks_are_reported(tmp_path: Path) -> None:
    texts = tiny_rows(60)["text"]
    texts[40], texts[50] = texts[0].upper(), texts[1] + "x"
    given = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    splits = run(tmp_path, table(texts, split=given))
    assert [read(splits, name)["row"].to_pylist() for name in SPLITS] == [
        list(range(40)),
        list(range(40, 50)),
        list(range(50, 60)),
    ]
    assert read_jsonl(splits / "quarantine.jsonl") == []
    warnings = read_json(splits / "split.json")["warnings"]
    assert any("1 row repeat" in warning and "rows.csv line 2" in warning for warning in warnings)
    assert any("nearly repeat" in warning and "rows.csv line 3" in warning for warning in warnings)


def test_shares_come_close_and_classes_are_spread(tmp_path: Path) -> None:
    rows = tiny_rows(3000)
    described = read_json(
        run(tmp_path, table(rows["text"], rows["label"]), validation=0.1, test=0.2) / "split.json"
    )
    for name, asked in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        assert described["splits"][name]["asked"] == pytest.approx(asked)
        assert described["splits"][name]["share"] == pytest.approx(asked, abs=0.03)
    assert described["largest_class_deviation"] < 0.08


def test_a_class_missing_from_a_split_is_said(tmp_path: Path) -> None:
    rows = tiny_rows(100)
    rows["label"] = ["rare", *["negative", "positive"] * 49, "negative"]
    splits = run(
        tmp_path,
        table(rows["text"], rows["label"]),
        labels=("negative", "positive", "rare", "unseen"),
    )
    warnings = read_json(splits / "split.json")["warnings"]
    assert any("class 'rare' has no rows in" in warning for warning in warnings)
    assert "class 'unseen' has no rows in train and validation and test." in warnings


def test_ten_rows_are_too_few_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows for") as error:
        run(tmp_path, table([f"text {i}" for i in range(3)]))
    assert "more rows" in error.value.remedy
    assert not (tmp_path / "splits").exists()


def test_odd_texts_are_split_too(tmp_path: Path) -> None:
    texts = [
        *tiny_rows(60)["text"],
        "",
        " ",
        "a",
        "👍",
        "שלום עולם",
        "x" * 200_000,
        None,
        "\x00",
        "e\u0301",
    ]
    splits = run(tmp_path, table(texts))
    assert sum(len(read(splits, name)) for name in SPLITS) == len(texts)
