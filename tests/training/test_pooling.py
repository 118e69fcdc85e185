"""What a classifier's head reads: the pooled state, in torch, in checkpoints and in ONNX."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, body_dir
from safetensors.torch import load_file
from samples import SAMPLES
from test_matrix import tokens_of, train
from tiny import LABELS

from tasks.core.errors import ParamsError, SourceError
from tasks.core.progress import silent
from tasks.core.ragged import largest_difference
from tasks.encoding.encoder import OUTPUT_NAME
from tasks.encoding.token_files import TokensInfo, read_features
from tasks.export import export_candidates
from tasks.inference.session import OnnxModel
from tasks.params.schema import ExportParams
from tasks.problems import load_problem, problem_names
from tasks.training.methods.checkpoints import load_checkpoint
from tasks.training.networks.label_transfer import carry_over
from tasks.training.networks.pooling import KEY, Pooling, declared_pooling, pool
from tasks.training.networks.torch_outputs import predict_torch

OBJECTIVE = load_problem("text-classification").objective
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last")
# their heads read every token
UNPOOLED = ("chat", "masked-lm", "token-classification")
LENGTHS = (5, 1, 3)


def naive(states: np.ndarray, length: int, pooling: Pooling) -> np.ndarray:
    tokens = states[:length]
    rows = {"mean": tokens.mean(0), "cls": tokens[0], "last": tokens[-1]}
    return np.asarray(rows[pooling])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_is_never_read(pooling: Pooling) -> None:
    states = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * length + [0] * (5 - length) for length in LENGTHS])
    pooled = pool(states, mask, pooling).numpy()
    for row, length in enumerate(LENGTHS):
        wanted = naive(states[row].numpy(), length, pooling)
        np.testing.assert_allclose(pooled[row], wanted, rtol=1e-6)
    changed = torch.where(mask[..., None] == 1, states, torch.full_like(states, 7.0))
    assert torch.equal(pool(changed, mask, pooling), pool(states, mask, pooling))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_head_reads_the_bodys_states_in_every_architecture(
    architecture: str, pooling: Pooling, tmp_path: Path
) -> None:
    base = body_dir(architecture)
    model: Any = OBJECTIVE.load_model(base, LABELS, pooling=pooling).eval()
    batch = {
        "input_ids": torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    }
    with torch.no_grad():
        states = model.base_model(**batch)[0].numpy()
        outputs = model(**batch)[OUTPUT_NAME].numpy()
        for row, length in enumerate((4, 2)):
            vector = torch.from_numpy(naive(states[row], length, pooling))
            wanted = model.classifier(vector).numpy()
            np.testing.assert_allclose(outputs[row], wanted, rtol=1e-4, atol=1e-6)
    model.save_pretrained(tmp_path)
    again: Any = OBJECTIVE.load_model(tmp_path, LABELS).eval()
    with torch.no_grad():
        np.testing.assert_array_equal(again(**batch)[OUTPUT_NAME].numpy(), outputs)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "pooler" in name]


def test_a_missing_weight_of_the_checkpoint_is_an_error(tmp_path: Path, base_dir: Path) -> None:
    model: Any = OBJECTIVE.load_model(base_dir, LABELS, pooling="mean")
    weights = {k: v for k, v in model.state_dict().items() if k != "classifier.weight"}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(SourceError, match=r"classifier\.weight"):
        OBJECTIVE.load_model(tmp_path, LABELS)


def test_a_pooling_that_nobody_knows_is_not_taken_for_another(
    tmp_path: Path, base_dir: Path
) -> None:
    OBJECTIVE.load_model(base_dir, LABELS, pooling="mean").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"mean"', '"max"'))
    with pytest.raises(SourceError, match="'max'"):
        OBJECTIVE.load_model(tmp_path, LABELS)


def declare(base: Path, **modes: bool) -> Path:
    (base / "1_Pooling").mkdir(parents=True, exist_ok=True)
    names = {f"pooling_mode_{name}": value for name, value in modes.items()}
    (base / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 8} | names)
    )
    return base


def test_auto_is_what_the_base_model_declares(base_dir: Path, tmp_path: Path) -> None:
    assert declared_pooling(tmp_path) == "own"
    assert declared_pooling(declare(tmp_path, mean_tokens=True, cls_token=False)) == "mean"
    assert declared_pooling(declare(tmp_path, mean_tokens=False, cls_token=True)) == "cls"
    assert declared_pooling(declare(tmp_path, mean_tokens=False, lasttoken=True)) == "last"
    # a mixture, and what we do not compute, leave the architecture's own head
    assert declared_pooling(declare(tmp_path, mean_tokens=True, cls_token=True)) == "own"
    assert declared_pooling(declare(tmp_path, max_tokens=True)) == "own"
    base = Path(shutil.copytree(base_dir, tmp_path / "base"))
    plain = OBJECTIVE.load_model(base, LABELS, pooling="auto")
    assert type(plain).__name__ == "BertForSequenceClassification"
    declare(base, mean_tokens=True)
    assert getattr(OBJECTIVE.load_model(base, LABELS, pooling="auto").config, KEY) == "mean"
    assert getattr(OBJECTIVE.load_model(base, LABELS, pooling="cls").config, KEY) == "cls"
    assert not hasattr(OBJECTIVE.load_model(base, LABELS).config, KEY)
    (base / "1_Pooling" / "config.json").write_text("not JSON")
    with pytest.raises(SourceError, match="1_Pooling"):
        OBJECTIVE.load_model(base, LABELS, pooling="auto")


@pytest.mark.parametrize("problem", UNPOOLED)
def test_a_head_that_reads_every_token_has_no_choice(problem: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"finetune\.pooling"):
        train(problem, "full", tmp_path, pooling="mean")


def test_a_champion_of_another_pooling_is_another_architecture(
    base_dir: Path, tmp_path: Path
) -> None:
    OBJECTIVE.load_model(base_dir, LABELS, pooling="mean").save_pretrained(tmp_path)
    old = OBJECTIVE.load_model(tmp_path, LABELS)
    carried = carry_over(OBJECTIVE.load_model(base_dir, LABELS, pooling="mean"), old)
    assert carried.kept == LABELS
    with pytest.raises(ParamsError, match=KEY):
        carry_over(OBJECTIVE.load_model(base_dir, LABELS), old)


@pytest.mark.parametrize("problem", [name for name in problem_names() if name not in UNPOOLED])
def test_every_classifier_trains_exports_and_computes_the_same(
    problem: str, tmp_path: Path
) -> None:
    problem_type, sample = load_problem(problem), SAMPLES[problem]
    train(problem, "full", tmp_path, pooling="mean")
    tokens = tokens_of(problem)
    export_candidates(
        tokens,
        tmp_path / "checkpoint",
        tmp_path / "candidates",
        problem=problem,
        labels=sample.labels,
        export=ExportParams(recipes=("int8-static", "int8-dynamic"), calibration_rows=8),
        seed=7,
        report=silent,
    )
    features, pad = read_features(tokens / "test.arrow"), TokensInfo.read(tokens).pad_token_id
    model = load_checkpoint(problem_type.objective, tmp_path / "checkpoint", sample.labels)
    wanted = predict_torch(model, problem_type.encoding, features, pad)
    for recipe, limit in (("fp32", 1e-4), ("int8-static", 0.5), ("int8-dynamic", 0.5)):
        onnx = OnnxModel(tmp_path / "candidates" / recipe / "model.onnx", OUTPUT_NAME)
        outputs = onnx.outputs(features, problem_type.encoding, pad)
        assert largest_difference(wanted, outputs) < limit, recipe


def test_what_the_base_declares_is_read_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(base: Path) -> str:
        raise SourceError(f"{base}: damaged")

    monkeypatch.setattr("tasks.finetuning.declared_pooling", damaged)
    train("text-classification", "full", tmp_path / "own")
    with pytest.raises(SourceError, match="damaged"):
        train("text-classification", "full", tmp_path / "auto", pooling="auto")


@pytest.mark.parametrize("method", ["frozen", "lora", "prefix-tuning", "prompt-tuning", "adapter"])
def test_methods_that_add_weights_work_with_it(method: Any, tmp_path: Path) -> None:
    train("text-classification", method, tmp_path, pooling="mean", head_start="solved")
    sample = SAMPLES["text-classification"]
    model = load_checkpoint(OBJECTIVE, tmp_path / "checkpoint", sample.labels)
    assert getattr(model.config, KEY) == "mean"
