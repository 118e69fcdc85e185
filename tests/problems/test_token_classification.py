"""Named entities: seqeval's metrics, character spans, bad rows, and the whole pipeline."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_reports import evaluation
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from tiny_entities import TYPES, tagged_rows
from workspaces import FAST, ratchet, ratchet_json, run

from tasks.core.errors import DataError, ParamsError
from tasks.core.files import read_json, read_jsonl
from tasks.core.progress import silent
from tasks.data.quality.tag_checks import orphan
from tasks.encoding.encoder import encode_rows
from tasks.encoding.padding import pad_rows
from tasks.encoding.spans import find_spans, tag_names
from tasks.encoding.token_files import load_tokenizer
from tasks.encoding.windows import IGNORE_INDEX
from tasks.encoding.words import join_words
from tasks.inference.calibration import Calibration
from tasks.ingestion import read_sources
from tasks.params.ingestion import IngestParams
from tasks.params.schema import EvaluateParams, ValidateParams, save_overrides
from tasks.problems import load_problem
from tasks.scoring.gazetteer_baseline import gazetteer
from tasks.scoring.span_behaviour import mostly_found, still_found
from tasks.scoring.spans import NOTHING
from tasks.scoring.statistics.bootstrap import Resampling, metric_intervals
from tasks.validation import validate_rows

PROBLEM = load_problem("token-classification")
KINDS = ("LOC", "MISC", "PER")
NAMES = tag_names(KINDS)
SCORES = {"f1": f1_score, "precision": precision_score, "recall": recall_score}


def random_tags(draw: random.Random, rows: int, *, valid: bool) -> list[list[str]]:
    """Tags of many rows; where they need not be valid, an I- may follow anything."""
    found = []
    for _ in range(rows):
        tags: list[str] = []
        for _ in range(draw.randint(1, 12)):
            tag = draw.choice(NAMES)
            if valid and tag.startswith("I-") and (tags[-1][2:] if tags else "") != tag[2:]:
                tag = "O"
            tags.append(tag)
        found.append(tags)
    return found


def numbers(tags: list[list[str]]) -> Any:
    return pad_rows([[NAMES.index(tag) for tag in row] for row in tags], IGNORE_INDEX)


def outputs_of(tags: list[list[str]], names: list[str] = NAMES, height: float = 5.0) -> Any:
    """Outputs whose likeliest tags are these; NaN past a row's words."""
    found = np.full((len(tags), max(map(len, tags)), len(names)), np.nan, np.float32)
    for row, one in enumerate(tags):
        found[row, : len(one)] = np.eye(len(names))[[names.index(tag) for tag in one]] * height
    return found


def repaired(tags: list[str]) -> list[str]:
    """An I- that continues nothing begins a span."""
    found: list[str] = []
    for tag in tags:
        found.append(
            f"B-{tag[2:]}"
            if tag.startswith("I-") and (found[-1][2:] if found else "") != tag[2:]
            else tag
        )
    return found


def test_tags_and_types_are_told_from_each_other() -> None:
    assert NAMES == ["O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-PER", "I-PER"]
    assert PROBLEM.objective.labels_of(PROBLEM.decoding.output_labels(KINDS)) == list(KINDS)


def test_spans_are_those_of_conlleval() -> None:
    tags = [
        ["B-PER", "I-PER", "B-PER", "O", "I-LOC", "I-PER", "I-PER"],
        ["I-LOC", "B-LOC", "I-LOC", "I-MISC"],
        ["O"],
    ]
    assert find_spans(numbers(tags)).by_row(3) == [
        [(0, 2, 2), (2, 3, 2), (4, 5, 0), (5, 7, 2)],
        [(0, 1, 0), (1, 3, 0), (3, 4, 1)],
        [],
    ]


