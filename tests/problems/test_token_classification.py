"""Named entities: metrics equal to seqeval's, spans, data checks, and the whole pipeline."""

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
from tasks.params.schema import EvaluateParams, IngestParams, ValidateParams, save_overrides
from tasks.problems import load_problem
from tasks.scoring.gazetteer_baseline import gazetteer
from tasks.scoring.span_behaviour import mostly_found, still_found
from tasks.scoring.spans import NOTHING
from tasks.scoring.statistics.bootstrap import Resampling, metric_intervals
from tasks.validation import validate_rows

PROBLEM = load_problem("token-classification")
ENTITY_TYPES = ("LOC", "MISC", "PER")
NAMES = tag_names(ENTITY_TYPES)
SCORES = {"f1": f1_score, "precision": precision_score, "recall": recall_score}


def random_tags(draw: random.Random, rows: int, *, valid: bool) -> list[list[str]]:
    """Tags of many rows; if not `valid`, an I- may follow any tag."""
    drawn = []
    for _ in range(rows):
        tags: list[str] = []
        for _ in range(draw.randint(1, 12)):
            tag = draw.choice(NAMES)
            if valid and tag.startswith("I-") and (tags[-1][2:] if tags else "") != tag[2:]:
                tag = "O"
            tags.append(tag)
        drawn.append(tags)
    return drawn


def numbers(tags: list[list[str]]) -> Any:
    return pad_rows([[NAMES.index(tag) for tag in row] for row in tags], IGNORE_INDEX)


def outputs_of(tags: list[list[str]], names: list[str] = NAMES, height: float = 5.0) -> Any:
    """Outputs whose likeliest tags are these; NaN past a row's words."""
    outputs = np.full((len(tags), max(map(len, tags)), len(names)), np.nan, np.float32)
    for row, row_tags in enumerate(tags):
        numbers = [names.index(tag) for tag in row_tags]
        outputs[row, : len(row_tags)] = np.eye(len(names))[numbers] * height
    return outputs


def repaired(tags: list[str]) -> list[str]:
    """Turn an I- that continues no span into a B-."""
    valid: list[str] = []
    for tag in tags:
        before = valid[-1] if valid else ""
        orphaned = tag.startswith("I-") and before[2:] != tag[2:]
        valid.append(f"B-{tag[2:]}" if orphaned else tag)
    return valid


def decode(outputs: Any, rows: dict[str, list[Any]], temperature: float = 1.0) -> Any:
    """Predictions for the entity types."""
    calibration = Calibration(temperature=temperature)
    return PROBLEM.decoding.decode(outputs, rows, ENTITY_TYPES, calibration)


def test_tags_and_types_are_told_from_each_other() -> None:
    assert NAMES == ["O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-PER", "I-PER"]
    assert PROBLEM.objective.labels_of(PROBLEM.decoding.output_labels(ENTITY_TYPES)) == list(
        ENTITY_TYPES
    )


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
    expected = random_tags(draw, 40, valid=True)
    # mostly right, or hardly any span would match; invalid tags are read as seqeval reads them
    predicted = [
        [tag if draw.random() < 0.7 else draw.choice(NAMES) for tag in row] for row in expected
    ]
    valid = list(map(repaired, predicted))
    outputs, references = outputs_of(predicted), numbers(expected)
    metrics = PROBLEM.scoring.metrics(outputs, references, ENTITY_TYPES)
    for name, score in SCORES.items():
        assert metrics[name] == pytest.approx(score(expected, predicted, zero_division=0))
        strict = score(expected, valid, mode="strict", scheme=IOB2, zero_division=0)
        assert metrics[name] == pytest.approx(strict)
    macro_f1 = f1_score(expected, predicted, average="macro", zero_division=0)
    assert metrics["macro_f1"] == pytest.approx(macro_f1)
    present = sorted({tag[2:] for row in [*expected, *predicted] for tag in row if tag != "O"})
    by_type = f1_score(expected, predicted, average=None, zero_division=0)
    f1s = dict(zip(present, by_type, strict=True))
    per_class = PROBLEM.scoring.details(outputs, references, ENTITY_TYPES)["per_class"]
    assert [entry["label"] for entry in per_class] == list(ENTITY_TYPES)
    for entry in per_class:
        assert entry["f1"] == pytest.approx(f1s.get(entry["label"], 0.0))


