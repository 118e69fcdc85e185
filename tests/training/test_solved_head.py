"""The solved head against scikit-learn's own pipeline, and the training that starts from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from architectures import body_dir
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_matrix import Killed, killed_after_two_steps, train
from tiny import LABELS, tiny_rows

from tasks.core.errors import ParamsError
from tasks.core.files import read_json, sha256_file
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import load_tokenizer
from tasks.params.finetuning import FinetuneParams
from tasks.problems import load_problem
from tasks.training import logistic
from tasks.training.inputs import TrainingInputs
from tasks.training.logistic import solve_classes, solve_labels
from tasks.training.networks.torch_outputs import predict_torch
from tasks.training.solved_head import head_inputs_as_outputs, output_layer, solve_head

PROBLEM = load_problem("text-classification")


def made(rows: int, classes: int, width: int = 6) -> tuple[Any, Any]:
    """Vectors around a centre for each class, of unlike scales."""
    draw = np.random.default_rng(3)
    labels = np.arange(rows) % classes
    vectors = draw.normal(size=(classes, width))[labels] * 2 + draw.normal(size=(rows, width))
    scales = np.geomspace(0.01, 100, width)
    return (vectors * scales + 5).astype(np.float32), labels


def softmax(logits: Any) -> Any:
    grown = np.exp(logits - logits.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_what_scikit_learn_computes_at_the_strength_that_was_chosen(
    classes: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "STRENGTHS", (0.1,))
    vectors, labels = made(140, classes)
    weights = np.linspace(1, 3, classes).astype(np.float32) if weighted else None
    solved, biases = solve_classes(vectors, labels, classes, weights, 0)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    each = None if weights is None else weights[labels]
    pipeline.fit(vectors, labels, logisticregression__sample_weight=each)
    ours = softmax(vectors @ solved.T + biases)
    np.testing.assert_allclose(ours, pipeline.predict_proba(vectors), atol=0.01)


def test_labels_are_regressions_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "STRENGTHS", (0.1,))
    vectors, labels = made(120, 3)
    references = np.stack([labels == 0, labels > 0, np.zeros(120), np.ones(120)], 1).astype(float)
    solved, biases = solve_labels(vectors, references, 4, None, 0)
    ours = 1 / (1 + np.exp(-(vectors @ solved.T + biases)))
    for label in (0, 1):
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        wanted = pipeline.fit(vectors, references[:, label]).predict_proba(vectors)[:, 1]
        np.testing.assert_allclose(ours[:, label], wanted, atol=0.01)
    # a label that no row has, and one that every row has
    assert ours[:, 2].max() < 0.05
    assert ours[:, 3].min() > 0.95


def test_the_strength_that_predicts_unseen_rows_best_is_chosen() -> None:
    """Of noise alone little is learnt; of separate classes much."""
    draw = np.random.default_rng(0)
    labels = np.arange(300) % 3
    noise = draw.normal(size=(300, 40)).astype(np.float32)
    clear = noise + 4 * np.eye(40, dtype=np.float32)[labels]
    weak, strong = (solve_classes(vectors, labels, 3, None, 0)[0] for vectors in (noise, clear))
    assert np.abs(weak).max() < np.abs(strong).max() / 3


def test_a_class_without_rows_is_never_predicted_and_few_rows_are_enough() -> None:
    vectors, labels = made(12, 3)
    solved, biases = solve_classes(vectors, labels * 2, 6, None, 0)  # 1, 3 and 5 have no rows
    logits = vectors @ solved.T + biases
    assert set(logits.argmax(1)) <= {0, 2, 4}
    assert np.isfinite(logits).all()
    one, bias = solve_classes(vectors[:3], np.zeros(3, np.int64), 2, None, 0)
    assert (vectors[:3] @ one.T + bias).argmax(1).tolist() == [0, 0, 0]


def test_the_scale_of_a_feature_changes_nothing() -> None:
    vectors, labels = made(90, 3)
    scaled = (vectors * np.array([1, 10, 0.1, 3, 7, 0.5], np.float32)).astype(np.float32)
    first, second = (solve_classes(x, labels, 3, None, 0) for x in (vectors, scaled))
    ours = softmax(vectors @ first[0].T + first[1])
    np.testing.assert_allclose(softmax(scaled @ second[0].T + second[1]), ours, atol=0.02)


@pytest.mark.parametrize("pooling", ["own", "mean"])
def test_the_models_outputs_are_the_regressions(
    base_dir: Path, pooling: str, tmp_path: Path
) -> None:
    model = PROBLEM.objective.load_model(base_dir, LABELS, 0.1, pooling)
    rows = tiny_rows(60)
    features = encode_rows(PROBLEM.encoding, load_tokenizer(base_dir, 32), rows, LABELS)
    table = pa.table({"row": range(60), **features})
    parts = PROBLEM.objective, PROBLEM.encoding, PROBLEM.scoring
    params = FinetuneParams(head_start="solved")
    solve_head(
        model, TrainingInputs(*parts, LABELS, table, features, 0, params, None, 0, "cpu", tmp_path)
    )
    with head_inputs_as_outputs(model, output_layer(model)):
        vectors = predict_torch(model, PROBLEM.encoding, features, 0)
    assert PROBLEM.objective.solve_head is not None
    wanted = PROBLEM.objective.solve_head(
        vectors, PROBLEM.encoding.references(features), len(LABELS), None, 0
    )
    layer = output_layer(model)
    np.testing.assert_allclose(layer.weight.detach().numpy(), wanted[0], rtol=1e-5)
    np.testing.assert_allclose(layer.bias.detach().numpy(), wanted[1], rtol=1e-5)
    assert layer.weight.device == torch.device("cpu")
    ones = torch.ones(2, 3, dtype=torch.int64)
    assert model(input_ids=ones, attention_mask=ones).logits.shape == (2, len(LABELS))


def weights_of(run: Path) -> str:
    return sha256_file(run / "checkpoint" / "model.safetensors")


@pytest.mark.parametrize(
    "problem", ["text-classification", "text-pair", "multi-label-classification"]
)
def test_a_frozen_body_takes_no_steps_and_the_same_rows_give_the_same_head(
    problem: str, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"freeze_layers": "all", "pooling": "mean", "head_start": "solved"}
    for name in ("one", "again"):
        train(problem, "frozen", tmp_path / name, **values)
    facts = read_json(tmp_path / "one" / "training.json")
    assert (facts["steps"], facts["total_steps"], facts["best_step"]) == (0, 0, 0)
    assert len(facts["evaluations"]) == 1
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "again")


def test_a_training_that_starts_from_it_resumes_like_one_that_was_not_killed(
    tmp_path: Path,
) -> None:
    values: dict[str, Any] = {"pooling": "mean", "head_start": "solved"}
    train("text-classification", "full", tmp_path / "whole", **values)
    with pytest.raises(Killed):
        train("text-classification", "full", tmp_path / "killed", killed_after_two_steps, **values)
    train("text-classification", "full", tmp_path / "killed", **values)
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "problem", ["chat", "masked-lm", "token-classification", "text-pair-score"]
)
def test_a_head_without_classes_cannot_be_solved(problem: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"finetune\.head_start"):
        train(problem, "full", tmp_path, head_start="solved")


def test_a_head_without_biases_cannot_be_solved_but_a_pooled_one_can() -> None:
    own = PROBLEM.objective.load_model(body_dir("gpt2"), LABELS)
    with pytest.raises(ParamsError, match="GPT2ForSequenceClassification"):
        output_layer(own)
    pooled = PROBLEM.objective.load_model(body_dir("gpt2"), LABELS, pooling="last")
    assert output_layer(pooled).bias is not None


def test_nothing_but_the_head_is_trained_where_the_params_say_so() -> None:
    for values, wanted in (
        ({"method": "frozen"}, True),
        ({"method": "frozen", "freeze_embeddings": True}, False),
        ({"method": "full", "freeze_layers": "all"}, True),
        ({"method": "full"}, False),
        ({"method": "lora"}, False),
    ):
        assert FinetuneParams.model_validate(values).head_only is wanted, values