@pytest.mark.parametrize("seed", range(20))
def test_metrics_are_those_of_seqeval(seed: int) -> None:
    draw = random.Random(seed)
    wanted = random_tags(draw, 40, valid=True)
    # close to the truth, or hardly anything would match; and with violations, which seqeval reads
    # as conlleval does
    found = [[tag if draw.random() < 0.7 else draw.choice(NAMES) for tag in row] for row in wanted]
    mine = PROBLEM.scoring.metrics(outputs_of(found), numbers(wanted), KINDS)
    for name, score in SCORES.items():
        assert mine[name] == pytest.approx(score(wanted, found, zero_division=0))
        strict = score(
            wanted, list(map(repaired, found)), mode="strict", scheme=IOB2, zero_division=0
        )
        assert mine[name] == pytest.approx(strict)
    assert mine["macro_f1"] == pytest.approx(
        f1_score(wanted, found, average="macro", zero_division=0)
    )
    for kind, entry in zip(
        KINDS,
        PROBLEM.scoring.details(outputs_of(found), numbers(wanted), KINDS)["per_class"],
        strict=True,
    ):
        every = f1_score(wanted, found, average=None, zero_division=0)
        present = sorted({tag[2:] for row in [*wanted, *found] for tag in row if tag != "O"})
        assert entry["label"] == kind
        assert entry["f1"] == pytest.approx(every[present.index(kind)] if kind in present else 0.0)


def test_a_thousand_resamples_are_the_metrics_of_the_resampled_rows() -> None:
    draw = random.Random(1)
    wanted, found = (random_tags(draw, 60, valid=valid) for valid in (True, False))
    found = [(row + ["O"] * 12)[: len(other)] for row, other in zip(found, wanted, strict=True)]
    outputs, references = outputs_of(found), numbers(wanted)
    intervals = metric_intervals(
        PROBLEM.scoring, outputs, references, KINDS, Resampling(1000, seed=3)
    )
    assert set(intervals) == set(PROBLEM.scoring.metric_signs)
    for interval in intervals.values():
        assert interval["low"] <= interval["value"] <= interval["high"]
    shuffled = np.random.default_rng(0).permutation(60)
    assert (
        metric_intervals(
            PROBLEM.scoring,
            outputs[shuffled],
            references[shuffled],
            KINDS,
            Resampling(1000, seed=3),
        )
        == intervals
    )


def test_details_say_what_kind_of_error_each_is() -> None:
    wanted = [
        ["B-PER", "I-PER", "O", "B-LOC", "O", "B-MISC", "I-MISC"],
        ["B-PER", "I-PER", "I-PER", "O", "O"],
        ["B-LOC", "O", "B-LOC", "I-LOC"],
    ]
    found = [
        ["B-PER", "I-PER", "O", "B-PER", "O", "B-MISC", "O"],
        ["O", "O", "O", "O", "B-LOC"],
        ["B-LOC", "I-LOC", "O", "B-LOC"],
    ]
    details = PROBLEM.scoring.details(outputs_of(found), numbers(wanted), KINDS)
    names = [
        "label",
        "exact",
        "other type",
        "too short",
        "too long",
        "shifted",
        "missed",
        "made up",
    ]
    assert details["errors"] == [
        dict(zip(names, row, strict=True))
        for row in (
            ["LOC", 0, 1, 1, 1, 0, 0, 1],
            ["MISC", 0, 0, 1, 0, 0, 0, 0],
            ["PER", 1, 0, 0, 0, 0, 1, 0],
        )
    ]
    assert details["confusion"][0][2] == 1  # a LOC of the same words taken for a PER
    assert {"actual": "LOC", "predicted": "PER", "entities": 1} in details["confusions"]
    assert (
        sum(entry["entities"] for entry in details["confusions"] if entry["predicted"] == NOTHING)
        == 4
    )
    figures = PROBLEM.figures(evaluation(details=details))
    assert set(figures) == {"Entities by type", "Types of exact spans", "Reliability of words"}