def test_a_thousand_resamples_are_the_metrics_of_the_resampled_rows() -> None:
    draw = random.Random(1)
    expected, predicted = (random_tags(draw, 60, valid=valid) for valid in (True, False))
    predicted = [
        (row + ["O"] * 12)[: len(other)] for row, other in zip(predicted, expected, strict=True)
    ]
    outputs, references = outputs_of(predicted), numbers(expected)

    def intervals_of(outputs: Any, references: Any) -> Any:
        resampling = Resampling(1000, seed=3)
        return metric_intervals(PROBLEM.scoring, outputs, references, ENTITY_TYPES, resampling)

    intervals = intervals_of(outputs, references)
    assert set(intervals) == set(PROBLEM.scoring.metric_signs)
    for interval in intervals.values():
        assert interval["low"] <= interval["value"] <= interval["high"]
    order = np.random.default_rng(0).permutation(60)
    assert intervals_of(outputs[order], references[order]) == intervals


def test_details_say_what_kind_of_error_each_is() -> None:
    expected = [
        ["B-PER", "I-PER", "O", "B-LOC", "O", "B-MISC", "I-MISC"],
        ["B-PER", "I-PER", "I-PER", "O", "O"],
        ["B-LOC", "O", "B-LOC", "I-LOC"],
    ]
    predicted = [
        ["B-PER", "I-PER", "O", "B-PER", "O", "B-MISC", "O"],
        ["O", "O", "O", "O", "B-LOC"],
        ["B-LOC", "I-LOC", "O", "B-LOC"],
    ]
    details = PROBLEM.scoring.details(outputs_of(predicted), numbers(expected), ENTITY_TYPES)
    names = ["label", "exact", "other type", "too short", "too long", "shifted", "missed"]
    names += ["made up"]
    errors = (
        ["LOC", 0, 1, 1, 1, 0, 0, 1],
        ["MISC", 0, 0, 1, 0, 0, 0, 0],
        ["PER", 1, 0, 0, 0, 0, 1, 0],
    )
    assert details["errors"] == [dict(zip(names, row, strict=True)) for row in errors]
    assert details["confusion"][0][2] == 1  # a LOC whose words are predicted as a PER
    confusions = details["confusions"]
    assert {"actual": "LOC", "predicted": "PER", "entities": 1} in confusions
    assert sum(entry["entities"] for entry in confusions if entry["predicted"] == NOTHING) == 4
    figures = PROBLEM.figures({"details": details})
    assert set(figures) == {"Entities by type", "Types of exact spans", "Reliability of words"}


def test_a_row_is_right_if_all_its_entities_are_and_no_other_is() -> None:
    expected = [["B-PER", "I-PER"], ["O", "O"], ["O", "O"], ["B-LOC", "O"]]
    predicted = [["I-PER", "I-PER"], ["O", "O"], ["O", "B-PER"], ["B-LOC", "I-LOC"]]
    right = PROBLEM.scoring.correct(outputs_of(predicted), numbers(expected))
    assert right.tolist() == [True, True, False, False]


