"""The contract of problem types: every file in tasks/problems is held to it on the day it lands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import LABELS, tiny_rows

from tasks.core.errors import ParamsError
from tasks.core.inference import predict_torch
from tasks.core.params import EvaluateParams, ValidateParams
from tasks.core.tokens import load_tokenizer
from tasks.core.training import seed_everything
from tasks.problems import Problem, load_problem, problem_names

# one sample of labelled rows a problem type; a new type is not in here until it is tested
SAMPLES: dict[str, tuple[dict[str, list[Any]], tuple[str, ...]]] = {"text-classification": (tiny_rows(40), LABELS)}


def test_every_problem_type_is_tested() -> None:
    assert set(SAMPLES) == set(problem_names())
    assert len(SAMPLES) == 1


def test_an_unknown_problem_is_a_users_mistake() -> None:
    with pytest.raises(ParamsError, match="Did you mean 'text-classification'"):
        load_problem("text-clasification")


@pytest.fixture(params=sorted(SAMPLES))
def problem(request: pytest.FixtureRequest) -> Problem:
    return load_problem(request.param)


@pytest.fixture
def sample(problem: Problem) -> tuple[dict[str, list[Any]], tuple[str, ...]]:
    return SAMPLES[problem.name]


def test_it_says_what_it_is(problem: Problem) -> None:
    assert set(problem.text_columns) <= set(problem.columns)
    assert problem.label_column is None or problem.label_column in problem.columns
    assert problem.metric_signs[problem.metric] == 1
    assert set(problem.example()) <= set(problem.columns)
    assert type(problem).__doc__


def test_its_expectations_name_themselves_once(problem: Problem, sample: Any) -> None:
    checks = problem.expectations(ValidateParams(), sample[1])
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.says and check.type.startswith("expect_") for check in checks)


def test_rows_become_outputs_and_outputs_become_predictions(problem: Problem, sample: Any, base_dir: Path) -> None:
    rows, labels = sample
    count = len(next(iter(rows.values())))
    features = problem.encode(load_tokenizer(base_dir, 16), rows, labels)
    assert max(map(len, features["input_ids"])) <= 16
    assert len(features["truncated"]) == len(problem.references(features)) == count
    assert any(features["truncated"])
    seed_everything(0)
    model = problem.load_model(base_dir, labels)
    outputs = predict_torch(model, problem, features, pad_token_id=0)
    assert len(outputs) == count
    assert outputs.dtype == np.float32

    metrics = problem.metrics(outputs, problem.references(features), labels)
    assert set(metrics) == set(problem.metric_signs)
    assert all(np.isfinite(value) for value in metrics.values())
    json.dumps(problem.details(outputs, problem.references(features), labels), allow_nan=False)
    assert problem.agreement(outputs, outputs) == (1.0, 0.0)
    assert problem.fit_temperature(outputs, problem.references(features)) > 0
    predictions = problem.decode(outputs, labels, 1.0)
    assert len(predictions) == count
    json.dumps(predictions, allow_nan=False)


def test_inputs_alone_can_be_encoded(problem: Problem, sample: Any, base_dir: Path) -> None:
    features = problem.encode(load_tokenizer(base_dir, 16), problem.example(), sample[1])
    assert "references" not in features


def test_padding_never_changes_outputs(problem: Problem, sample: Any, base_dir: Path) -> None:
    rows, labels = sample
    features = problem.encode(load_tokenizer(base_dir, 32), rows, labels)
    seed_everything(0)
    model = problem.load_model(base_dir, labels)
    together = predict_torch(model, problem, features, 0)
    alone = predict_torch(model, problem, features, 0, batch_rows=1)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_its_loss_falls_when_outputs_get_better(problem: Problem, sample: Any, base_dir: Path) -> None:
    rows, labels = sample
    references = torch.from_numpy(problem.references(problem.encode(load_tokenizer(base_dir, 16), rows, labels)))
    seed_everything(0)
    model = problem.load_model(base_dir, labels)
    features = problem.encode(load_tokenizer(base_dir, 16), rows, labels)
    inputs = {name: torch.from_numpy(values) for name, values in problem.collate(features, 0).items()}
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(15):
        loss = problem.loss(model(**inputs)[problem.output_name], references, label_smoothing=0.0, class_weights=None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_its_behaviour_tests_can_be_judged(problem: Problem, sample: Any, base_dir: Path) -> None:
    rows, labels = sample
    seed_everything(0)
    model = problem.load_model(base_dir, labels)
    tokenizer = load_tokenizer(base_dir, 32)

    def outputs(given: Any) -> Any:
        return predict_torch(model, problem, problem.encode(tokenizer, given, labels), 0)

    for test in problem.behaviour_tests(rows, labels, EvaluateParams(), seed=0):
        passed = test.passes(outputs(test.rows), None if test.against is None else outputs(test.against))
        assert passed.dtype == bool
        assert len(passed) == len(next(iter(test.rows.values())))
