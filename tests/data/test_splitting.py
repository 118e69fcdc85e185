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
    rows = {
        "row": pa.array(range(count), pa.int64()),
        "text": pa.array(texts, pa.string()),
        "label": labels,
        **columns,
        "_file": ["rows.csv"] * count,
        "_line": pa.array(range(2, count + 2), pa.int64()),
    }
    return pa.table(rows)


def run(
    root: Path,
    rows: pa.Table,
    labels: tuple[str, ...] = LABELS,
    row_group: int = 1_000_000,
    account: Account | None = None,
    **values: float,
) -> Path:
    """Split the rows; return the directory of the splits."""
    valid, splits = root / "valid", root / "splits"
    valid.mkdir(parents=True)
    pq.write_table(rows, valid / "rows.parquet", row_group_size=row_group)
    account = account or Account(len(rows), len(rows))
    account.write(valid)
    split = SplitParams.model_validate(values)
    problem = "text-classification"
    split_rows(valid, splits, problem=problem, labels=labels, split=split, report=silent)
    return splits


def read(splits: Path, name: str) -> pa.Table:
    return pq.read_table(splits / f"{name}.parquet")


def assignment(splits: Path) -> dict[str, str]:
    return {text: name for name in SPLITS for text in read(splits, name)["text"].to_pylist()}


def normalized(texts: list[str]) -> list[str]:
    column = pa.chunked_array([pa.array(texts, pa.string())])
    result: list[str] = normalize_rows([column]).to_pylist()
    return result


def with_near_duplicates(count: int, seed: int) -> list[str]:
    """Sentences, and copies of some with up to three characters or the punctuation changed."""
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
    for i, name in enumerate(SPLITS):
        for other in SPLITS[i + 1 :]:
            assert max(jaccard(a, b) for a in sets[name] for b in sets[other]) < SIMILARITY


def test_rows_in_are_rows_in_splits_and_quarantine(tmp_path: Path) -> None:
    rows = table(with_near_duplicates(300, 2))
    splits = run(tmp_path, rows)
    kept = [number for name in SPLITS for number in read(splits, name)["row"].to_pylist()]
    aside = read_jsonl(splits / "quarantine.jsonl")
    assert sorted(kept + [entry["row"] for entry in aside]) == rows["row"].to_pylist()
    summary = read_json(splits / "split.json")
    counts = [summary[key] for key in ("rows_in", "rows_out", "quarantined")]
    assert counts == [len(rows), len(kept), len(aside)]


def test_what_leaves_names_the_row_it_resembles(tmp_path: Path) -> None:
    rows = table(with_near_duplicates(300, 3))
    splits = run(tmp_path, rows, validation=0.25, test=0.25)
    texts = rows["text"].to_pylist()
    where = assignment(splits)
    for entry in read_jsonl(splits / "quarantine.jsonl"):
        like = entry["like"]
        text, like_text = texts[entry["row"]], texts[like["row"]]
        assert entry["values"]["text"] == text
        assert where[like_text] == like["split"]
        assert SPLITS.index(entry["split"]) < SPLITS.index(like["split"])
        similarity = jaccard(*map(shingles, normalized([text, like_text])))
        assert similarity == pytest.approx(entry["similarity"], abs=1e-4)
        assert similarity >= SIMILARITY


def test_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    texts = with_near_duplicates(200, 4)
    first = assignment(run(tmp_path / "a", table(texts), validation=0.2, test=0.2))
    random.Random(0).shuffle(texts)
    assert assignment(run(tmp_path / "b", table(texts), validation=0.2, test=0.2)) == first


@pytest.mark.parametrize("presplit", [False, True])
def test_rows_in_batches_are_split_as_all_at_once(
    presplit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = with_near_duplicates(200, 7)
    column = [SPLITS[i % 3] for i in range(len(texts))]
    rows = table(texts, **({"split": column} if presplit else {}))
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
    """A position is the first 52 bits of the normalized text's SHA-256.

    It must be the same for every version and machine, or rows would change splits.
    """
    cases = {
        "The room was clean.": "theroomwasclean",
        "THE ROOM, was clean!!": "theroomwasclean",
        "Ｆｕｌｌ ｗｉｄｔｈ": "fullwidth",
        "naïve Ünïcode": "naiveunicode",
        "ΟΔΟΣ οδός": "οδοσοδοσ",
        "👍👍": "👍👍",
        "!?": "!?",
        "中文 测试。": "中文测试",
        "हिन्दी": "हिन्दी",
        "2 + 2 = 4": "224",
    }
    expected = list(cases.values())
    assert normalized(list(cases)) == expected
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in expected]
    fractions = [int(digest[:13], 16) / 2**52 for digest in hashes]
    column = pa.chunked_array([pa.array(expected)])
    np.testing.assert_array_equal(positions(digests(column)), fractions)
    assert fractions[0] == pytest.approx(0.96608888, abs=1e-8)


