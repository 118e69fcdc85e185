"""Retraining triggers: each fires when it should, and says why it does not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported import PROBLEM, Exported, ship
from sklearn.metrics import f1_score
from tiny import LABELS, tiny_rows
from workspaces import write_csv

from tasks.core.errors import DataError
from tasks.inference.predictor import Predictor
from tasks.monitoring.drift_tests import classifier_test, label_test, length_test, vocabulary_test
from tasks.monitoring.input_log import log_inputs
from tasks.monitoring.triggers import (
    LEAST_ROWS,
    Trigger,
    age_trigger,
    drift_trigger,
    new_data_trigger,
    performance_trigger,
)
from tasks.params.lifecycle import AgeTrigger, DriftTrigger, NewDataTrigger, PerformanceTrigger
from tasks.problems import load_problem

COLUMNS = ("text", "label")
DRIFT = DriftTrigger(enabled=True, min_rows=50)
KIND = load_problem(PROBLEM)
PERFORMANCE = PerformanceTrigger(enabled=True, min_rows=50)
NOW = datetime(2026, 3, 29, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def predictor(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    bundle = ship(exported, tmp_path_factory.mktemp("shipped") / "bundle")
    return Predictor(bundle, load_problem(PROBLEM))


# --- new data ---


def rows_file(path: Path, texts: Sequence[str | None], labels: Sequence[str | None]) -> Path:
    columns = {"text": pa.array(texts, pa.string()), "label": pa.array(labels, pa.string())}
    pq.write_table(pa.table({"row": range(len(texts)), **columns}), path)
    return path


def new_rows(
    tmp_path: Path,
    fresh: Sequence[tuple[str | None, str | None]],
    trained: Sequence[tuple[str | None, str | None]],
) -> int:
    files = [
        rows_file(tmp_path / name, *zip(*rows, strict=True))
        for name, rows in (("fresh[1].parquet", fresh), ("old.parquet", trained))
    ]
    trigger = new_data_trigger(files[0], files[1], COLUMNS, NewDataTrigger())
    assert trigger.numbers["rows"] == len(fresh)
    return int(trigger.numbers["new_rows"])


def test_the_same_rows_in_another_order_are_not_new(tmp_path: Path) -> None:
    rows = [(f"text {i}", "a") for i in range(50)]
    assert new_rows(tmp_path, rows[::-1], rows) == 0


def test_repeats_and_nulls_are_values_like_others(tmp_path: Path) -> None:
    trained = [("x", "a"), ("x", "a"), (None, "a"), ("y", None), ("", "a")]
    assert new_rows(tmp_path, trained * 3, trained) == 0
    new = [(None, None), (None, "b"), ("x", None), ("x", "b"), ("", "b")]
    assert new_rows(tmp_path, [*trained, *new], trained) == 5
    assert new_rows(tmp_path, trained, [("x", "a")]) == 3


@pytest.mark.parametrize(("new", "fires"), [(0, False), (9, False), (10, True), (11, True)])
def test_new_data_fires_from_min_rows_on(tmp_path: Path, new: int, fires: bool) -> None:
    params, old = NewDataTrigger(min_rows=10), [f"old {i}" for i in range(30)]
    texts = [*old, *(f"new {i}" for i in range(new))]
    trained = rows_file(tmp_path / "trained.parquet", old, ["a"] * 30)
    fresh = rows_file(tmp_path / "fresh.parquet", texts, ["a"] * (30 + new))
    trigger = new_data_trigger(fresh, trained, COLUMNS, params)
    assert (trigger.fired, trigger.numbers["new_rows"]) == (fires, new)
    assert f"{new} of" in trigger.reason
    untrained = new_data_trigger(fresh, None, COLUMNS, params)
    assert untrained.numbers["new_rows"] == 30 + new


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    good = rows_file(tmp_path / "good.parquet", ["x"], ["a"])
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(DataError, match=r"bad\.parquet"):
        new_data_trigger(good, tmp_path / "bad.parquet", COLUMNS, NewDataTrigger())


# --- age ---


def test_age_fires_only_beyond_the_last_allowed_moment() -> None:
    params, moment = AgeTrigger(enabled=True, max_days=30), timedelta(microseconds=1)
    last = NOW - timedelta(days=30)
    times = (last + moment, last, last - moment)
    assert [age_trigger(time, NOW, params).fired for time in times] == [False, False, True]
    assert not age_trigger(NOW + timedelta(days=99), NOW, params).fired
    assert "30.0 days" in age_trigger(last, NOW, params).reason


# --- drift ---


def sentences(
    count: int, seed: int, topic: str = "word", labels: Sequence[str] = LABELS
) -> list[str]:
    """Sentences of these labels, with words as unevenly frequent as those of a language."""
    draw = random.Random(seed)
    rows = tiny_rows(4 * count, seed)
    pairs = zip(rows["text"], rows["label"], strict=True)
    chosen = [text for text, label in pairs if label in labels][:count]
    vocabulary, weights = [f"{topic}{i}" for i in range(3000)], [1 / (i + 3) for i in range(3000)]
    return [
        " ".join([text[:-1], *draw.choices(vocabulary, weights, k=draw.randint(2, 8))])
        for text in chosen
    ]


def drift(
    tmp_path: Path,
    reference: list[str],
    recent: list[str],
    predictor: Predictor | None = None,
    params: DriftTrigger = DRIFT,
    seed: int = 0,
) -> Trigger:
    """The verdict on a log of two files and a training split, in a folder of their own."""
    directory = tmp_path / f"drift{len(list(tmp_path.iterdir()))}"
    log, train = directory / "log", directory / "train.parquet"
    for half in (recent[: len(recent) // 2], recent[len(recent) // 2 :]):
        log_inputs(log, [{"text": text, "label": "?", "score": 0.0} for text in half], "1")
    rows_file(train, reference, ["?"] * len(reference))
    return drift_trigger(log, train, predictor, params, seed, ["text"])


def shifted(trigger: Trigger, params: DriftTrigger = DRIFT) -> set[str]:
    """The tests that fire."""
    tests = trigger.numbers["tests"].items()
    names = {
        name
        for name, test in tests
        if test["adjusted_p"] <= params.significance and test["effect"] >= params.min_effect
    }
    assert trigger.fired == bool(names)
    assert all(name.replace("_", " ") in trigger.reason for name in names)
    return names


def test_inputs_like_the_training_rows_seldom_fire(tmp_path: Path, predictor: Predictor) -> None:
    params = DriftTrigger(enabled=True, min_rows=50, min_effect=0.0)  # the p-values alone
    names = {"text_length", "out_of_vocabulary", "classifier", "predicted_labels"}
    fired = 0
    for seed in range(40):
        reference, recent = sentences(200, 2 * seed), sentences(120, 2 * seed + 1)
        trigger = drift(tmp_path, reference, recent, predictor, params, seed)
        tests = trigger.numbers["tests"]
        assert set(tests) == names
        assert tests["out_of_vocabulary"]["reference"] > 0.05
        fired += trigger.fired
    assert fired <= 2


def test_the_p_values_of_equal_samples_are_no_smaller_than_they_say() -> None:
    """Also with repeated texts: both samples are drawn with replacement."""
    texts = sentences(60, 0)
    by_test: dict[str, list[float]] = {}
    for seed in range(200):
        draw = np.random.default_rng(seed)
        numbers = (draw.integers(0, len(texts), count) for count in (80, 60))
        first, second = ([texts[number] for number in drawn] for drawn in numbers)
        for test in (
            length_test(first, second),
            vocabulary_test(first, second, draw),
            classifier_test(first, second, draw),
        ):
            by_test.setdefault(test.name, []).append(test.p_value)
    assert len(by_test) == 3
    for name, p_values in by_test.items():
        assert np.mean(np.asarray(p_values) <= 0.05) <= 0.09, name  # 0.05 and 2.6 standard errors


def test_the_order_of_rows_changes_nothing(tmp_path: Path, predictor: Predictor) -> None:
    # max_rows below their number, so that rows are sampled
    params = DriftTrigger(enabled=True, min_rows=50, max_rows=80)
    reference, recent = sentences(200, 0), [*sentences(90, 1, "news"), *sentences(60, 2)]
    first = drift(tmp_path, reference, recent, predictor, params)
    random.Random(0).shuffle(reference)
    random.Random(1).shuffle(recent)
    assert drift(tmp_path, reference, recent, predictor, params).numbers == first.numbers
    assert drift(tmp_path, reference, recent, predictor, params, seed=1).numbers != first.numbers


def test_longer_texts_fire_length(tmp_path: Path) -> None:
    pairs = zip(sentences(200, 1), sentences(200, 2), strict=True)
    trigger = drift(tmp_path, sentences(300, 0), [" ".join(pair) for pair in pairs])
    assert "text_length" in shifted(trigger)
    test = trigger.numbers["tests"]["text_length"]
    assert test["recent"] > 1.7 * test["reference"]
    assert "out_of_vocabulary" not in shifted(trigger)


def test_words_of_a_new_topic_fire_vocabulary_and_classifier(tmp_path: Path) -> None:
    trigger = drift(tmp_path, sentences(300, 0), sentences(200, 1, "news"))
    assert shifted(trigger) == {"out_of_vocabulary", "classifier"}
    test = trigger.numbers["tests"]["out_of_vocabulary"]
    assert test["recent"] > test["reference"] + 0.1


def test_a_script_without_blanks_is_compared_by_characters(tmp_path: Path) -> None:
    draw = random.Random(0)
    topics = ("今天气很好我们去公园吧雨雪风云", "银行股票价格上涨利率货币基金贷款")
    weather, trade = (["".join(draw.choices(signs, k=30)) for _ in range(300)] for signs in topics)
    assert not drift(tmp_path, weather[:150], weather[150:]).fired
    trigger = drift(tmp_path, weather[:150], trade[:100])
    assert shifted(trigger) == {"out_of_vocabulary", "classifier"}


def test_other_classes_fire_predicted_labels(tmp_path: Path, predictor: Predictor) -> None:
    recent = sentences(200, 1, labels=["negative"])
    trigger = drift(tmp_path, sentences(300, 0), recent, predictor)
    assert "predicted_labels" in shifted(trigger)
    test = trigger.numbers["tests"]["predicted_labels"]
    assert test["recent"]["negative"] > 0.8 > 0.5 > test["reference"]["negative"]
    assert sum(test["recent"].values()) == pytest.approx(1)


def test_a_significant_but_tiny_difference_does_not_fire(tmp_path: Path) -> None:
    reference = sentences(4000, 0)
    recent = [text + "." * (row % 3 == 0) for row, text in enumerate(sentences(4000, 1))]
    wide, narrow = (DriftTrigger(enabled=True, min_effect=effect) for effect in (0.3, 0.0))
    trigger = drift(tmp_path, reference, recent, params=wide)
    assert min(test["adjusted_p"] for test in trigger.numbers["tests"].values()) < 1e-6
    assert not trigger.fired
    assert drift(tmp_path, reference, recent, params=narrow).fired


@pytest.mark.parametrize("texts", [[""], ["a"], ["a b", "a  b"], ["!"], ["\n\t "]])
def test_texts_with_nothing_in_them_are_compared_too(
    tmp_path: Path, texts: list[str], predictor: Predictor
) -> None:
    assert not drift(tmp_path, texts * 60, texts * 50, predictor).fired


def test_labels_are_compared_by_their_shares() -> None:
    test = label_test(["a"] * 50 + ["b"] * 50, ["a"] * 30 + ["c"] * 70)
    assert test.effect == pytest.approx(0.7)
    assert test.p_value < 1e-9
    assert label_test(["a"] * 9, ["a"] * 8).p_value == 1.0


# --- performance ---


def test_performance_holds_on_the_rows_it_was_registered_with_and_falls_on_wrong_labels(
    tmp_path: Path, predictor: Predictor
) -> None:
    rows = tiny_rows(300, seed=9)
    predicted = [prediction["label"] for prediction in predictor.predict({"text": rows["text"]})]
    registered = float(f1_score(rows["label"], predicted, average="macro"))
    assert registered > 0.9
    write_csv(tmp_path / "same.csv", rows)
    same = performance_trigger(tmp_path / "same.csv", KIND, predictor, registered, PERFORMANCE, 0)
    assert not same.fired
    assert same.numbers["value"] == pytest.approx(registered)
    rotated = {label: LABELS[(i + 1) % 3] for i, label in enumerate(LABELS)}
    relabelled = [rotated[label] if i % 4 == 0 else label for i, label in enumerate(rows["label"])]
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table(rows | {"label": relabelled}), other)
    fallen = performance_trigger(other, KIND, predictor, registered, PERFORMANCE, 0)
    assert fallen.fired
    assert fallen.numbers["high"] < registered - PERFORMANCE.max_fall < registered
    assert f"{fallen.numbers['value']:.3f}" in fallen.reason


def test_a_fall_within_the_interval_or_the_allowance_does_not_fire(
    tmp_path: Path, predictor: Predictor
) -> None:
    rows, file = tiny_rows(100, seed=9), tmp_path / "rows.csv"
    write_csv(file, rows | {"label": ["neutral"] * 20 + rows["label"][20:]})

    def against(registered: float) -> Trigger:
        return performance_trigger(file, KIND, predictor, registered, PERFORMANCE, 0)

    measured = against(0.0).numbers
    assert measured["high"] > measured["value"] + 0.02
    allowed = measured["high"] + PERFORMANCE.max_fall
    assert [against(allowed + by).fired for by in (-1e-6, 1e-6)] == [False, True]


def test_rows_with_an_unknown_label_are_named(tmp_path: Path, predictor: Predictor) -> None:
    rows = tiny_rows(5000, seed=9)
    rows["label"][3] = rows["label"][4990] = "neutrl"
    rows["label"][10] = ""
    write_csv(tmp_path / "rows.csv", rows)
    labels = r"'neutrl' \(rows 4, 4991\), '' \(row 11\).*negative, neutral, positive"
    with pytest.raises(DataError, match=rf"rows\.csv: 3 rows.*{labels}"):
        performance_trigger(tmp_path / "rows.csv", KIND, predictor, 0.9, PERFORMANCE, 0)


# --- what is off, or lacks something ---


def test_a_trigger_that_is_off_or_lacks_something_says_so_and_does_not_fire(
    tmp_path: Path, predictor: Predictor
) -> None:
    nowhere, few_csv = tmp_path / "nowhere", tmp_path / "few.csv"
    train = rows_file(tmp_path / "train.parquet", ["x"] * 60, ["a"] * 60)
    few = log_inputs(tmp_path / "few", [{"text": "x"}] * 19, "1")
    write_csv(few_csv, tiny_rows(49))
    one_row, off = DriftTrigger(enabled=True, min_rows=1), DriftTrigger()

    def of_drift(log: Path, train: Path, params: DriftTrigger = DRIFT) -> Trigger:
        return drift_trigger(log, train, predictor, params, 0, ["text"])

    def of_performance(rows: Path | None, params: PerformanceTrigger = PERFORMANCE) -> Trigger:
        return performance_trigger(rows, KIND, predictor, 0.9, params, 0)

    triggers = {
        "`retrain.new_data.enabled` is false": new_data_trigger(
            nowhere, None, COLUMNS, NewDataTrigger(enabled=False)
        ),
        "`retrain.age.enabled` is false": age_trigger(NOW - timedelta(days=999), NOW, AgeTrigger()),
        "`retrain.drift.enabled` is false": of_drift(nowhere, nowhere, off),
        "`retrain.performance.enabled` is false": of_performance(nowhere, PerformanceTrigger()),
        "no champion whose age": age_trigger(None, NOW, AgeTrigger(enabled=True)),
        "No inputs were logged": of_drift(nowhere, train),
        "no training rows yet": of_drift(few, nowhere),
        "19 recent inputs of 50": of_drift(few, train),
        f"19 recent inputs of {LEAST_ROWS}": of_drift(few, train, one_row),
        "no champion to measure": performance_trigger(few_csv, KIND, None, None, PERFORMANCE, 0),
        "No file of freshly labelled": of_performance(None),
        "No rows were labelled": of_performance(nowhere),
        "49 labelled of 50": of_performance(few_csv),
    }
    for says, trigger in triggers.items():
        assert says in trigger.reason
        assert not trigger.fired
        assert trigger.enabled == ("enabled` is false" not in says)
