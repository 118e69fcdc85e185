from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import MAX_LENGTH, PROBLEM, Exported
from tiny import LABELS, tiny_rows

import tasks.export as export_module
from tasks.core.errors import ExportError, ParamsError, ParityError
from tasks.core.progress import silent
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import load_tokenizer, read_features
from tasks.export import export_candidates
from tasks.inference.session import OnnxModel
from tasks.params.schema import ExportParams
from tasks.problems import Problem, load_problem
from tasks.training.networks.torch_outputs import predict_torch

PAD = 0
RECIPES = load_problem(PROBLEM).defaults.recipes


@pytest.fixture(scope="module")
def problem() -> Problem:
    return load_problem(PROBLEM)


@pytest.fixture(scope="module")
def validation(exported: Exported) -> dict[str, list]:
    return read_features(exported.tokens / "validation.arrow")


def outputs_of(problem: Problem, checkpoint: Path, features: dict[str, list]) -> np.ndarray:
    model = problem.objective.load_model(checkpoint, LABELS)
    return predict_torch(model, problem.encoding, features, PAD)


@pytest.fixture(scope="module")
def torch_outputs(exported: Exported, problem: Problem, validation: dict[str, list]) -> np.ndarray:
    return outputs_of(problem, exported.checkpoint, validation)


def candidate(exported: Exported, recipe: str) -> OnnxModel:
    return OnnxModel(exported.candidates / recipe / "model.onnx", "logits")


def run_export(
    exported: Exported, candidates: Path, recipes: tuple[str, ...], checkpoint: Path | None = None
) -> list[dict]:
    """Export; return the entries of `export.json`."""
    export_candidates(
        exported.tokens,
        checkpoint or exported.checkpoint,
        candidates,
        problem=PROBLEM,
        labels=LABELS,
        export=ExportParams(recipes=recipes, calibration_rows=16),
        seed=0,
        report=silent,
    )
    return json.loads((candidates / "export.json").read_text())["recipes"]


def test_every_recipe_is_built_and_written_down(exported: Exported) -> None:
    candidates = exported.candidates
    entries = json.loads((candidates / "export.json").read_text())["recipes"]
    assert [entry["recipe"] for entry in entries] == ["fp32", *RECIPES]
    assert [entry["failure"] for entry in entries] == [""] * len(entries)
    names = sorted(file.name for file in candidates.iterdir())
    assert names == sorted(["export.json", "fp32", *RECIPES])
    for entry in entries:
        model = candidates / entry["recipe"] / "model.onnx"
        assert entry["bytes"] == model.stat().st_size


@pytest.mark.parametrize("rows", [1, 2, 7, 33])
@pytest.mark.parametrize("length", [2, 9, MAX_LENGTH])
def test_fp32_computes_what_torch_computes_at_every_shape(
    exported: Exported, problem: Problem, rows: int, length: int
) -> None:
    draw = np.random.default_rng(rows * length)
    sizes = [*draw.integers(1, length + 1, size=rows - 1), length]
    features = {"input_ids": [draw.integers(5, 90, size=size).tolist() for size in sizes]}
    expected = outputs_of(problem, exported.checkpoint, features)
    outputs = candidate(exported, "fp32").run(problem.encoding.collate(features, PAD))
    np.testing.assert_allclose(outputs, expected, atol=1e-4)


@pytest.mark.parametrize("recipe", ["fp32", "int8-static", "int8-static-sensitive-fp32"])
def test_padding_never_changes_logits(exported: Exported, problem: Problem, recipe: str) -> None:
    model = candidate(exported, recipe)
    batch = problem.encoding.collate({"input_ids": [[2, 20, 30, 3], [2, 40, 3]]}, PAD)
    padded = {name: np.pad(values, ((0, 0), (0, 20))) for name, values in batch.items()}
    np.testing.assert_allclose(model.run(padded), model.run(batch), atol=1e-4)


@pytest.mark.parametrize("recipe", RECIPES)
def test_int8_agrees_with_torch_on_99_percent_of_rows(
    exported: Exported,
    problem: Problem,
    validation: dict[str, list],
    torch_outputs: np.ndarray,
    recipe: str,
) -> None:
    right = torch_outputs.argmax(-1) == problem.encoding.references(validation)
    assert right.mean() > 0.9, "an untrained model would agree by chance"
    outputs = candidate(exported, recipe).outputs(validation, problem.encoding, PAD)
    agreement, _ = problem.scoring.agreement(outputs, torch_outputs)
    assert agreement >= 0.99


@pytest.mark.parametrize("recipe", RECIPES)
def test_int8_graphs_hold_their_weights_in_int8(exported: Exported, recipe: str) -> None:
    weights = onnx.load(exported.candidates / recipe / "model.onnx").graph.initializer
    floats = [weight for weight in weights if weight.data_type == onnx.TensorProto.FLOAT]
    large = [weight.name for weight in floats if np.prod(weight.dims) >= 4096]
    assert not large or "sensitive" in recipe
    int8 = [weight for weight in weights if weight.data_type == onnx.TensorProto.INT8]
    assert any(list(weight.dims) == [200, 32] for weight in int8), "embeddings"