def test_normalizing_agrees_with_pythons_unicode_tables() -> None:
    texts = ["Straße Ǆ ﬁ ½ Ⅷ Å", "İstanbul ışık", "ἈΡΧΉ", "한국어 ㈜", "カﾀｶナ"]
    texts += ["é e\u0301", "x²", "Ⓐ", "٣", "ñ Ñ"]

    def is_kept(character: str) -> bool:
        category = unicodedata.category(character)
        return category[0] in "LMN" or category == "So"

    def reference(text: str) -> str:
        folded = unicodedata.normalize("NFKD", text).upper().lower()
        folded = folded.replace("ς", "σ").replace("ss", "ß")
        return "".join(filter(is_kept, re.sub("[\u0300-\u036f]", "", folded)))

    assert normalized(texts) == [reference(text) for text in texts]


def test_the_quick_way_of_ascii_is_the_careful_one() -> None:
    draw = random.Random(0)
    ascii_, others = [chr(i) for i in range(128)], list("éßſςΣﬁ½Ⅷ中👍\u0301\u200b")

    def text() -> str | None:
        if draw.random() < 0.05:
            return None
        alphabet = ascii_ if draw.random() < 0.7 else ascii_ + others
        return "".join(draw.choices(alphabet, k=draw.randint(0, 12)))

    column = pa.array([text() for _ in range(20_000)], pa.large_string())
    for part in (column, column.slice(7, 100), column.slice(0, 0)):
        assert _normalize(part).equals(_normalize_unicode(part))


def test_null_texts_stay_null_and_columns_do_not_run_together() -> None:
    columns = [
        pa.chunked_array([pa.array(values, pa.string())])
        for values in (["ab", "a", None], ["c", "bc", "x"])
    ]
    first, second, third = normalize_rows(columns).to_pylist()
    assert first != second
    assert third is None


def search(root: Path, texts: list[str], similarity: float) -> tuple[NearDuplicates, list[str]]:
    """(near-duplicate search in the distinct texts, the texts in the order of their numbers)."""
    column = pa.chunked_array([pa.array(texts, pa.large_string())])
    distinct = DistinctTexts(root, [column.slice(0, 100), column.slice(100)])
    assert len(distinct) == len(texts)
    ordered = [texts[row] for row in distinct.first]
    return NearDuplicates(distinct, similarity, root / "shingles"), ordered


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
            start = draw.randrange(len(text))
            texts.add(text[:start] + draw.choice(alphabet) + text[start + draw.randint(0, 2) :])
        texts.add(text + text[: draw.randint(0, 30)])
    searched, ordered = search(tmp_path, sorted(texts), similarity)
    seekers = np.array([draw.random() < 0.6 for _ in ordered])
    sets = [shingles(text) for text in ordered]

    def has_partner(i: int) -> bool:
        return any(jaccard(sets[i], sets[j]) >= similarity for j in np.flatnonzero(~seekers))

    matches = searched.find(seekers, ~seekers)
    expected = [i for i in np.flatnonzero(seekers).tolist() if has_partner(i)]
    assert [match.text for match in matches] == expected
    assert all(match.partner is not None and not seekers[match.partner] for match in matches)


def test_a_crowd_of_look_alikes_is_settled_without_comparing_all(tmp_path: Path) -> None:
    sentence = "has left our warehouse and will arrive at your door tomorrow morning"
    texts = sorted(f"your order {number:07} {sentence}" * 2 for number in range(4000))
    held_out = np.arange(len(texts)) % 5 == 0
    searched, _ = search(tmp_path, texts, 0.8)
    assert len(searched.find(~held_out, held_out)) == (~held_out).sum()