def test_a_row_is_right_if_all_its_entities_are_and_no_other_is() -> None:
    wanted = [["B-PER", "I-PER"], ["O", "O"], ["O", "O"], ["B-LOC", "O"]]
    found = [["I-PER", "I-PER"], ["O", "O"], ["O", "B-PER"], ["B-LOC", "I-LOC"]]
    assert PROBLEM.scoring.correct(outputs_of(found), numbers(wanted)).tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_predictions_are_spans_of_the_text_as_it_was_given() -> None:
    text = "  \U0001f355 Anna  Berg\tsaw Paris!"
    tags = [["O", "B-PER", "I-PER", "O", "I-LOC", "O"]]
    (prediction,) = PROBLEM.decoding.decode(
        outputs_of(tags), {"text": [text]}, KINDS, Calibration()
    )
    assert [(one["type"], one["text"]) for one in prediction["entities"]] == [
        ("PER", "Anna  Berg"),
        ("LOC", "Paris"),
    ]
    assert all(text[one["start"] : one["end"]] == one["text"] for one in prediction["entities"])
    assert PROBLEM.decoding.predicted_labels(prediction) == ["LOC", "PER"]
    assert PROBLEM.decoding.describe(prediction).startswith("Anna  Berg [PER 0.9")
    words = ["Anna", "", "Berg"]
    (prediction,) = PROBLEM.decoding.decode(
        outputs_of([["B-PER", "O", "B-PER"]]), {"tokens": [words]}, KINDS, Calibration()
    )
    assert [join_words(words)[0][one["start"] : one["end"]] for one in prediction["entities"]] == [
        "Anna",
        "Berg",
    ]


def test_a_score_is_that_of_the_least_certain_word() -> None:
    outputs = outputs_of([["B-PER", "I-PER"]])
    outputs[0, 1] /= 5
    (prediction,) = PROBLEM.decoding.decode(
        outputs, {"tokens": [["Anna", "Berg"]]}, KINDS, Calibration(temperature=2.0)
    )
    assert prediction["entities"][0]["score"] == pytest.approx(
        float(torch.softmax(torch.from_numpy(outputs[0, 1]) / 2, 0).max())
    )


def test_a_text_without_words_has_no_entity(base_dir: Path) -> None:
    features = encode_rows(
        PROBLEM.encoding, load_tokenizer(base_dir, 16), {"text": ["", "the film"]}, KINDS
    )
    assert list(map(len, features["words"])) == [1, 2]
    outputs = outputs_of([["B-PER"], ["B-PER", "O"]])
    predictions = PROBLEM.decoding.decode(outputs, {"text": ["", "the film"]}, KINDS, Calibration())
    assert [len(one["entities"]) for one in predictions] == [0, 1]


def test_a_grown_label_set_changes_no_prediction() -> None:
    wanted = random_tags(random.Random(2), 10, valid=True)
    old = [kind for kind in KINDS if kind != "MISC"]
    known = [[tag if tag[2:] != "MISC" else "O" for tag in row] for row in wanted]
    outputs = outputs_of(known, tag_names(old))
    aligned = PROBLEM.scoring.align_labels(outputs, old, KINDS)
    assert aligned.shape == (*outputs.shape[:2], len(NAMES))
    np.testing.assert_array_equal(np.isnan(aligned[..., 0]), np.isnan(outputs[..., 0]))
    equal, difference = PROBLEM.scoring.agreement(aligned, outputs_of(known))
    assert (equal, difference <= 0.05) == (1.0, True)


def test_agreement_holds_rows_of_any_width_against_each_other() -> None:
    wide = outputs_of([["B-PER", "O"], ["O"]])
    narrow = wide[1:, :1]
    assert PROBLEM.scoring.agreement(wide[1:], narrow) == (1.0, 0.0)
    assert PROBLEM.scoring.agreement(outputs_of([["O"]]), outputs_of([["B-PER"]]))[0] == 0.0


def test_a_temperature_is_fitted_on_words() -> None:
    wanted = random_tags(random.Random(4), 60, valid=True)
    draw = random.Random(5)
    found = [[tag if draw.random() < 0.8 else draw.choice(NAMES) for tag in row] for row in wanted]
    outputs, references = outputs_of(found, height=20.0), numbers(wanted)
    calibration = PROBLEM.scoring.fit_calibration(outputs, references, KINDS, None)
    assert calibration.temperature > 2
    before, after = (
        PROBLEM.scoring.metrics(some, references, KINDS)
        for some in (outputs, calibration.apply(outputs))
    )
    assert after["log_loss"] < before["log_loss"]
    assert after["f1"] == before["f1"]