def test_predictions_are_spans_of_the_text_as_it_was_given() -> None:
    text = "  \U0001f355 Anna  Berg\tsaw Paris!"
    tags = [["O", "B-PER", "I-PER", "O", "I-LOC", "O"]]
    (prediction,) = decode(outputs_of(tags), {"text": [text]})
    entities = prediction["entities"]
    assert [(entity["type"], entity["text"]) for entity in entities] == [
        ("PER", "Anna  Berg"),
        ("LOC", "Paris"),
    ]
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in entities)
    assert PROBLEM.decoding.predicted_labels(prediction) == ["LOC", "PER"]
    assert PROBLEM.decoding.describe(prediction).startswith("Anna  Berg [PER 0.9")
    words = ["Anna", "", "Berg"]
    (prediction,) = decode(outputs_of([["B-PER", "O", "B-PER"]]), {"tokens": [words]})
    joined, _ = join_words(words)
    spans = [joined[entity["start"] : entity["end"]] for entity in prediction["entities"]]
    assert spans == ["Anna", "Berg"]


def test_a_score_is_that_of_the_least_certain_word() -> None:
    outputs = outputs_of([["B-PER", "I-PER"]])
    outputs[0, 1] /= 5
    (prediction,) = decode(outputs, {"tokens": [["Anna", "Berg"]]}, temperature=2.0)
    probabilities = torch.softmax(torch.from_numpy(outputs[0, 1]) / 2, 0)
    assert prediction["entities"][0]["score"] == pytest.approx(float(probabilities.max()))


def test_a_text_without_words_has_no_entity(base_dir: Path) -> None:
    rows: dict[str, list[Any]] = {"text": ["", "the film"]}
    features = encode_rows(PROBLEM.encoding, load_tokenizer(base_dir, 16), rows, ENTITY_TYPES)
    assert list(map(len, features["words"])) == [1, 2]
    predictions = decode(outputs_of([["B-PER"], ["B-PER", "O"]]), rows)
    assert [len(prediction["entities"]) for prediction in predictions] == [0, 1]


def test_a_grown_label_set_changes_no_prediction() -> None:
    expected = random_tags(random.Random(2), 10, valid=True)
    old = [entity_type for entity_type in ENTITY_TYPES if entity_type != "MISC"]
    known = [[tag if tag[2:] != "MISC" else "O" for tag in row] for row in expected]
    outputs = outputs_of(known, tag_names(old))
    aligned = PROBLEM.scoring.align_labels(outputs, old, ENTITY_TYPES)
    assert aligned.shape == (*outputs.shape[:2], len(NAMES))
    np.testing.assert_array_equal(np.isnan(aligned[..., 0]), np.isnan(outputs[..., 0]))
    agreement, difference = PROBLEM.scoring.agreement(aligned, outputs_of(known))
    assert agreement == 1.0
    assert difference == pytest.approx(0, abs=0.05)


def test_agreement_holds_rows_of_any_width_against_each_other() -> None:
    wide = outputs_of([["B-PER", "O"], ["O"]])
    narrow = wide[1:, :1]
    assert PROBLEM.scoring.agreement(wide[1:], narrow) == (1.0, 0.0)
    assert PROBLEM.scoring.agreement(outputs_of([["O"]]), outputs_of([["B-PER"]]))[0] == 0.0


def test_a_temperature_is_fitted_on_words() -> None:
    expected = random_tags(random.Random(4), 60, valid=True)
    draw = random.Random(5)
    predicted = [
        [tag if draw.random() < 0.8 else draw.choice(NAMES) for tag in row] for row in expected
    ]
    outputs, references = outputs_of(predicted, height=20.0), numbers(expected)
    calibration = PROBLEM.scoring.fit_calibration(outputs, references, ENTITY_TYPES, None)
    assert calibration.temperature > 2
    before = PROBLEM.scoring.metrics(outputs, references, ENTITY_TYPES)
    after = PROBLEM.scoring.metrics(calibration.apply(outputs), references, ENTITY_TYPES)
    assert after["log_loss"] < before["log_loss"]
    assert after["f1"] == before["f1"]


