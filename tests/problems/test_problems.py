"""The contract that every problem type in tasks/problems must meet."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from samples import SAMPLES, Sample
from transformers import AutoTokenizer

from tasks.core.arrays import Features
from tasks.core.errors import ParamsError
from tasks.core.ragged import largest_difference
from tasks.core.seeds import seed_everything
from tasks.encoding.encoder import OUTPUT_NAME, encode_rows
from tasks.encoding.token_files import load_tokenizer
from tasks.params.schema import EvaluateParams, ValidateParams
from tasks.problems import Problem, load_problem, problem_names
from tasks.scoring.statistics.draws import Draws
from tasks.tokenization import pad_token_id
from tasks.training.networks.torch_outputs import predict_torch


def test_every_problem_type_is_tested() -> None:
    assert set(SAMPLES) == set(problem_names())
    assert len(SAMPLES) == 7


def test_an_unknown_problem_is_a_users_mistake() -> None:
    with pytest.raises(ParamsError, match="Did you mean 'text-classification'"):
        load_problem("text-clasification")


@pytest.fixture(params=sorted(SAMPLES))
def problem(request: pytest.FixtureRequest) -> Problem:
    return load_problem(request.param)


@pytest.fixture
def sample(problem: Problem) -> Sample:
    return SAMPLES[problem.name]


def encoded(problem: Problem, sample: Sample, length: int = 32, rows: Any = None) -> Features:
    tokenizer = load_tokenizer(sample.base_dir(), length)
    rows = sample.rows if rows is None else rows
    return encode_rows(problem.encoding, tokenizer, rows, sample.labels)


def fresh_model(problem: Problem, sample: Sample) -> Any:
    seed_everything(0)
    return problem.objective.load_model(sample.base_dir(), sample.labels)


def pad(sample: Sample) -> int:
    return pad_token_id(AutoTokenizer.from_pretrained(sample.base_dir()))


def test_it_says_what_it_is(problem: Problem) -> None:
    known = {*problem.rows.columns, *problem.rows.derived}
    assert set(problem.rows.text_columns) <= known
    assert problem.rows.label_column is None or problem.rows.label_column in known
    assert set(problem.rows.types) <= known
    assert set(problem.rows.split_columns) <= known
    assert set(problem.rows.replaceable) <= set(problem.rows.derived)
    assert problem.scoring.metric_signs[problem.scoring.metric] == 1
    assert set(problem.decoding.example()) <= known


def test_it_knows_its_own_columns_in_foreign_rows(problem: Problem, sample: Sample) -> None:
    columns = {name: sample.rows[name] for name in problem.rows.columns}
    guessed = problem.rows.guess_columns(columns | {"other": list(range(len(sample)))})
    assert guessed == {name: name for name in problem.rows.columns}


def test_its_labels_can_be_told_from_its_outputs_names(problem: Problem, sample: Sample) -> None:
    names = problem.decoding.output_labels(sample.labels)
    assert list(problem.objective.labels_of(names)) == list(sample.labels)


def test_its_expectations_name_themselves_once(problem: Problem, sample: Sample) -> None:
    checks = problem.rows.expectations(ValidateParams(), sample.labels)
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.says and check.type.startswith("expect_") for check in checks)


def test_rows_become_outputs_and_outputs_become_predictions(
    problem: Problem, sample: Sample
) -> None:
    features, labels, count = encoded(problem, sample, 16), sample.labels, len(sample)
    references = problem.encoding.references(features)
    assert len(features["input_ids"]) == len(features["truncated"]) == len(references) == count
    outputs = predict_torch(fresh_model(problem, sample), problem.encoding, features, pad(sample))
    assert len(outputs) == count
    assert outputs.dtype == np.float32

    metrics = problem.scoring.metrics(outputs, references, labels)
    assert set(metrics) == set(problem.scoring.metric_signs)
    assert all(np.isfinite(value) for value in metrics.values())
    json.dumps(problem.scoring.details(outputs, references, labels), allow_nan=False)
    assert problem.scoring.agreement(outputs, outputs) == (1.0, 0.0)
    assert problem.scoring.correct(outputs, references).shape == (count,)
    calibration = problem.scoring.fit_calibration(outputs, references, labels, None)
    assert calibration.temperature > 0
    predictions = problem.decoding.decode(outputs, sample.rows, labels, calibration)
    assert len(predictions) == count
    json.dumps(predictions, allow_nan=False)
    for prediction in predictions:
        assert set(problem.decoding.predicted_labels(prediction)) <= set(labels)


def test_resampled_metrics_are_the_metrics_of_the_resamples(
    problem: Problem, sample: Sample
) -> None:
    features, count, scoring = encoded(problem, sample), len(sample), problem.scoring
    references = problem.encoding.references(features)
    outputs = predict_torch(fresh_model(problem, sample), problem.encoding, features, pad(sample))
    draw, clusters = np.random.default_rng(0), scoring.clusters(references)
    if clusters is None:
        weights = draw.multinomial(count, np.full(count, 1 / count), size=5)
    else:  # each at most once: `metrics` would take a repeated cluster for one larger cluster
        weights = draw.integers(0, 2, size=(5, int(clusters.max()) + 1))[:, clusters]
    draws = Draws(weights.astype(np.float64))
    resampled = scoring.resampled_metrics(outputs, references, sample.labels)(draws)
    for resample, weight in enumerate(weights):
        rows = np.repeat(np.arange(count), weight)
        expected = scoring.metrics(outputs[rows], references[rows], sample.labels)
        metrics = {name: values[resample] for name, values in resampled.items()}
        assert metrics == pytest.approx(expected, abs=1e-5)


def test_inputs_alone_can_be_encoded(problem: Problem, sample: Sample) -> None:
    assert "references" not in encoded(problem, sample, 16, problem.decoding.example())


def test_padding_never_changes_outputs(problem: Problem, sample: Sample) -> None:
    features, model = encoded(problem, sample), fresh_model(problem, sample)
    together = predict_torch(model, problem.encoding, features, pad(sample))
    alone = predict_torch(model, problem.encoding, features, pad(sample), batch_rows=1)
    assert largest_difference(together, alone) < 1e-4


def training_tensors(
    problem: Problem, sample: Sample
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(inputs, references) of a training batch."""
    batch, references = problem.encoding.training_batch(encoded(problem, sample, 16), pad(sample))
    inputs = {name: torch.from_numpy(values) for name, values in batch.items()}
    return inputs, torch.from_numpy(references)