def test_weights_are_of_tags() -> None:
    references = numbers([["O"] * 6 + ["B-PER", "I-PER"], ["B-LOC", "O"]])
    weights = PROBLEM.objective.class_weights(references, KINDS, "balanced")
    assert weights is not None
    assert weights[NAMES.index("O")] < weights[NAMES.index("B-PER")]
    assert PROBLEM.objective.class_weights(references, KINDS, "none") is None
    given = {name: float(number) for number, name in enumerate(NAMES, 1)}
    weights = PROBLEM.objective.class_weights(references, KINDS, given)
    assert weights is not None
    assert weights.tolist() == list(given.values())
    with pytest.raises(ParamsError, match="the tags are"):
        PROBLEM.objective.class_weights(references, KINDS, {"PER": 2.0})


def test_the_list_of_entities_finds_the_longest_and_the_most_frequent() -> None:
    train = [["New", "York", "Times"], ["New", "York"], ["York"], ["York"], ["York"]]
    tags = [["B-MISC", "I-MISC", "I-MISC"], ["B-LOC", "I-LOC"], ["B-PER"], ["B-LOC"], ["B-LOC"]]
    test = [["the", "New", "York", "Times", "York"], ["New", "York"], ["new"]]
    found = gazetteer(train, numbers(tags), test, len(NAMES))
    assert find_spans(np.where(np.isnan(found[..., 0]), -1, found.argmax(-1))).by_row(3) == [
        [(1, 4, 1), (4, 5, 0)],
        [(0, 2, 0)],
        [],
    ]
    np.testing.assert_allclose(np.nansum(np.exp(found), -1)[0], 1, rtol=1e-5)


def test_behavioural_tests_change_what_they_say(base_dir: Path) -> None:
    rows = tagged_rows(60)
    params = EvaluateParams.model_validate(
        {"behaviour": {
            "rows": 20,
            "minimum_functionality": [
                {"name": "plain", "label": "PER", "texts": ["Anna Berg is here."]},
            ],
            "directional": [
                {"name": "more", "label": "LOC", "expect": "not_lower", "append": " near Paris"},
            ],
        }}
    )  # fmt: skip
    tests = {
        test.name: test for test in PROBLEM.scoring.behaviour_tests(rows, TYPES, params, seed=0)
    }
    assert list(tests) == [
        "another entity of the type",
        "lower case",
        "a typo outside of entities",
        "words found in the text",
        "more",
        "plain",
    ]
    for name in list(tests)[:3]:
        test = tests[name]
        assert test.against is not None
        for after, before in zip(test.rows["tokens"], test.against["tokens"], strict=True):
            assert len(after) == len(before)
            assert after != before
    tags = {" ".join(words): one for words, one in zip(rows["tokens"], rows["tags"], strict=True)}
    typo = tests["a typo outside of entities"]
    assert typo.against is not None
    for after, before in zip(typo.rows["tokens"], typo.against["tokens"], strict=True):
        (place,) = [place for place in range(len(after)) if after[place] != before[place]]
        assert tags[" ".join(before)][place] == "O"
    found = tests["words found in the text"]
    same = outputs_of([["O"] * len(words) for words in found.against["tokens"]], tag_names(TYPES))  # type: ignore[index]
    assert found.passes(same, same).all()
    other = same.copy()
    other[0, 0] = [0, 9, 0, 0, 0]
    assert found.passes(other, same).tolist() == [False, *[True] * 19]
    wrong = EvaluateParams.model_validate(
        {"behaviour": {"minimum_functionality": [{"name": "x", "label": "PRE", "texts": ["a"]}]}}
    )
    with pytest.raises(ParamsError, match="'PRE' is not a label"):
        PROBLEM.scoring.behaviour_tests(rows, TYPES, wrong, seed=0)


