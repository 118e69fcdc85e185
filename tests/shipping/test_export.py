from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
def validation(exported: Exported) -> dict[str, list[Any]]:
    return read_features(exported.tokens / "validation.arrow")


@pytest.fixture(scope="module")
def torch_outputs(
    exported: Exported, problem: Problem, validation: dict[str, list[Any]]
) -> np.ndarray:
    return predict_torch(
        problem.objective.load_model(exported.checkpoint, LABELS), problem.encoding, validation, PAD
    )


def candidate(exported: Exported, recipe: str) -> OnnxModel:
    return OnnxModel(exported.candidates / recipe / "model.onnx", "logits")


def run_export(
    exported: Exported, candidates: Path, recipes: tuple[str, ...], checkpoint: Path | None = None
) -> list[dict[str, Any]]:
    export_candidates(
        exported.tokens, checkpoint or exported.checkpoint, candidates,
        problem=PROBLEM, labels=LABELS,
        export=ExportParams(recipes=recipes, calibration_rows=16), seed=0, report=silent,
    )  # fmt: skip
    written: list[dict[str, Any]] = json.loads((candidates / "export.json").read_text())["recipes"]
    return written


def test_every_recipe_is_built_and_written_down(exported: Exported) -> None:
    written = json.loads((exported.candidates / "export.json").read_text())["recipes"]
    assert [entry["recipe"] for entry in written] == ["fp32", *RECIPES]
    assert [entry["failure"] for entry in written] == [""] * len(written)
    assert sorted(file.name for file in exported.candidates.iterdir()) == sorted(
        ["export.json", "fp32", *RECIPES]
    )
    for entry in written:
        assert (
            entry["bytes"] == (exported.candidates / entry["recipe"] / "model.onnx").stat().st_size
        )


@pytest.mark.parametrize("rows", [1, 2, 7, 33])
@pytest.mark.parametrize("length", [2, 9, MAX_LENGTH])
def test_fp32_computes_what_torch_computes_at_every_shape(
    exported: Exported, problem: Problem, rows: int, length: int
) -> None:
    draw = np.random.default_rng(rows * length)
    features = {
        "input_ids": [
            draw.integers(5, 90, size=draw.integers(1, length + 1)).tolist() for _ in range(rows)
        ]
    }
    features["input_ids"][0] = draw.integers(5, 90, size=length).tolist()
    wanted = predict_torch(
        problem.objective.load_model(exported.checkpoint, LABELS), problem.encoding, features, PAD
    )
    found = candidate(exported, "fp32").run(problem.encoding.collate(features, PAD))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


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
    validation: dict[str, list[Any]],
    torch_outputs: np.ndarray,
    recipe: str,
) -> None:
    outputs = candidate(exported, recipe).outputs(validation, problem.encoding, PAD)
    agreement, _ = problem.scoring.agreement(outputs, torch_outputs)
    assert (torch_outputs.argmax(-1) == problem.encoding.references(validation)).mean() > 0.9, (
        "an untrained model would agree by chance"
    )
    assert agreement >= 0.99


@pytest.mark.parametrize("recipe", RECIPES)
def test_int8_graphs_hold_their_weights_in_int8(exported: Exported, recipe: str) -> None:
    graph = onnx.load(exported.candidates / recipe / "model.onnx").graph
    floats = {
        tensor.name: int(np.prod(tensor.dims))
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    wide = [name for name, size in floats.items() if size >= 4096]
    assert not wide or "sensitive" in recipe
    assert any(
        tensor.data_type == onnx.TensorProto.INT8 and list(tensor.dims) == [200, 32]
        for tensor in graph.initializer
    ), "embeddings"


def test_static_is_in_qdq_form_with_fixed_ranges(exported: Exported) -> None:
    operators = {
        node.op_type
        for node in onnx.load(exported.candidates / "int8-static" / "model.onnx").graph.node
    }
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
    found = {
        entry["recipe"]: entry
        for entry in run_export(exported, tmp_path / "candidates", ("int8-dynamic", "int8-static"))
    }
    assert found["int8-dynamic"]["failure"] == "RuntimeError: no kernel for this"
    assert found["int8-static"]["failure"] == ""
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
        bias = next(
            tensor for tensor in model.graph.initializer if tensor.name.endswith("classifier.bias")
        )
        bias.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.01, bias.name)
        )
        target.parent.mkdir(parents=True)
        onnx.save(model, target)

    monkeypatch.setattr(export_module, "_fp32", disturb)
    with pytest.raises(ParityError, match=r"differs from the checkpoint by 0\.01"):
        run_export(exported, tmp_path / "candidates", ())


@pytest.mark.parametrize("architecture", ["distilbert", "roberta", "albert"])
def test_other_architectures_export_too(
    exported: Exported, tmp_path: Path, problem: Problem, architecture: str
) -> None:
    checkpoint = tmp_path / "checkpoint"
    make_other(architecture, checkpoint)
    written = run_export(
        exported, tmp_path / "candidates", ("int8-static", "int8-dynamic-per-channel"), checkpoint
    )
    assert [entry["failure"] for entry in written] == ["", "", ""]
    features = read_features(exported.tokens / "validation.arrow")
    wanted = predict_torch(
        problem.objective.load_model(checkpoint, LABELS), problem.encoding, features, PAD
    )
    for entry in written:
        model = OnnxModel(tmp_path / "candidates" / entry["recipe"] / "model.onnx", "logits")
        np.testing.assert_allclose(
            model.outputs(features, problem.encoding, PAD), wanted, atol=0.05
        )


def make_other(architecture: str, directory: Path) -> None:
    import torch
    from transformers import (
        AlbertConfig,
        AutoModelForSequenceClassification,
        DistilBertConfig,
        RobertaConfig,
    )

    torch.manual_seed(0)
    size: dict[str, Any] = {
        "vocab_size": 200,
        "max_position_embeddings": 80,
        "num_labels": len(LABELS),
    }
    configs: dict[str, Callable[[], Any]] = {
        "distilbert": lambda: DistilBertConfig(
            dim=32, n_layers=2, n_heads=4, hidden_dim=64, **size
        ),
        "roberta": lambda: RobertaConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            pad_token_id=PAD,
            **size,
        ),
        "albert": lambda: AlbertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            embedding_size=16,
            **size,
        ),
    }
    AutoModelForSequenceClassification.from_config(
        configs[architecture](), attn_implementation="eager"
    ).save_pretrained(directory)


def test_tokens_of_real_rows_reach_every_candidate(exported: Exported, problem: Problem) -> None:
    tokenizer = load_tokenizer(exported.tokens / "tokenizer", MAX_LENGTH)
    features = encode_rows(
        problem.encoding, tokenizer, {"text": tiny_rows(5, seed=9)["text"]}, LABELS
    )
    for recipe in ("fp32", *RECIPES):
        assert candidate(exported, recipe).outputs(features, problem.encoding, PAD).shape == (
            5,
            len(LABELS),
        )


def test_nothing_is_printed(
    exported: Exported, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_export(exported, tmp_path / "candidates", tuple(RECIPES))
    assert capfd.readouterr() == ("", "")