def test_static_is_in_qdq_form_with_fixed_ranges(exported: Exported) -> None:
    graph = onnx.load(exported.candidates / "int8-static" / "model.onnx").graph
    operators = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert "DynamicQuantizeLinear" not in operators


def test_sensitive_products_stay_fp32(exported: Exported) -> None:
    def quantized(recipe: str) -> int:
        nodes = onnx.load(exported.candidates / recipe / "model.onnx").graph.node
        return sum(node.op_type == "MatMul" and node.input[1].endswith("_weight") for node in nodes)

    assert 0 < quantized("int8-static-sensitive-fp32") < quantized("int8-static")


def test_the_same_seed_writes_the_same_graph(exported: Exported, tmp_path: Path) -> None:
    first, second = (run_export(exported, tmp_path / name, ("int8-static",)) for name in ("a", "b"))
    assert [entry["bytes"] for entry in first] == [entry["bytes"] for entry in second]
    for recipe in ("fp32", "int8-static"):
        a, b = (onnx.load(tmp_path / name / recipe / "model.onnx") for name in ("a", "b"))
        assert a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)


def test_unknown_recipes_are_all_named_with_a_guess(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"'int8-statik'.*Did you mean 'int8-static'.*'magic'"):
        run_export(exported, tmp_path / "candidates", ("int8-statik", "int8-dynamic", "magic"))
    assert not (tmp_path / "candidates").exists()


def test_a_recipe_that_fails_is_reported_and_stops_nothing(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(material: object, target: Path) -> None:
        raise RuntimeError("no kernel for this\nand a long trace")

    monkeypatch.setitem(export_module.RECIPES, "int8-dynamic", fail)
    entries = run_export(exported, tmp_path / "candidates", ("int8-dynamic", "int8-static"))
    failures = {entry["recipe"]: entry["failure"] for entry in entries}
    assert failures["int8-dynamic"] == "RuntimeError: no kernel for this"
    assert failures["int8-static"] == ""
    assert not (tmp_path / "candidates" / "int8-dynamic" / "model.onnx").exists()


def test_fp32_that_cannot_be_built_stops_the_stage(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(material: object, target: Path) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(export_module, "_fp32", fail)
    with pytest.raises(ExportError, match="no such operator"):
        run_export(exported, tmp_path / "candidates", ())


def test_a_graph_that_computes_something_else_is_refused(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturb(material: export_module.Material, target: Path) -> None:
        model = material.fused
        weights = model.graph.initializer
        bias = next(weight for weight in weights if weight.name.endswith("classifier.bias"))
        changed = onnx.numpy_helper.to_array(bias) + 0.01
        bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
        target.parent.mkdir(parents=True)
        onnx.save(model, target)

    monkeypatch.setattr(export_module, "_fp32", disturb)
    with pytest.raises(ParityError, match=r"differs from the checkpoint by 0\.01"):
        run_export(exported, tmp_path / "candidates", ())


@pytest.mark.parametrize("architecture", ["distilbert", "roberta", "albert"])
def test_other_architectures_export_too(
    exported: Exported, tmp_path: Path, problem: Problem, architecture: str
) -> None:
    checkpoint, candidates = tmp_path / "checkpoint", tmp_path / "candidates"
    make_other(architecture, checkpoint)
    recipes = ("int8-static", "int8-dynamic-per-channel")
    entries = run_export(exported, candidates, recipes, checkpoint)
    assert [entry["failure"] for entry in entries] == ["", "", ""]
    features = read_features(exported.tokens / "validation.arrow")
    expected = outputs_of(problem, checkpoint, features)
    for recipe in ("fp32", *recipes):
        model = OnnxModel(candidates / recipe / "model.onnx", "logits")
        outputs = model.outputs(features, problem.encoding, PAD)
        np.testing.assert_allclose(outputs, expected, atol=0.05)


def make_other(architecture: str, directory: Path) -> None:
    import torch
    from transformers import (
        AlbertConfig,
        AutoModelForSequenceClassification,
        DistilBertConfig,
        RobertaConfig,
    )

    torch.manual_seed(0)
    common = {"vocab_size": 200, "max_position_embeddings": 80, "num_labels": len(LABELS)}
    distilbert_sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, **common}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **common}
    sizes["intermediate_size"] = 64
    config = {
        "distilbert": lambda: DistilBertConfig(**distilbert_sizes),
        "roberta": lambda: RobertaConfig(pad_token_id=PAD, **sizes),
        "albert": lambda: AlbertConfig(embedding_size=16, **sizes),
    }[architecture]()
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    model.save_pretrained(directory)


def test_tokens_of_real_rows_reach_every_candidate(exported: Exported, problem: Problem) -> None:
    tokenizer = load_tokenizer(exported.tokens / "tokenizer", MAX_LENGTH)
    rows = {"text": tiny_rows(5, seed=9)["text"]}
    features = encode_rows(problem.encoding, tokenizer, rows, LABELS)
    for recipe in ("fp32", *RECIPES):
        outputs = candidate(exported, recipe).outputs(features, problem.encoding, PAD)
        assert outputs.shape == (5, len(LABELS))


def test_nothing_is_printed(
    exported: Exported, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_export(exported, tmp_path / "candidates", tuple(RECIPES))
    assert capfd.readouterr() == ("", "")
