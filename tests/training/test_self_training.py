"""Self-training: certain rows of each class join the labelled ones, if validation rows gain."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import test_matrix
from pydantic import ValidationError
from test_matrix import Killed, killed_after_two_steps, tokens_of, train
from tiny import LABELS, tiny_rows

from tasks.core.errors import ParamsError
from tasks.core.files import read_json, sha256_file
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import UNLABELLED_TOKENS, load_tokenizer, read_tokens
from tasks.params.finetuning import FinetuneParams
from tasks.problems import load_problem
from tasks.training.inputs import TrainingInputs
from tasks.training.logistic import solve_classes
from tasks.training.self_training import ROUNDS, SHARE, check_unlabelled, label_certain
from tasks.training.solved_head import _better, output_layer, solve_head

PROBLEM = load_problem("text-classification")


def clouds(rows: int, classes: int, seed: int) -> tuple[Any, Any]:
    """Vectors around a centre for each class, of several lengths."""
    centres = np.random.default_rng(0).normal(size=(classes, 8)) * 2
    draw = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    vectors = centres[labels] + draw.normal(size=(rows, 8))
    return (vectors * draw.uniform(0.5, 2, (rows, 1))).astype(np.float32), labels


def naive(vectors: Any, classes: Any, unlabelled: Any, outputs: int) -> dict[int, int]:
    """Row -> class, one row at a time."""

    def unit(vector: Any) -> Any:
        length = math.sqrt(float((vector * vector).sum()))
        return vector / length if length else vector

    found: dict[int, int] = {}
    for _ in range(ROUNDS):
        means = {}
        for label in range(outputs):
            own = [unit(v) for v, c in zip(vectors, classes, strict=True) if c == label]
            if own:
                own += [unit(unlabelled[row]) for row, c in found.items() if c == label]
                means[label] = unit(sum(own))
        by_class: dict[int, list[tuple[float, int]]] = {}
        for row, vector in enumerate(unlabelled):
            likeness = sorted(((float(unit(vector) @ mean), c) for c, mean in means.items()))
            lead = likeness[-1][0] - likeness[-2][0] if len(likeness) > 1 else 0.0
            by_class.setdefault(likeness[-1][1], []).append((-lead, row))
        found = {
            row: label
            for label, rows in by_class.items()
            for _, row in sorted(rows)[: math.ceil(SHARE * len(rows))]
        }
    return found


@pytest.mark.parametrize(("classes", "outputs"), [(2, 2), (3, 5), (7, 7)])
def test_it_labels_what_a_plain_loop_labels(classes: int, outputs: int) -> None:
    vectors, labels = clouds(2 * classes, classes, 1)
    unlabelled, _ = clouds(90, classes, 2)
    rows, found = label_certain(vectors, labels, unlabelled, outputs)
    assert dict(zip(rows.tolist(), found.tolist(), strict=True)) == naive(
        vectors, labels, unlabelled, outputs
    )
    assert set(found.tolist()) <= set(labels.tolist())  # none of a class without rows


def test_the_order_of_the_rows_and_their_lengths_change_nothing() -> None:
    vectors, labels = clouds(6, 3, 1)
    unlabelled, _ = clouds(80, 3, 2)
    rows, found = label_certain(vectors, labels, unlabelled, 3)
    order = np.random.default_rng(5).permutation(80)
    stretched = unlabelled[order] * np.float32(3)
    again, found_again = label_certain(vectors, labels, stretched, 3)
    assert dict(zip(order[again].tolist(), found_again.tolist(), strict=True)) == dict(
        zip(rows.tolist(), found.tolist(), strict=True)
    )


def test_rows_of_nothing_and_a_single_class_are_no_error() -> None:
    vectors, labels = clouds(3, 3, 1)
    rows, _ = label_certain(vectors, labels, np.zeros((5, 8), np.float32), 3)
    assert len(rows) == math.ceil(SHARE * 5)
    rows, found = label_certain(vectors[:1], labels[:1], vectors, 1)
    assert (rows.tolist(), found.tolist()) == ([0, 1, 2], [0, 0, 0])


def features_of(base_dir: Path, rows: dict[str, list[str]]) -> dict[str, list[Any]]:
    return encode_rows(PROBLEM.encoding, load_tokenizer(base_dir, 32), rows, LABELS)


def head_of(base_dir: Path, work: Path, *, unlabelled: bool) -> tuple[Any, Any]:
    """(weights of the head, what solve_head tells) of a row a label, which is validated on too."""
    model = PROBLEM.objective.load_model(base_dir, LABELS, 0.0, "mean")
    few = tiny_rows(60)
    firsts = [few["label"].index(label) for label in LABELS]
    few = {name: [values[i] for i in firsts] for name, values in few.items()}
    pool = features_of(base_dir, tiny_rows(200, seed=5))
    pool.pop("references")
    inputs = TrainingInputs(
        PROBLEM.objective, PROBLEM.encoding, PROBLEM.scoring, LABELS,
        pa.table(features_of(base_dir, few)), features_of(base_dir, few), 0,
        FinetuneParams(head_start="solved"), None, 0, "cpu", work,
        pa.table(pool) if unlabelled else None,
    )  # fmt: skip
    told = solve_head(model, inputs).self_training
    return output_layer(model).weight.detach().numpy().copy(), told


def test_rows_that_cannot_help_change_nothing(base_dir: Path, tmp_path: Path) -> None:
    alone, nothing = head_of(base_dir, tmp_path, unlabelled=False)
    assert nothing is None
    # the validation rows are the labelled ones, which cannot be predicted better
    same, told = head_of(base_dir, tmp_path, unlabelled=True)
    assert (told.rows, told.used, told.before) == (200, 0, 1.0)
    np.testing.assert_array_equal(same, alone)


@pytest.mark.parametrize("helps", [True, False])
def test_they_take_part_only_if_that_is_shown_by_more_than_chance(
    helps: bool, tmp_path: Path
) -> None:
    vectors, classes = clouds(3, 3, 1)
    unlabelled, _ = clouds(300, 3, 2)
    held_out, answers = clouds(240, 3, 4)
    if not helps:  # what tells these rows apart is nothing that the classes differ in
        unlabelled = np.random.default_rng(2).normal(size=(300, 8)).astype(np.float32)
    features = {"references": answers.tolist()}
    inputs = TrainingInputs(
        PROBLEM.objective, PROBLEM.encoding, PROBLEM.scoring, LABELS,
        pa.table(features), features, 0,
        FinetuneParams(head_start="solved"), None, 0, "cpu", tmp_path,
    )  # fmt: skip
    head, told = _better(inputs, (vectors, classes), unlabelled, held_out, 3)
    alone = solve_classes(vectors, classes, 3, None, 0)
    right = [(held_out @ w.T + b).argmax(1) == answers for w, b in (alone, head)]
    assert (told.used > 0) == helps
    if helps:
        assert told.after > told.before
        assert (told.gained, told.lost) == tuple(
            int((one & ~other).sum()) for one, other in (right[::-1], right)
        )
    else:
        np.testing.assert_array_equal(head[0], alone[0])


def test_a_killed_training_goes_on_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = shutil.copytree(tokens_of("text-classification"), tmp_path / "tokens")
    rows = read_tokens(tokens / "train.arrow").drop_columns(["references"])
    with pa.ipc.new_file(str(tokens / UNLABELLED_TOKENS), rows.schema) as file:
        file.write_table(rows)
    monkeypatch.setattr(test_matrix, "tokens_of", lambda problem: tokens)
    values: dict[str, Any] = {
        "pooling": "mean", "head_start": "solved", "loss": "contrastive", "self_training": True,
    }  # fmt: skip
    train("text-classification", "full", tmp_path / "whole", **values)
    with pytest.raises(Killed):
        train("text-classification", "full", tmp_path / "killed", killed_after_two_steps, **values)
    train("text-classification", "full", tmp_path / "killed", **values)
    whole, killed = (
        (
            sha256_file(tmp_path / name / "checkpoint" / "model.safetensors"),
            read_json(tmp_path / name / "training.json")["self_training"],
        )
        for name in ("whole", "killed")
    )
    assert whole == killed
    assert whole[1]["rows"] == len(rows)


@pytest.mark.parametrize(
    "changed", [{"head_start": "random"}, {"start_from": "champion", "method": "lora"}]
)
def test_what_would_do_nothing_is_refused(changed: dict[str, Any]) -> None:
    values = {"head_start": "solved", "self_training": True}
    with pytest.raises(ValidationError, match="`self_training`"):
        FinetuneParams.model_validate(values | changed)


def test_rows_and_method_need_each_other() -> None:
    check_unlabelled(PROBLEM, has_rows=True, wanted=True)
    check_unlabelled(PROBLEM, has_rows=False, wanted=False)
    for problem, has_rows, wanted, says in (
        ("text-classification", True, False, "nothing uses these rows"),
        ("text-classification", False, True, "no rows without labels"),
        ("token-classification", True, True, "not one text with one class"),
    ):
        with pytest.raises(ParamsError, match=says):
            check_unlabelled(load_problem(problem), has_rows, wanted)