def test_weights_are_of_tags() -> None:
    references = numbers([["O"] * 6 + ["B-PER", "I-PER"], ["B-LOC", "O"]])
    weights = PROBLEM.objective.class_weights(references, ENTITY_TYPES, "balanced")
    assert weights is not None
    assert weights[NAMES.index("O")] < weights[NAMES.index("B-PER")]
    assert PROBLEM.objective.class_weights(references, ENTITY_TYPES, "none") is None
    by_tag = {name: float(number) for number, name in enumerate(NAMES, 1)}
    weights = PROBLEM.objective.class_weights(references, ENTITY_TYPES, by_tag)
    assert weights is not None
    assert weights.tolist() == list(by_tag.values())
    with pytest.raises(ParamsError, match="the tags are"):
        PROBLEM.objective.class_weights(references, ENTITY_TYPES, {"PER": 2.0})


def test_the_list_of_entities_finds_the_longest_and_the_most_frequent() -> None:
    train = [["New", "York", "Times"], ["New", "York"], ["York"], ["York"], ["York"]]
    tags = [["B-MISC", "I-MISC", "I-MISC"], ["B-LOC", "I-LOC"], ["B-PER"], ["B-LOC"], ["B-LOC"]]
    test = [["the", "New", "York", "Times", "York"], ["New", "York"], ["new"]]
    outputs = gazetteer(train, numbers(tags), test, len(NAMES))
    spans = find_spans(np.where(np.isnan(outputs[..., 0]), -1, outputs.argmax(-1)))
    assert spans.by_row(3) == [[(1, 4, 1), (4, 5, 0)], [(0, 2, 0)], []]
    np.testing.assert_allclose(np.nansum(np.exp(outputs), -1)[0], 1, rtol=1e-5)


def test_behavioural_tests_change_what_they_say(base_dir: Path) -> None:
    rows = tagged_rows(60)
    plain = {"name": "plain", "label": "PER", "texts": ["Anna Berg is here."]}
    more = {"name": "more", "label": "LOC", "expect": "not_lower", "append": " near Paris"}
    behaviour = {"rows": 20, "minimum_functionality": [plain], "directional": [more]}
    params = EvaluateParams.model_validate({"behaviour": behaviour})
    made = PROBLEM.scoring.behaviour_tests(rows, TYPES, params, seed=0)
    tests = {test.name: test for test in made}
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
    texts = [" ".join(words) for words in rows["tokens"]]
    tags = dict(zip(texts, rows["tags"], strict=True))
    typo = tests["a typo outside of entities"]
    assert typo.against is not None
    for after, before in zip(typo.rows["tokens"], typo.against["tokens"], strict=True):
        (changed,) = [i for i in range(len(after)) if after[i] != before[i]]
        assert tags[" ".join(before)][changed] == "O"
    words_only = tests["words found in the text"]
    assert words_only.against is not None
    no_entity = [["O"] * len(words) for words in words_only.against["tokens"]]
    same = outputs_of(no_entity, tag_names(TYPES))
    assert words_only.passes(same, same).all()
    other = same.copy()
    other[0, 0] = [0, 9, 0, 0, 0]
    assert words_only.passes(other, same).tolist() == [False, *[True] * 19]
    unknown = {"minimum_functionality": [{"name": "x", "label": "PRE", "texts": ["a"]}]}
    wrong = EvaluateParams.model_validate({"behaviour": unknown})
    with pytest.raises(ParamsError, match="'PRE' is not a label"):
        PROBLEM.scoring.behaviour_tests(rows, TYPES, wrong, seed=0)


def test_a_replaced_entity_has_to_be_found_if_the_one_before_was() -> None:
    before = outputs_of([["B-PER", "O", "O"]] * 4 + [["O", "O", "O"]])
    tags = [
        ["B-PER", "O", "O"],
        ["O", "O", "O"],
        ["B-LOC", "O", "O"],
        ["B-PER", "O", "B-LOC"],
        ["B-PER", "O", "O"],
    ]
    person = (0, 1, ENTITY_TYPES.index("PER"))
    passed = still_found(outputs_of(tags), before, replaced=[person] * 5)
    assert passed.tolist() == [True, False, False, False, True]


