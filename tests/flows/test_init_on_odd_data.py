"""`ratchet init` on data that looks like something else at first sight."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_entities import tagged_rows
from workspaces import ratchet, ratchet_json, run, write_csv

from flows.workspaces.creation import InitResult, guess_problem, make_workspace
from flows.workspaces.guessing import Guess
from flows.workspaces.request import Request, base_model_of
from tasks.core.errors import DataError, ParamsError
from tasks.params.workspace import Workspace
from tasks.problems import load_problem

WORDS = ("river", "stone", "cloud", "film", "lovely", "dull", "never", "again")


def texts(count: int, start: int = 0) -> list[str]:
    return [
        f"{WORDS[i % 8]} {WORDS[i // 8 % 8]} number n{i} here" for i in range(start, start + count)
    ]


def labelled(count: int, labels: Sequence[str] = ("neg", "pos"), start: int = 0) -> Any:
    return {
        "text": texts(count, start),
        "label": [labels[i * len(labels) // count] for i in range(count)],
    }


def guessed(path: Path, **options: Any) -> Guess:
    return guess_problem(Request(path.parent / "w", None, [str(path)], {}, **options))


def made(root: Path, data: Path, base: Path, **options: Any) -> InitResult:
    request = Request(root, None, [str(data)], {}, None, str(base), **options)
    return make_workspace(request, guess_problem(request))


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def test_rows_sorted_by_label_are_classes_all_the_same(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", labelled(1200))
    assert guessed(tmp_path / "a.csv").problem == "text-classification"
    unlabelled = {"text": texts(550), "label": [""] * 550}
    both = {name: unlabelled[name] + labelled(600, start=550)[name] for name in unlabelled}
    write_csv(tmp_path / "b.csv", both)
    assert guessed(tmp_path / "b.csv").problem == "text-classification"


def test_a_file_of_each_class_makes_classes(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("dev", 200), ("test", 400)):
        for number, label in enumerate(("good", "bad")):
            rows = labelled(60, [label], start + 60 * number)
            write_csv(tmp_path / "d" / split / f"{label}.csv", rows)
    assert guessed(tmp_path / "d").problem == "text-classification"


@pytest.mark.parametrize(
    "columns",
    [
        {"label": ["spam", ""]},
        {"label": [""]},
        {"is_spam": ["x", ""]},
        {"billing": ["x", ""], "refund": ["", "x"]},
        {"chosen": ["one answer of some words", "two"], "rejected": ["another of them", "no"]},
    ],
    ids=["one label", "no label", "one mark", "marks", "preferences"],
)
def test_what_fits_nothing_is_never_taken_for_unlabelled_text(
    columns: dict[str, list[str]], tmp_path: Path
) -> None:
    rows = texts(60)
    data = {"text": rows} | {
        name: [
            f"{value} {i}" if len(value.split()) > 1 else value
            for i, value in enumerate((values * 60)[:60])
        ]
        for name, values in columns.items()
    }
    write_csv(tmp_path / "a.csv", data)
    with pytest.raises(ParamsError, match="fit no problem type"):
        guessed(tmp_path / "a.csv")


def test_a_link_stays_a_link(tmp_path: Path, base_dir: Path) -> None:
    """Its target is replaced by the next delivery; a cache of the Hub holds nothing but links."""
    write_csv(tmp_path / "blobs" / "0a1b2c", labelled(60))
    (tmp_path / "latest.csv").symlink_to(tmp_path / "blobs" / "0a1b2c")
    (tmp_path / "base").symlink_to(base_dir)
    made(tmp_path / "w", tmp_path / "latest.csv", tmp_path / "base")
    params = Workspace(tmp_path / "w").params()
    assert params.ingest.sources[0].url == "../latest.csv"
    assert params.base_model.path == "../base"
    request = Request(tmp_path / "w", None, [], {}, base_model=str(tmp_path / "base"))
    assert base_model_of(request, load_problem(params.problem))["path"] == "../base"


def test_files_and_columns_that_are_not_used_are_named(tmp_path: Path, base_dir: Path) -> None:
    data = tmp_path / "d"
    for number, split in enumerate(("train", "dev", "test")):
        write_csv(data / f"{split}.csv", labelled(60, start=100 * number))
    write_csv(data / "more.csv", labelled(60, start=300))
    (data / "._train.csv").write_bytes(b"\x00\x05\x16\x07")  # as macOS writes beside each file
    result = made(tmp_path / "w", data, base_dir)
    assert "data files that are not used: more.csv." in result.notes
    assert result.rows == 180
    names = ["train", "validation", "test"]
    extra = {"split": [names[i % 3] for i in range(60)], "author": [f"user{i}" for i in range(60)]}
    write_csv(tmp_path / "one.csv", labelled(60) | extra)
    notes = "\n".join(made(tmp_path / "v", tmp_path / "one.csv", base_dir).notes)
    assert "column 'split' names splits, but rows are split by a hash" in notes
    assert "columns that are not used: split, author." in notes


@pytest.mark.parametrize("end", ["inclusive", "utf-16"])
def test_spans_that_cut_words_are_refused(end: str, tmp_path: Path, base_dir: Path) -> None:
    rows = []
    for number in range(60):
        text = f"{'😀😀' if end == 'utf-16' else ''} Anna Berg met him {number} times"
        start = text.index("Anna")
        stop = start + len("Anna")
        span = [start, stop - 1] if end == "inclusive" else [start + 2, stop + 2]
        rows.append({"text": text, "label": [[*span, "PER"]]})
    data = write_lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        DataError, match="of the spans begin or end inside a word, as in '"
    ) as caught:
        made(tmp_path / "w", data, base_dir)
    assert "the end exclusive" in caught.value.remedy


def test_dates_are_no_classes_and_no_labels(tmp_path: Path) -> None:
    dates = [f"2024-05-{i // 3 + 1:02}" for i in range(60)]
    urls = [f"https://example.org/{i // 3}" for i in range(60)]
    write_csv(tmp_path / "a.csv", {"text": texts(60), "date": dates, "url": urls})
    assert guessed(tmp_path / "a.csv").problem == "masked-lm"
    write_csv(tmp_path / "b.csv", labelled(60) | {"date": dates})
    assert guessed(tmp_path / "b.csv").columns["label"] == "label"


def test_the_same_rows_twice_and_files_of_two_shapes_are_taken_as_each_alone(
    tmp_path: Path,
) -> None:
    for number, split in enumerate(("train", "dev", "test")):
        write_csv(tmp_path / "d" / f"{split}.csv", labelled(60, start=100 * number))
    (tmp_path / "d" / "train_latest.csv").symlink_to("train.csv")
    assert guessed(tmp_path / "d").problem == "text-classification"
    rows = labelled(120) | {"label": ["neg", "pos"] * 60}
    pairs = [*zip(rows["text"], rows["label"], strict=True)]
    for number, name in enumerate(("train-0", "train-1", "dev", "test")):
        some = pairs[30 * number : 30 * number + 30]
        write_lines(
            (tmp_path / "e").joinpath(f"{name}.jsonl"),
            (
                {"text": [{"type": "text", "text": text}] if number == 1 else text, "label": label}
                for text, label in some
            ),
        )
    assert guessed(tmp_path / "e").problem == "text-classification"


def test_an_address_leads_to_the_file_that_the_system_opens(
    tmp_path: Path, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, other = tmp_path / "real", tmp_path / "other"
    write_csv(real / "x.csv", labelled(60))
    write_csv(other / "x.csv", labelled(80))
    (other / "deep").mkdir()
    (real / "lnk").symlink_to(other / "deep")
    (tmp_path / "via").symlink_to(real)
    monkeypatch.chdir(real)
    assert made(real / "w1", Path("lnk/../x.csv"), base_dir).rows == 80
    write_csv(real / "w2" / "x.csv", labelled(60))
    made(tmp_path / "via" / "w2", tmp_path / "via" / "w2" / "x.csv", base_dir)
    assert Workspace(real / "w2").params().ingest.sources[0].url == "x.csv"


@pytest.mark.parametrize("odd", [["one part", "another part"], {"en": "a text"}, [], [["a"], "b"]])
def test_texts_of_another_shape_in_some_rows_are_set_aside_and_are_no_labels(
    odd: Any, tmp_path: Path, base_dir: Path
) -> None:
    rows = labelled(200)
    texts_or_odd = [odd if i % 4 == 0 else text for i, text in enumerate(rows["text"])]
    data = write_lines(
        tmp_path / "a.jsonl",
        [
            {"text": text, "label": label}
            for text, label in zip(texts_or_odd, rows["label"], strict=True)
        ],
    )
    guess = guessed(data)
    assert (guess.problem, guess.columns) == (
        "text-classification",
        {"text": "text", "label": "label"},
    )
    result = made(tmp_path / "w", data, base_dir)
    assert (result.labels, result.rows, result.quarantined) == (["neg", "pos"], 150, 50)


def test_a_word_a_row_is_grouped_by_the_command_that_is_told(tmp_path: Path) -> None:
    lines = ["Sentence #,Word,POS,Tag"]
    for number, row in enumerate(tagged_rows(60)["tokens"], 1):
        for place, word in enumerate(row):
            # as Kaggle's: the number stands in the first row alone
            sentence, tag = "" if place else f"Sentence: {number}", "B-PER" if place == 1 else "O"
            lines.append(f"{sentence},{word},NN,{tag}")
    (tmp_path / "my words.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = ratchet(tmp_path, "init", "one", "--yes", "--data", "my words.csv", code=2).stderr
    command = told.partition("Group them: ")[2].partition("\nThen")[0]
    run(tmp_path, "sh", "-c", command)
    made = ratchet_json(tmp_path, "init", "one", "--yes", "--data", "sentences.jsonl")
    assert (made["problem"], made["rows"], made["labels"]) == ("token-classification", 60, ["PER"])