def test_a_replaced_entity_has_to_be_found_if_the_one_before_was() -> None:
    before = outputs_of([["B-PER", "O", "O"]] * 4 + [["O", "O", "O"]])
    after = outputs_of(
        [
            ["B-PER", "O", "O"],
            ["O", "O", "O"],
            ["B-LOC", "O", "O"],
            ["B-PER", "O", "B-LOC"],
            ["B-PER", "O", "O"],
        ]
    )
    person = (0, 1, KINDS.index("PER"))
    assert still_found(after, before, replaced=[person] * 5).tolist() == [
        True,
        False,
        False,
        False,
        True,
    ]


def test_words_stay_what_they_were_if_half_of_their_entities_do() -> None:
    before = outputs_of([["B-PER", "B-LOC", "O"]] * 3 + [["O", "O", "O"]] * 2)
    after = outputs_of(
        [
            ["O", "B-LOC", "O"],
            ["B-PER", "B-PER", "O"],
            ["B-PER", "B-LOC", "B-LOC"],
            ["O", "O", "O"],
            ["B-PER", "O", "O"],
        ]
    )
    assert mostly_found(after, before).tolist() == [True, False, True, True, False]


def test_columns_are_known_by_what_they_hold() -> None:
    rows = tagged_rows(5)
    foreign = {
        "domain": rows["domain"],
        "ner_tags": rows["tags"],
        "words": rows["tokens"],
        "text": rows["text"],
    }
    assert PROBLEM.rows.guess_columns(foreign) == {"tokens": "words", "tags": "ner_tags"}
    assert PROBLEM.rows.guess_columns({"text": rows["text"], "label": rows["domain"]}) is None


# --- data ---


def write_rows(
    path: Path, rows: dict[str, list[Any]], extra: list[dict[str, Any]] | None = None
) -> Path:
    entries = [
        {"tokens": a, "ner_tags": b, "section": c}
        for a, b, c in zip(rows["tokens"], rows["tags"], rows["domain"], strict=True)
    ]
    path.write_text(
        "".join(json.dumps(entry) + "\n" for entry in [*entries, *(extra or [])]), encoding="utf-8"
    )
    return path


BAD: dict[str, dict[str, Any]] = {
    "null_words": {"tokens": None, "ner_tags": ["O", "O"]},
    "null_tags": {"tokens": ["Ida", "here"], "ner_tags": None},
    "blank_word": {"tokens": ["Anna", " "], "ner_tags": ["B-PER", "O"]},
    "tag_number": {"tokens": ["Otto", "there", "too"], "ner_tags": ["B-PER", "O"]},
    "tag_form": {"tokens": ["Max", "again"], "ner_tags": ["X-PER", "O"]},
    "tag_order": {"tokens": ["see", "Max", "Thal"], "ner_tags": ["O", "I-PER", "I-PER"]},
}


def validated(
    tmp_path: Path, extra: list[dict[str, Any]], labels: tuple[str, ...] = TYPES, **values: Any
) -> Path:
    source = write_rows(tmp_path / "rows.jsonl", tagged_rows(60), extra)
    ingest = IngestParams.model_validate(
        {"sources": [{"url": str(source)}], "columns": {"tokens": "tokens", "tags": "ner_tags"}}
    )
    read_sources(
        tmp_path / "raw",
        problem=PROBLEM.name,
        ingest=ingest,
        root=tmp_path,
        cache=tmp_path,
        report=silent,
    )
    validate_rows(
        tmp_path / "raw", tmp_path / "valid", tmp_path / "validation.json", tmp_path / "docs",
        problem=PROBLEM.name, labels=labels, validate=ValidateParams.model_validate(values),
        report=silent,
    )  # fmt: skip
    return tmp_path / "valid"