def test_words_stay_what_they_were_if_half_of_their_entities_do() -> None:
    before = outputs_of([["B-PER", "B-LOC", "O"]] * 3 + [["O", "O", "O"]] * 2)
    tags = [
        ["O", "B-LOC", "O"],
        ["B-PER", "B-PER", "O"],
        ["B-PER", "B-LOC", "B-LOC"],
        ["O", "O", "O"],
        ["B-PER", "O", "O"],
    ]
    passed = mostly_found(outputs_of(tags), before)
    assert passed.tolist() == [True, False, True, True, False]


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
        {"tokens": tokens, "ner_tags": tags, "section": section}
        for tokens, tags, section in zip(rows["tokens"], rows["tags"], rows["domain"], strict=True)
    ]
    entries += extra or []
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def ingest(root: Path, source: Path, **values: Any) -> Path:
    raw, name = root / "raw", PROBLEM.name
    params = IngestParams.model_validate({"sources": [{"url": str(source)}], **values})
    read_sources(raw, problem=name, ingest=params, root=root, cache=root, report=silent)
    return raw


BAD = {
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
    """Ingest and validate 60 good rows and some more; return the directory of the valid rows."""
    source = write_rows(tmp_path / "rows.jsonl", tagged_rows(60), extra)
    raw = ingest(tmp_path, source, columns={"tokens": "tokens", "tags": "ner_tags"})
    validate_rows(
        raw,
        tmp_path / "valid",
        tmp_path / "validation.json",
        tmp_path / "docs",
        problem=PROBLEM.name,
        labels=labels,
        validate=ValidateParams.model_validate(values),
        report=silent,
    )
    return tmp_path / "valid"


def test_bad_rows_are_set_aside_each_with_its_reason(tmp_path: Path) -> None:
    text = {"tokens": "Anna is here", "ner_tags": ["O", "O"]}
    escapes = {"tokens": ["£\"'\\", "Anna"], "ner_tags": ["O", "B-PER"]}
    valid = validated(tmp_path, [*BAD.values(), text, escapes])
    [unread] = read_jsonl(tmp_path / "raw" / "quarantine.jsonl")
    reason = "tokens: tags without a list of words: 2 tags, 3 words separated by blanks"
    assert (unread["line"], unread["reason"]) == (67, reason)
    aside = {entry["line"]: entry for entry in read_jsonl(valid / "quarantine.jsonl")}
    assert sorted(aside) == list(range(61, 61 + len(BAD)))
    checks = {check["name"]: check for check in read_json(tmp_path / "validation.json")["checks"]}
    for line, name in enumerate(BAD, 61):
        assert checks[name]["unexpected"] >= 1, name
        assert checks[name]["message"].split(": ")[-1] in aside[line]["reason"], name
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
    rare = [{"tokens": ["Ida"], "ner_tags": ["B-ORG"]}]
    with pytest.raises(DataError, match="rows_per_class: 1 of 61 rows"):
        validated(tmp_path, rare, labels=("LOC", "ORG", "PER"))


def test_rows_that_cannot_be_numbered_are_told(base_dir: Path) -> None:
    rows = {"tokens": [["a"], ["b", "c"]], "tags": [["B-PRE"], ["O"]]}
    message = r"row 1 has 'B-PRE'. Did you mean 'B-PER'\? row 2 has 2 words and 1 tags"
    with pytest.raises(DataError, match=message):
        encode_rows(PROBLEM.encoding, load_tokenizer(base_dir), rows, TYPES)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["B-PER", "I-PER", "O"], None),
        (["O", "I-PER"], "I-PER at word 2"),
        (["B-LOC", "I-PER"], "I-PER at word 2"),
        (["I-LOC"], "I-LOC at word 1"),
    ],
)
def test_an_orphan_is_named_with_its_place(tags: list[str], expected: str | None) -> None:
    assert orphan(tags) == expected