def test_what_cannot_be_compared_leaves_rather_than_leaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.data.duplicates.near_duplicates._MAX_PAIRS", 1)
    monkeypatch.setattr("tasks.data.duplicates.near_duplicates._FIRST_LOOK", 1)
    draw = random.Random(0)
    # similar enough to be candidates; most are not similar enough to be near-duplicates
    endings = ["".join(draw.choices("abc", k=8)) for _ in range(400)]
    texts = ["same beginning for every one " + ending for ending in endings]
    splits = run(tmp_path, table(texts), validation=0.3, test=0.3, near_duplicate_similarity=0.8)
    aside = read_jsonl(splits / "quarantine.jsonl")
    assert any(entry["like"] is None for entry in aside)
    warnings = read_json(splits / "split.json")["warnings"]
    assert any("without being compared" in warning for warning in warnings)


def test_copies_share_a_split_and_similarity_one_turns_the_search_off(tmp_path: Path) -> None:
    texts = with_near_duplicates(200, 6)
    splits = run(tmp_path, table(texts), near_duplicate_similarity=1)
    assert read_jsonl(splits / "quarantine.jsonl") == []
    train, validation, test = (
        set(normalized(read(splits, name)["text"].to_pylist())) for name in SPLITS
    )
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_given_splits_are_used_as_they_are_and_leaks_are_reported(tmp_path: Path) -> None:
    texts = tiny_rows(60)["text"]
    texts[40], texts[50] = texts[0].upper(), texts[1] + "x"
    column = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    splits = run(tmp_path, table(texts, split=column))
    rows = [read(splits, name)["row"].to_pylist() for name in SPLITS]
    assert rows == [[*range(40)], [*range(40, 50)], [*range(50, 60)]]
    assert read_jsonl(splits / "quarantine.jsonl") == []
    warnings = read_json(splits / "split.json")["warnings"]
    assert any("1 row repeat" in warning and "rows.csv line 2" in warning for warning in warnings)
    assert any("nearly repeat" in warning and "rows.csv line 3" in warning for warning in warnings)


def test_shares_come_close_and_classes_are_spread(tmp_path: Path) -> None:
    rows = tiny_rows(3000)
    splits = run(tmp_path, table(rows["text"], rows["label"]), validation=0.1, test=0.2)
    summary = read_json(splits / "split.json")
    for name, asked in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        assert summary["splits"][name]["asked"] == pytest.approx(asked)
        assert summary["splits"][name]["share"] == pytest.approx(asked, abs=0.03)
    assert summary["largest_class_deviation"] < 0.08


def test_a_class_missing_from_a_split_is_said(tmp_path: Path) -> None:
    rows = tiny_rows(100)
    rows["label"] = ["rare", *["negative", "positive"] * 49, "negative"]
    labels = ("negative", "positive", "rare", "unseen")
    splits = run(tmp_path, table(rows["text"], rows["label"]), labels=labels)
    warnings = read_json(splits / "split.json")["warnings"]
    assert any("class 'rare' has no rows in" in warning for warning in warnings)
    never = "class 'unseen' has no rows in train and validation and test, so the model never"
    assert f"{never} predicts it." in warnings


def test_many_classes_missing_from_a_split_are_said_at_once(tmp_path: Path) -> None:
    rows = tiny_rows(100)
    labels = tuple(f"class {number:02}" for number in range(50))
    rows["label"] = [*labels, *labels]
    splits = run(tmp_path, table(rows["text"], rows["label"]), labels=labels)
    summary = read_json(splits / "split.json")
    for split in ("validation", "test"):
        # a label misses the same splits as others of its warning
        missing = [name for name, of in summary["classes"].items() if not of[split]["rows"]]
        told = [
            warning for warning in summary["warnings"] if split in warning and "no rows" in warning
        ]
        assert sum(int(warning.split()[0]) for warning in told) == len(missing)
        assert len(told) <= 4  # it alone, or with others


def test_ten_rows_are_too_few_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows for") as error:
        run(tmp_path, table([f"text {i}" for i in range(3)]))
    assert "more rows" in error.value.remedy
    assert not (tmp_path / "splits").exists()


def test_odd_texts_are_split_too(tmp_path: Path) -> None:
    odd = ["", " ", "a", "👍", "שלום עולם", "x" * 200_000, None, "\x00", "e\u0301"]
    texts = [*tiny_rows(60)["text"], *odd]
    splits = run(tmp_path, table(texts))
    assert sum(len(read(splits, name)) for name in SPLITS) == len(texts)