def test_bad_rows_are_set_aside_each_with_its_reason(tmp_path: Path) -> None:
    # a signs' escape, and one row that is no list beside all those that are
    text = {"tokens": "Anna is here", "ner_tags": ["O", "O"]}
    valid = validated(
        tmp_path, [*BAD.values(), text, {"tokens": ["£\"'\\", "Anna"], "ner_tags": ["O", "B-PER"]}]
    )
    [unread] = read_jsonl(tmp_path / "raw" / "quarantine.jsonl")
    assert (unread["line"], unread["reason"]) == (
        67,
        "tokens: tags without a list of words: 2 tags, 3 words separated by blanks",
    )
    aside = {entry["line"]: entry for entry in read_jsonl(valid / "quarantine.jsonl")}
    assert sorted(aside) == list(range(61, 61 + len(BAD)))
    for line, (name, _) in enumerate(BAD.items(), 61):
        check = next(
            check
            for check in read_json(tmp_path / "validation.json")["checks"]
            if check["name"] == name
        )
        assert check["unexpected"] >= 1, name
        assert check["message"].split(": ")[-1] in aside[line]["reason"], name
    kept = pq.read_table(valid / "rows.parquet").to_pylist()
    assert len(kept) == 61
    assert kept[-1]["tokens"] == ["£\"'\\", "Anna"]
    assert kept[-1]["entities"] == ["PER"]
    assert kept[-1]["text"] == "£\"'\\ Anna"


def test_a_type_that_is_not_known_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown_label: 1 of 61 rows .*MSIC.*rows\.jsonl line 61"):
        validated(tmp_path, [{"tokens": ["Ida"], "ner_tags": ["B-MSIC"]}])


def test_a_type_without_rows_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing_class: .*ORG"):
        validated(tmp_path, [], labels=("LOC", "ORG", "PER"))


def test_a_rare_type_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows_per_class: 1 of 61 rows"):
        validated(
            tmp_path, [{"tokens": ["Ida"], "ner_tags": ["B-ORG"]}], labels=("LOC", "ORG", "PER")
        )


def test_rows_that_cannot_be_numbered_are_told(base_dir: Path) -> None:
    rows = {"tokens": [["a"], ["b", "c"]], "tags": [["B-PRE"], ["O"]]}
    with pytest.raises(
        DataError, match=r"row 1 has 'B-PRE'. Did you mean 'B-PER'\? row 2 has 2 words and 1 tags"
    ):
        encode_rows(PROBLEM.encoding, load_tokenizer(base_dir), rows, TYPES)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (["B-PER", "I-PER", "O"], None),
        (["O", "I-PER"], "I-PER at word 2"),
        (["B-LOC", "I-PER"], "I-PER at word 2"),
        (["I-LOC"], "I-LOC at word 1"),
    ],
)
def test_an_orphan_is_named_with_its_place(tags: list[str], found: str | None) -> None:
    assert orphan(tags) == found


def test_tags_are_read_from_json_in_a_csv_cell(tmp_path: Path) -> None:
    rows = tagged_rows(3)
    lines = [
        "tokens,tags",
        *(
            f'"{json.dumps(a)}","{json.dumps(b)}"'.replace('"[', "\0").replace(']"', "\1")
            for a, b in zip(rows["tokens"], rows["tags"], strict=True)
        ),
    ]
    quoted = [line.replace('"', '""').replace("\0", '"[').replace("\1", ']"') for line in lines]
    (tmp_path / "rows.csv").write_text("\n".join(quoted) + "\n", encoding="utf-8")
    ingest = IngestParams.model_validate({"sources": [{"url": str(tmp_path / "rows.csv")}]})
    read_sources(
        tmp_path / "raw",
        problem=PROBLEM.name,
        ingest=ingest,
        root=tmp_path,
        cache=tmp_path,
        report=silent,
    )
    table = pq.read_table(tmp_path / "raw" / "rows.parquet")
    assert table["tokens"].to_pylist() == rows["tokens"]
    assert table["tags"].to_pylist() == rows["tags"]
    assert pa.types.is_list(table.schema.field("entities").type)


# --- the whole way ---