def test_tags_are_read_from_json_in_a_csv_cell(tmp_path: Path) -> None:
    rows = tagged_rows(3)
    source = tmp_path / "rows.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tokens", "tags"])
        for tokens, tags in zip(rows["tokens"], rows["tags"], strict=True):
            writer.writerow([json.dumps(tokens), json.dumps(tags)])
    table = pq.read_table(ingest(tmp_path, source) / "rows.parquet")
    assert table["tokens"].to_pylist() == rows["tokens"]
    assert table["tags"].to_pylist() == rows["tags"]
    assert pa.types.is_list(table.schema.field("entities").type)


# --- the whole way ---


@pytest.fixture(scope="module")
def trained_tagger(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace made and trained through the command line; some rows are several windows long."""
    root = tmp_path_factory.mktemp("ner")
    write_rows(root / "rows.jsonl", tagged_rows(400))
    command = ["init", "names", "--problem", "token-classification", "--data", "rows.jsonl"]
    made = ratchet_json(root, *command, "--base-model", str(base_dir))
    assert made["labels"] == ["LOC", "PER"]
    overrides = ["finetune.epochs=14", "tokenize.max_length=24"]
    overrides += ["ingest.keep=[section]", "evaluate.slices=[section]"]
    save_overrides(root / "names" / "params.yaml", (*FAST, *overrides))
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
    columns = {part["column"] for part in evaluation["slices"]}
    assert columns == {"section", "entities", "length (tokens)"}
    assert all(test["pass_rate"] > 0.5 for test in evaluation["behaviour"])
    page = (trained_tagger / "reports" / "report.html").read_text(encoding="utf-8")
    assert "Entities by type" in page


def test_predictions_print_and_are_written(trained_tagger: Path) -> None:
    text = "the film was near Paris with Anna Berg"
    (row,) = ratchet_json(trained_tagger, "predict", text)
    assert row["text"] == text
    entities = [
        (entity["type"], text[entity["start"] : entity["end"]])
        for entity in row["predicted_entities"]
    ]
    assert entities == [("LOC", "Paris"), ("PER", "Anna Berg")]
    line = ratchet(trained_tagger, "predict", text).stdout
    assert "Paris [LOC" in line
    records = [{"text": "a quiet room", "id": 1}, {"text": text, "id": 2}]
    lines = [json.dumps(record) + "\n" for record in records]
    (trained_tagger / "new.jsonl").write_text("".join(lines))
    for ending in ("csv", "jsonl", "parquet"):
        ratchet(trained_tagger, "predict", "--input", "new.jsonl", "--output", f"out.{ending}")
    rows = pq.read_table(trained_tagger / "out.parquet").to_pylist()
    assert [len(row["predicted_entities"]) for row in rows] == [0, 2]
    assert rows == read_jsonl(trained_tagger / "out.jsonl")
    with (trained_tagger / "out.csv").open(encoding="utf-8", newline="") as file:
        cells = [row["predicted_entities"] for row in csv.DictReader(file)]
    assert [json.loads(cell or "[]") for cell in cells] == [
        row["predicted_entities"] for row in rows
    ]


def test_a_long_text_is_read_to_its_end(trained_tagger: Path) -> None:
    text = "the film was very old and the room was near Paris with Anna Berg " * 8
    (row,) = ratchet_json(trained_tagger, "predict", text.strip())
    entities = row["predicted_entities"]
    assert max(entity["end"] for entity in entities) > len(text) - 5
    assert len(entities) >= 12


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
    script = """
import mlflow
import pandas as pd

model = mlflow.pyfunc.load_model("models:/names@champion")
print(model.metadata.get_output_schema())
rows = model.predict(pd.DataFrame({"text": ["the film was near Paris with Anna Berg"]}))
print([entity["text"] for entity in rows["predicted_entities"][0]])
"""
    uri = f"sqlite:///{trained_tagger}/.ratchet/mlflow.db"
    done = run(tmp_path, "python", "-c", script, MLFLOW_TRACKING_URI=uri)
    assert done.stdout.splitlines()[-1] == "['Paris', 'Anna Berg']"
    assert "start" in done.stdout