def test_its_loss_falls_when_outputs_get_better(problem: Problem, sample: Sample) -> None:
    model = fresh_model(problem, sample)
    inputs, references = training_tensors(problem, sample)
    loss_function = next(iter(problem.objective.losses.values()))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(15):
        outputs = model(**inputs)[OUTPUT_NAME]
        loss = loss_function(outputs, references, label_smoothing=0.0, class_weights=None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_leaving_out_outputs_that_are_not_needed_changes_neither_loss_nor_gradients(
    problem: Problem, sample: Sample
) -> None:
    model = fresh_model(problem, sample).eval()
    inputs, references = training_tensors(problem, sample)
    loss_function = next(iter(problem.objective.losses.values()))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    results = []
    for context in (nullcontext(), problem.objective.skip_unused_outputs(model, references)):
        with context:
            outputs = model(**inputs)[OUTPUT_NAME]
        loss = loss_function(outputs, references, label_smoothing=0.1, class_weights=None)
        gradients = torch.autograd.grad(loss, trainable, allow_unused=True)
        filled = [torch.zeros(()) if gradient is None else gradient for gradient in gradients]
        results.append((loss.detach(), filled))
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-4)
    # outside the context, the model computes all outputs again
    assert model(**inputs)[OUTPUT_NAME].shape[:1] == next(iter(inputs.values())).shape[:1]


def test_its_behaviour_tests_can_be_judged(problem: Problem, sample: Sample) -> None:
    model = fresh_model(problem, sample)

    def outputs(rows: Any) -> Any:
        features = encoded(problem, sample, rows=rows)
        return predict_torch(model, problem.encoding, features, pad(sample))

    params = EvaluateParams()
    for test in problem.scoring.behaviour_tests(sample.rows, sample.labels, params, seed=0):
        against = None if test.against is None else outputs(test.against)
        passed = test.passes(outputs(test.rows), against)
        assert passed.dtype == bool
        assert len(passed) == len(next(iter(test.rows.values())))