@pytest.fixture(scope="module")
def trained_tagger(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace made and trained through the command line; some rows are several windows long."""
    root = tmp_path_factory.mktemp("ner")
    write_rows(root / "rows.jsonl", tagged_rows(400))
    arguments = (
        "--problem",
        "token-classification",
        "--data",
        "rows.jsonl",
        "--base-model",
        str(base_dir),
    )
    made = ratchet_json(root, "init", "names", *arguments)
    assert made["labels"] == ["LOC", "PER"]
    save_overrides(
        root / "names" / "params.yaml",
        (
            *FAST,
            "finetune.epochs=14",
            "tokenize.max_length=24",
            "ingest.keep=[section]",
            "evaluate.slices=[section]",
        ),
    )
    first = ratchet_json(root / "names", "train")
    assert first["state"] == "trained"
    assert first["metrics"]["f1"] > 0.8
    return root / "names"


def test_the_whole_way_from_rows_to_a_registered_tagger(trained_tagger: Path) -> None:
    params = (trained_tagger / "params.yaml").read_text(encoding="utf-8")
    assert 'tags: "ner_tags"' in params
    assert "early_stopping_metric: f1" in params
    evaluation = read_json(trained_tagger / "reports" / "evaluation.json")
    assert evaluation["baseline"]["name"] == PROBLEM.scoring.baseline_name
    assert {part["column"] for part in evaluation["slices"]} == {
        "section",
        "entities",
        "length (tokens)",
    }
    assert all(test["pass_rate"] > 0.5 for test in evaluation["behaviour"])
    page = (trained_tagger / "reports" / "report.html").read_text(encoding="utf-8")
    assert "Entities by type" in page


def test_predictions_print_and_are_written(trained_tagger: Path) -> None:
    text = "the film was near Paris with Anna Berg"
    (found,) = ratchet_json(trained_tagger, "predict", text)
    assert found["text"] == text
    assert [
        (one["type"], text[one["start"] : one["end"]]) for one in found["predicted_entities"]
    ] == [
        ("LOC", "Paris"),
        ("PER", "Anna Berg"),
    ]
    line = ratchet(trained_tagger, "predict", text).stdout
    assert "Paris [LOC" in line
    (trained_tagger / "new.jsonl").write_text(
        json.dumps({"text": "a quiet room", "id": 1})
        + "\n"
        + json.dumps({"text": text, "id": 2})
        + "\n"
    )
    for ending in ("csv", "jsonl", "parquet"):
        ratchet(trained_tagger, "predict", "--input", "new.jsonl", "--output", f"out.{ending}")
    rows = pq.read_table(trained_tagger / "out.parquet").to_pylist()
    assert [len(row["predicted_entities"]) for row in rows] == [0, 2]
    assert rows == read_jsonl(trained_tagger / "out.jsonl")
    with (trained_tagger / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [json.loads(row["predicted_entities"] or "[]") for row in csv.DictReader(file)] == [
            row["predicted_entities"] for row in rows
        ]


def test_a_long_text_is_read_to_its_end(trained_tagger: Path) -> None:
    text = "the film was very old and the room was near Paris with Anna Berg " * 8
    (found,) = ratchet_json(trained_tagger, "predict", text.strip())
    assert max(one["end"] for one in found["predicted_entities"]) > len(text) - 5
    assert len(found["predicted_entities"]) >= 12


def test_it_is_promoted_served_and_compared(trained_tagger: Path, tmp_path: Path) -> None:
    gates = (
        "promotion.max_ece=0.9",
        "promotion.min_pass_rates={invariance: 0.3, directional: 0.3, minimum_functionality: null}",
    )
    save_overrides(trained_tagger / "params.yaml", gates)
    promoted = ratchet_json(trained_tagger, "promote")
    assert promoted["decision"]["outcome"] == "promoted"
    compared = ratchet_json(trained_tagger, "compare", "1", "1")
    assert compared["metric"] == "f1"
    assert compared["agreement"] == 1.0
    script = (
        "import mlflow, pandas as pd; model = mlflow.pyfunc.load_model('models:/names@champion');"
        "print(model.metadata.get_output_schema());"
        "found = model.predict(pd.DataFrame({'text': ['the film was near Paris with Anna Berg']}));"
        "print([one['text'] for one in found['predicted_entities'][0]])"
    )
    done = run(
        tmp_path,
        "python",
        "-c",
        script,
        MLFLOW_TRACKING_URI=f"sqlite:///{trained_tagger}/.ratchet/mlflow.db",
    )
    assert done.stdout.splitlines()[-1] == "['Paris', 'Anna Berg']"
    assert "start" in done.stdout
