"""Training parameters that `ratchet init` writes.

Enough steps for the number of rows; learning rates by the classes and the base model.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny import tiny_rows
from workspaces import FAST, ratchet, ratchet_json, write_csv

from flows.workspaces.defaults import (
    MIN_CONTRASTIVE_STEPS,
    MIN_STEPS,
    TrainingSize,
    finetune_values,
)
from tasks.core.files import read_json
from tasks.params.finetuning import FinetuneParams
from tasks.params.schema import read_yaml
from tasks.problems import load_problem, problem_names
from tasks.training.methods.compatibility import check_method


def steps(rows: int, values: dict[str, float]) -> int:
    return math.ceil(rows / values["batch_size"]) * int(values["epochs"])


@pytest.mark.parametrize("rows", [1, 60, 347, 1_999, 2_000, 19_000, 1_000_000])
def test_a_head_gets_steps_to_learn_in_and_every_row_is_seen_three_times(rows: int) -> None:
    values = finetune_values(TrainingSize(rows, 2, usual_base=True, pools=True), {})
    assert steps(rows, values) >= MIN_STEPS
    assert values["epochs"] >= 3
    # and not one epoch more than that
    steps_an_epoch = math.ceil(rows / values["batch_size"])
    assert values["epochs"] == 3 or steps(rows, values) < MIN_STEPS + steps_an_epoch


def test_many_classes_get_a_faster_head() -> None:
    sizes = (TrainingSize(9_000, classes, usual_base=True, pools=True) for classes in (3, 77))
    few, many = (finetune_values(size, {}) for size in sizes)
    assert few["head_learning_rate"] < many["head_learning_rate"]
    assert few["learning_rate"] < few["head_learning_rate"]


def test_a_base_model_of_another_size_is_not_trained_at_the_small_ones_rate() -> None:
    size = TrainingSize(9_000, 3, usual_base=False, pools=True)
    assert finetune_values(size, {})["learning_rate"] == 5e-5
    lora = {"method": "lora", "learning_rate": 2e-4}  # it trains few weights
    assert finetune_values(size, lora)["learning_rate"] == 2e-4


def test_the_head_reads_what_the_base_model_was_trained_for() -> None:
    for usual, pools, wanted in (
        (True, True, "mean"),  # the default base model has no file that says so
        (False, True, "auto"),
        (True, False, "own"),
        (False, False, "own"),
    ):
        size = TrainingSize(9_000, 3, usual, pools)
        assert finetune_values(size, {})["pooling"] == wanted
        own = finetune_values(size, {"pooling": "own"}, "frozen")
        assert (own["pooling"], own["head_start"]) == (wanted, "solved")


@pytest.mark.parametrize("name", problem_names())
def test_a_problems_own_values_win_and_all_are_valid(name: str) -> None:
    problem = load_problem(name)
    own, pools = problem.defaults.finetune, problem.objective.pools
    values = finetune_values(TrainingSize(500, 3, usual_base=True, pools=pools), own)
    assert own.items() <= values.items()
    check_method(name, problem.objective, FinetuneParams.model_validate(values), "cpu")


def test_init_writes_them_with_the_rows_they_rest_on(base_dir: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "reviews.csv", tiny_rows(100))
    base = ("--base-model", str(base_dir))
    ratchet(tmp_path, "init", "one", "--yes", "--data", "reviews.csv", *base)
    params = tmp_path / "one" / "params.yaml"
    assert read_yaml(params)["finetune"]["epochs"] == 60
    assert "80 training rows: 5 steps per epoch" in params.read_text(encoding="utf-8")
    assert read_yaml(params)["finetune"]["pooling"] == "auto"
    for split, count in (("train", 60), ("validation", 20), ("test", 20)):
        write_csv(tmp_path / "splits" / f"{split}.csv", tiny_rows(count, seed=count + len(split)))
    ratchet(tmp_path, "init", "two", "--yes", "--data", "splits", *base)
    params = tmp_path / "two" / "params.yaml"
    assert "60 training rows: 4 steps per epoch" in params.read_text(encoding="utf-8")


def test_a_frozen_recipe_is_written_out_trains_without_steps_and_predicts(
    base_dir: Path, tmp_path: Path
) -> None:
    write_csv(tmp_path / "reviews.csv", tiny_rows(150))
    options = ("--yes", "--data", "reviews.csv", "--base-model", str(base_dir))
    made = ratchet_json(tmp_path, "init", "one", *options, "--recipe", "frozen")
    assert made["notes"][0].startswith("the base model stays as it is; its head is solved")
    root = tmp_path / "one"
    written = read_yaml(root / "params.yaml")["finetune"]
    assert (written["method"], written["head_start"]) == ("frozen", "solved")
    overrides = [part for value in FAST[4:] for part in ("-S", value)]
    trained = ratchet_json(root, "train", *overrides, "-S", "finetune.pooling=mean")
    assert trained["version"] == 1
    facts = read_json(root / "reports" / "training.json")
    assert facts["steps"] == 0
    curve = facts["learning_curve"]
    assert curve["gain"]["low"] <= curve["full"] - curve["half"] <= curve["gain"]["high"]
    page = (root / "reports" / "report.html").read_text(encoding="utf-8")
    assert "The head was solved on the training rows; no steps followed." in page
    assert f"all {curve['rows']} labelled training rows give" in page
    (answer,) = ratchet_json(root, "predict", "a good day")
    assert answer["predicted_label"] in made["labels"]


def test_a_few_shot_recipe_takes_few_rows_a_label_and_trains_the_body(
    base_dir: Path, tmp_path: Path
) -> None:
    write_csv(tmp_path / "few.csv", tiny_rows(36))
    options = ("--yes", "--data", "few.csv", "--base-model", str(base_dir))
    made = ratchet_json(tmp_path, "init", "one", *options, "--recipe", "few-shot")
    assert made["notes"][0].startswith("the base model learns to tell the labels apart")
    assert not any("stop" in note for note in made["notes"])
    root = tmp_path / "one"
    written = read_yaml(root / "params.yaml")
    assert (written["finetune"]["loss"], written["finetune"]["head_start"]) == (
        "contrastive", "solved",
    )  # fmt: skip
    overrides = [part for value in FAST[4:] for part in ("-S", value)]
    assert ratchet_json(root, "train", *overrides, "-S", "finetune.pooling=mean")["version"] == 1
    facts = read_json(root / "reports" / "training.json")
    assert facts["steps"] >= MIN_CONTRASTIVE_STEPS
    assert len(facts["evaluations"]) == 1
    (answer,) = ratchet_json(root, "predict", "a good day")
    assert answer["predicted_label"] in made["labels"]


def test_a_recipe_that_a_problem_cannot_have_is_told_before_anything_is_written(
    tmp_path: Path,
) -> None:
    write_csv(tmp_path / "texts.csv", {"text": tiny_rows(100)["text"]})
    options = ("--yes", "--data", "texts.csv")
    for problem, recipe, says in (
        ("masked-lm", "frozen", "has no classes to solve for"),
        ("masked-lm", "frosen", "Did you mean 'frozen'?"),
        ("masked-lm", "few-shot", "has no classes to solve for"),
    ):
        command = ("init", "one", *options, "--problem", problem, "--recipe", recipe)
        assert says in ratchet(tmp_path, *command, code=2).stderr
        assert not (tmp_path / "one").exists()
