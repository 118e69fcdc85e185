"""`ratchet init` infers the kind of data, and each file's split from its name, or asks."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_rows
from tiny_entities import tagged_rows
from workspaces import write_csv

from flows.workspaces.creation import guess_problem, make_workspace
from flows.workspaces.guessing import guess, require_header, unfolded
from flows.workspaces.request import Request, data_sources
from flows.workspaces.split_names import split_of
from tasks.core.errors import DataError, ParamsError
from tasks.data.tables.column_guesses import texts
from tasks.params.ingestion import Source
from tasks.params.workspace import Workspace

ROWS = tiny_rows(60)
ODD = [i % 3 for i in range(60)]


@pytest.mark.parametrize(
    ("address", "split"),
    [
        ("train.csv", "train"), ("reviews-training.tsv", "train"),
        ("data/train-00000-of-00003.parquet", "train"),
        ("dev.csv", "validation"), ("val_set.jsonl", "validation"),
        ("x/valid.csv.gz", "validation"), ("validation.csv", "validation"),
        ("test.csv", "test"), ("my_eval.csv", "test"), ("test/part-0.parquet", "test"),
        ("hf://a/b@c/data/test-*.parquet", "test"),
        ("imdb.test.csv", "test"), ("data.v2.dev.csv", "validation"),
        ("reviewsTrain.csv", "train"), ("TEST.csv", "test"),
        ("trainset.csv", "train"), ("devset.tsv", "validation"), ("test/csv/data.csv", "test"),
        ("reviews.csv", None), ("train_test.csv", None), ("latest.csv", None),
        ("contest.csv", None), ("values.csv", None),
        ("test/train.csv", "train"),
    ],
)  # fmt: skip
def test_names_tell_splits(address: str, split: str | None) -> None:
    assert split_of(address) == split


def urls(
    data: list[str], root: Path, splits: dict[str, list[str]] | None = None
) -> list[tuple[str, str]]:
    return [(source["split"], source["url"]) for source in data_sources(data, root, splits)]


def test_splits_go_by_their_names_whatever_the_order(tmp_path: Path) -> None:
    named = [str(tmp_path / name) for name in ("dev.csv", "test.csv", "train.csv", "train-2.csv")]
    expected = [
        ("train", "train.csv"),
        ("train", "train-2.csv"),
        ("validation", "dev.csv"),
        ("test", "test.csv"),
    ]
    assert urls(named, tmp_path) == expected
    unnamed = [str(tmp_path / name) for name in "abc"]
    assert urls(unnamed, tmp_path) == [("train", "a"), ("validation", "b"), ("test", "c")]
    outright = {"test": [unnamed[0]], "train": [unnamed[1]], "validation": [unnamed[2]]}
    assert urls([], tmp_path, outright) == [("train", "b"), ("validation", "c"), ("test", "a")]


@pytest.mark.parametrize(
    "pattern",
    [
        "imdb.{}.csv",
        "data.v2.{}.csv",
        "test_train_split_{}.csv",
        "{}/csv/data.csv",
        "train/{}.csv",
        "{}set.jsonl.gz",
        "{}/train/x.csv",
    ],
)
@pytest.mark.parametrize("order", [*permutations(("train", "dev", "test"))])
def test_no_order_of_files_makes_one_another_split(
    pattern: str, order: tuple[str, ...], tmp_path: Path
) -> None:
    files = [str(tmp_path / pattern.format(name)) for name in order]
    try:
        found = urls(files, tmp_path)
    except ParamsError:
        assert (
            pattern == "{}/train/x.csv"
        )  # all are called train by the nearest folder: refused, not guessed
        return
    assert found == [
        (split, pattern.format(name))
        for split, name in zip(
            ("train", "validation", "test"), ("train", "dev", "test"), strict=True
        )
    ]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            ["dev.csv", "b.csv", "c.csv"],
            "is the train split by position, but the validation split by name",
        ),
        (["a.csv", "test.csv", "c.csv"], "is the validation split by position"),
        (["train.csv", "test.csv"], "no validation split"),
        (["train.csv", "train2.csv", "test.csv"], "no validation split"),
        (["a.csv", "b.csv"], "2 times"),
    ],
)
def test_names_that_contradict_or_do_not_suffice_are_refused(
    names: list[str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ParamsError, match=says) as error:
        data_sources(names, tmp_path)
    assert "--train FILE --validation FILE --test FILE" in error.value.remedy


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train.csv", "dev.csv", "test.csv"], ["train.csv", "dev.csv", "test.csv"]),
        (
            [
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/validation-0.parquet",
                "data/test-0.parquet",
            ],
            ["data/train-*-of-*.parquet", "data/validation-0.parquet", "data/test-0.parquet"],
        ),
        (
            [
                "train/0.parquet",
                "train/1.parquet",
                "validation/0.parquet",
                "test/0.parquet",
                "README.md",
            ],
            ["train/*.parquet", "validation/0.parquet", "test/0.parquet"],
        ),
        (["x.train.csv", "x.dev.csv", "x.test.csv"], ["x.train.csv", "x.dev.csv", "x.test.csv"]),
        (
            ["train/csv/a.csv", "dev/csv/a.csv", "test/csv/a.csv"],
            ["train/csv/a.csv", "dev/csv/a.csv", "test/csv/a.csv"],
        ),
    ],
)
def test_folders_of_splits_are_read_as_they_are_laid_out(
    files: list[str], expected: list[str], tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / "set" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / file).touch()
    found = urls([str(tmp_path / "set")], tmp_path)
    assert found == list(
        zip(("train", "validation", "test"), [f"set/{name}" for name in expected], strict=True)
    )


def test_folders_of_several_sets_are_told(tmp_path: Path) -> None:
    for file in (
        "en/train.csv",
        "en/dev.csv",
        "en/test.csv",
        "de/train.csv",
        "de/dev.csv",
        "de/test.csv",
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(DataError, match="several folders hold splits: de, en"):
        data_sources([str(tmp_path)], tmp_path)


COMBINED = ["a", "b", "a;b", "", "b;c"]


@pytest.mark.parametrize(
    ("columns", "problem", "found"),
    [
        ({"label": [bool(i) for i in ODD]}, "text-classification", {"label": "label"}),
        ({"stars": [float(i) for i in ODD]}, "text-classification", {"label": "stars"}),
        (
            {"stars": [*map(float, ODD[:-1]), float("nan")]},
            "text-classification",
            {"label": "stars"},
        ),
        (
            {"a": [i % 2 for i in ODD], "b": [i % 2 for i in range(60)]},
            "multi-label-classification",
            {"labels": ("a", "b")},
        ),
        (
            {"label": ODD, "seen": [i % 2 for i in range(60)]},
            "text-classification",
            {"label": "label"},
        ),
        (
            {"tags": [COMBINED[i % 5] for i in range(60)]},
            "multi-label-classification",
            {"labels": "tags"},
        ),
        (
            {"tags": [["Sports, outdoors", "Books"][i % 2] for i in range(60)]},
            "text-classification",
            {"label": "tags"},
        ),
        (
            {"tags": [repr(COMBINED[i % 5].split(";")) for i in range(60)]},
            "multi-label-classification",
            {"labels": "tags"},
        ),
        ({"uid": [f"{i:06x}" for i in range(60)]}, "masked-lm", {}),
        ({"label": [i / 2 for i in ODD]}, "text-classification", {"label": "label"}),
        ({"label": [str(i / 2) for i in ODD]}, "text-classification", {"label": "label"}),
    ],
)
def test_columns_are_taken_for_what_they_hold(
    columns: dict[str, list[Any]], problem: str, found: dict[str, Any]
) -> None:
    assert guess(
        unfolded({"id": list(map(str, range(60))), "text": ROWS["text"], **columns}), None, {}
    ).columns == {
        "text": "text",
        **found,
    }
    assert guess(unfolded({"text": ROWS["text"], **columns}), None, {}).problem == problem


def test_contents_in_parts_are_texts() -> None:
    parts = [[{"type": "text", "text": text}] for text in ROWS["text"]]
    assert guess(unfolded({"body": parts, "label": ODD}), None, {}).columns == {
        "text": "body",
        "label": "label",
    }


def test_masked_lm_is_no_guess_where_a_column_may_hold_labels() -> None:
    rows: dict[str, list[Any]] = {"text": ROWS["text"], "grade": [i / 2 for i in ODD]}
    with pytest.raises(ParamsError, match="fit no problem type") as error:
        guess(rows, None, {})
    assert "grade" in error.value.remedy
    assert guess(rows, "masked-lm", {}).columns == {"text": "text"}


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (("instruction", "input", "output"), ("instruction", "input", "output")),
        (("prompt", "completion"), ("prompt", "completion")),
        (("system", "prompt", "response"), ("system", "prompt", "response")),
    ],
)
def test_questions_and_answers_are_chat(columns: tuple[str, ...], found: tuple[str, ...]) -> None:
    rows = {
        name: ROWS["text"] if number == 0 else ROWS["label"] for number, name in enumerate(columns)
    }
    assert guess({"id": ODD, **rows}, None, {}).columns == {"messages": found}


def test_a_prompt_of_turns_goes_with_its_answer() -> None:
    asked = [[{"role": "user", "content": text}] for text in ROWS["text"]]
    answered = [[{"role": "assistant", "content": text}] for text in ROWS["label"]]
    assert guess({"prompt": asked, "completion": answered}, None, {}).columns == {
        "messages": ("prompt", "completion")
    }
    assert guess({"prompt": asked, "messages": answered}, None, {}).columns == {
        "messages": "messages"
    }
    assert guess({"id": ODD, "talk": asked}, None, {}).columns == {"messages": "talk"}


@pytest.mark.parametrize(
    "beside",
    [
        [f"2024-05-{i % 28 + 1:02} 10:{i:02}:00+00:00" for i in range(60)],
        [f"{i % 28 + 1}.5.2024" for i in range(60)],
        [f"Fri Jan {i % 28 + 1:02} 10:00:00 +0000 2016" for i in range(60)],
        [f"https://example.org/a/{i}?b=c" for i in range(60)],
        [f"Anna {i}" for i in range(60)],
    ],
    ids=["a time", "a date", "a date in words", "an address", "an author"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["created", "note"])
def test_what_stands_beside_a_text_does_not_make_a_pair_of_it(beside: list[str], name: str) -> None:
    rows: dict[str, list[Any]] = {
        "id": ODD,
        name: beside,
        "text": ROWS["text"],
        "sentiment": ROWS["label"],
    }
    found = guess(rows, None, {})
    assert (found.problem, found.columns) == (
        "text-classification",
        {"text": "text", "label": "sentiment"},
    )


def test_an_id_is_never_a_text() -> None:
    ids = {
        "id": list(map(str, range(60))),
        "doc_id": [f"doc-{i}" for i in range(60)],
        "key": [f"{i:03}" for i in range(60)],
    }
    assert texts({**ids, "note": ROWS["text"]}) == ["note"]


@pytest.mark.parametrize("scheme", ["iob1", "iob2"])
def test_the_scheme_of_tags_is_told_by_the_rows(scheme: str) -> None:
    rows = tagged_rows(60)
    tags = (
        [[tag.replace("B-", "I-") for tag in some] for some in rows["tags"]]
        if scheme == "iob1"
        else rows["tags"]
    )
    found = guess({"tokens": rows["tokens"], "tags": tags}, None, {})
    assert (found.problem, dict(found.reading)) == (
        "token-classification",
        {"tag_scheme": "iob1"} if scheme == "iob1" else {},
    )


def test_a_word_a_row_is_told() -> None:
    rows = {"Sentence #": ["Sentence: 1", ""], "Word": ["Anna", "left"], "Tag": ["B-PER", "O"]}
    with pytest.raises(ParamsError, match="each row is a single word, tagged in 'Tag'"):
        guess(rows, None, {})


@pytest.mark.parametrize(
    ("header", "is_row"),
    [
        (("text", "label"), False),
        (("text", "neutral"), False),  # a column named as a value, beside a known name
        (("review", "body"), False),
        ((ROWS["text"][0], "neutral"), True),
        (("1", "0"), True),
        (("good film", "neutral"), True),
    ],
)
def test_a_first_row_is_no_header(header: tuple[str, str], is_row: bool) -> None:
    rows = {header[0]: ROWS["text"], header[1]: ["0", *ROWS["label"]]}
    if is_row:
        with pytest.raises(DataError, match="the first line seems to be a row"):
            require_header(rows, Source(url="a.csv"))
    else:
        require_header(rows, Source(url="a.csv"))


def test_init_writes_what_it_found_and_notes_what_to_look_at(
    tmp_path: Path, base_dir: Path
) -> None:
    labels = [f"{label.title()} " if i % 3 else label for i, label in enumerate(ROWS["label"])]
    write_csv(tmp_path / "a.csv", {"text": ROWS["text"], "label": labels})
    for merge in (False, True):
        request = Request(
            tmp_path / str(merge),
            None,
            [str(tmp_path / "a.csv")],
            {},
            None,
            str(base_dir),
            merge_labels=merge,
        )
        made = make_workspace(request, guess_problem(request))
        assert (len(made.labels), len(made.notes)) == ((3, 1) if merge else (6, 3))
        params = Workspace(tmp_path / str(merge)).params()
        assert (list(params.labels), params.ingest.merge_labels) == (made.labels, merge)
    assert "'Negative ', 'negative'" in make_notes(tmp_path, base_dir)
    tags = {"text": ROWS["text"], "labels": [COMBINED[i % 5] for i in range(60)]}
    write_csv(tmp_path / "b.csv", tags)
    request = Request(
        tmp_path / "several", None, [str(tmp_path / "b.csv")], {}, None, str(base_dir)
    )
    assert make_workspace(request, guess_problem(request)).labels == ["a", "b", "c"]
    assert Workspace(tmp_path / "several").params().ingest.label_separator == ";"


def make_notes(root: Path, base: Path) -> str:
    request = Request(root / "again", None, [str(root / "a.csv")], {}, None, str(base))
    return "\n".join(make_workspace(request, guess_problem(request)).notes)


def test_numbers_of_tags_become_a_workspace_with_their_names(
    tmp_path: Path, base_dir: Path
) -> None:
    rows, names = tagged_rows(60), ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    numbers = [[names.index(tag) for tag in tags] for tags in rows["tags"]]
    lines = (
        json.dumps({"id": str(i), "tokens": tokens, "ner_tags": tags})
        for i, (tokens, tags) in enumerate(zip(rows["tokens"], numbers, strict=True))
    )
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    request = Request(
        tmp_path / "w",
        None,
        [str(tmp_path / "a.jsonl")],
        {},
        None,
        str(base_dir),
        tags=tuple(names),
    )
    made = make_workspace(request, guess_problem(request))
    assert (made.problem, made.labels) == ("token-classification", ["LOC", "PER"])
    with pytest.raises(ParamsError, match="holds tag numbers"):
        make_workspace(
            no_names := Request(
                tmp_path / "v", None, [str(tmp_path / "a.jsonl")], {}, None, str(base_dir)
            ),
            guess_problem(no_names),
        )
