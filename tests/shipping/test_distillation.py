"""Distillation: a student with fewer layers and 4-bit embeddings learns from a fine-tuned model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
import torch
from exported import PROBLEM, Exported
from samples import SAMPLES
from tiny import LABELS

from tasks.core.progress import silent
from tasks.core.seeds import seed_everything
from tasks.encoding.encoder import OUTPUT_NAME, encode_rows
from tasks.encoding.token_files import load_tokenizer, read_features
from tasks.export import export_candidates
from tasks.inference.session import OnnxModel
from tasks.params.schema import ExportParams
from tasks.problems import load_problem
from tasks.shipping.distillation import distill, make_student
from tasks.shipping.graphs.embeddings import quantize_embeddings, round_rows
from tasks.shipping.graphs.encoder import trace_model
from tasks.training.methods.checkpoints import ADDITIONS
from tasks.training.networks.torch_outputs import predict_torch

PAD = 0
RECIPE = "int8-static-distilled"


@pytest.mark.parametrize("name", ["text-classification", "token-classification", "text-pair-score"])
def test_a_student_comes_nearer_to_its_teacher_the_same_way_each_time(name: str) -> None:
    problem, sample = load_problem(name), SAMPLES[name]
    seed_everything(0)
    teacher = problem.objective.load_model(sample.base_dir(), sample.labels).eval()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    tokenizer, encoding = load_tokenizer(sample.base_dir(), 32), problem.encoding
    features = encode_rows(encoding, tokenizer, sample.rows, sample.labels)
    rows, expected = pa.table(features), predict_torch(teacher, encoding, features, PAD)

    def distance(student: Any) -> float:
        outputs = predict_torch(student, encoding, features, PAD)
        return float(np.nanmean(np.square(outputs - expected)))

    students = []
    for _ in range(2):
        student = make_student(teacher, 1)
        untrained = distance(student)
        distill(student, teacher, encoding, rows, PAD, epochs=20, seed=0, report=silent)
        assert distance(student) < untrained / 2
        students.append(student.state_dict())
    assert all(torch.equal(weights, students[1][key]) for key, weights in students[0].items())
    assert all(torch.equal(weights, before[key]) for key, weights in teacher.state_dict().items())
    assert len(students[0]) < len(before)  # the student has fewer layers


def test_the_students_embeddings_are_what_4_bits_hold(exported: Exported) -> None:
    problem = load_problem(PROBLEM)
    student = make_student(problem.objective.load_model(exported.checkpoint, LABELS), 1).eval()
    embeddings = student.get_input_embeddings().weight
    assert not embeddings.requires_grad
    table = embeddings.detach().numpy()
    np.testing.assert_allclose(round_rows(table), table, atol=1e-6)
    features = read_features(exported.tokens / "validation.arrow")
    expected = predict_torch(student, problem.encoding, features, PAD)

    def batch(start: int, end: int) -> Any:
        rows = {name: values[start:end] for name, values in features.items()}
        return problem.encoding.collate(rows, PAD)

    graph = trace_model(student, batch(0, 2), OUTPUT_NAME, 17)
    graph.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    quantize_embeddings(graph, bits=4)
    assert "GatherBlockQuantized" in {node.op_type for node in graph.graph.node}
    model = graph.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for row in range(8):
        outputs = session.run(None, batch(row, row + 1))[0]
        np.testing.assert_allclose(outputs[0], expected[row], atol=1e-4)


def test_4_bits_are_off_by_half_a_step_at_most_and_rounding_twice_changes_nothing() -> None:
    table = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    table[7] = 0
    rounded = round_rows(table)
    steps = np.abs(table.reshape(300, -1, 32)).max(-1) / 7
    assert (np.abs(rounded - table).reshape(300, -1, 32).max(-1) <= steps / 2 + 1e-6).all()
    np.testing.assert_allclose(round_rows(rounded), rounded, atol=1e-6)
    narrow = table[:, :48]  # one and a half blocks
    assert np.array_equal(round_rows(narrow), narrow)


def export_distilled(
    exported: Exported, candidates: Path, checkpoint: Path, **params: Any
) -> dict[str, Any]:
    """The entry of the distilled recipe in `export.json`."""
    export = ExportParams(recipes=("int8-static", RECIPE), calibration_rows=16, **params)
    export_candidates(
        exported.tokens,
        checkpoint,
        candidates,
        problem=PROBLEM,
        labels=LABELS,
        export=export,
        seed=0,
        report=silent,
    )
    entries = json.loads((candidates / "export.json").read_text())["recipes"]
    return next(entry for entry in entries if entry["recipe"] == RECIPE)


def test_the_recipe_makes_a_smaller_graph_that_answers(exported: Exported, tmp_path: Path) -> None:
    entry = export_distilled(exported, tmp_path, exported.checkpoint, distillation_epochs=2)
    assert entry["failure"] == ""
    assert entry["training_seconds"] > 0
    assert entry["bytes"] < (tmp_path / "int8-static" / "model.onnx").stat().st_size
    problem, features = load_problem(PROBLEM), read_features(exported.tokens / "validation.arrow")
    model = OnnxModel(tmp_path / RECIPE / "model.onnx", OUTPUT_NAME)
    outputs = model.outputs(features, problem.encoding, PAD)
    assert outputs.shape == (len(features["input_ids"]), len(LABELS))
    assert np.isfinite(outputs).all()


def test_what_cannot_be_distilled_fails_alone_and_says_why(
    exported: Exported, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    original, layers = exported.checkpoint, tmp_path / "layers"
    too_many = export_distilled(exported, layers, original, distilled_layers=9)
    assert "export.distilled_layers: 9 layers" in too_many["failure"]
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for file in original.iterdir():
        if file.is_file():
            (checkpoint / file.name).write_bytes(file.read_bytes())
    width = load_problem(PROBLEM).objective.load_model(original, LABELS).config.hidden_size
    save_file({"virtual_tokens.0": torch.zeros(2, width)}, checkpoint / ADDITIONS)
    with_additions = export_distilled(exported, tmp_path / "additions", checkpoint)
    assert "finetune.method adds" in with_additions["failure"]
