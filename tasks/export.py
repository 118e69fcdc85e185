"""Export the checkpoint to ONNX graphs, one per recipe; verification decides which one ships."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.errors import ExportError, ParamsError, ParityError, did_you_mean
from tasks.core.files import atomic_path, write_json
from tasks.core.progress import Report
from tasks.core.ragged import largest_difference
from tasks.encoding.encoder import OUTPUT_NAME
from tasks.encoding.token_files import TokensInfo, read_tokens, take, token_lengths
from tasks.inference.session import OnnxModel
from tasks.params.schema import ExportParams
from tasks.problems import Problem, load_problem
from tasks.shipping.graphs.block_weights import quantize_weights
from tasks.shipping.graphs.decoder import trace_causal
from tasks.shipping.graphs.encoder import fuse_graph, trace_model
from tasks.shipping.graphs.int8 import (
    calibrate,
    plan_inputs,
    quantize_dynamic,
    quantize_static,
    sensitive_products,
)
from tasks.training.methods.checkpoints import ADDITIONS, load_checkpoint
from tasks.training.networks.architecture import layer_stack

if TYPE_CHECKING:
    import onnx
    from transformers import PretrainedConfig, PreTrainedModel

    from tasks.core.arrays import Features
    from tasks.shipping.graphs.int8 import Activation, QuantizedInput

FP32 = "fp32"
MODEL = "model.onnx"
PARITY = 1e-4  # largest allowed difference of an output between fp32 ONNX and PyTorch
PARITY_ROWS = 32
# share of the matrix products, largest error first, that int8-static-sensitive-fp32 keeps in fp32
SENSITIVE_SHARE = 0.1


@dataclass(frozen=True)
class Material:
    """Input of all recipes; each graph is built once, when a recipe first needs it.

    distil  trains a student with fewer layers; returns the student's Material and the seconds spent
    """

    traced: onnx.ModelProto
    config: PretrainedConfig
    batches: Sequence[dict[str, Any]]
    seed: int
    distil: Callable[[], tuple[Material, float]] | None = None

    @cached_property
    def fused(self) -> onnx.ModelProto:
        """Graph with each attention block as one operator, its matrix products inside."""
        return fuse_graph(self.traced, self.config, split_heads=False)

    @cached_property
    def split(self) -> onnx.ModelProto:
        """Graph with attention's matrix products outside, where each can be quantized."""
        return fuse_graph(self.traced, self.config, split_heads=True)

    @cached_property
    def activations(self) -> dict[str, Activation]:
        """Activation ranges from the calibration batches."""
        return calibrate(self.split, self.batches, self.seed)

    @cached_property
    def plan(self) -> dict[str, QuantizedInput]:
        """How the input of each matrix product is quantized."""
        return plan_inputs(self.split, self.activations)


def _fp32(material: Material, target: Path) -> None:
    import onnx

    with atomic_path(target) as new:
        onnx.save(material.fused, new)


def _int8_dynamic(material: Material, target: Path) -> None:
    quantize_dynamic(material.fused, target, per_channel=False)


def _int8_dynamic_per_channel(material: Material, target: Path) -> None:
    quantize_dynamic(material.fused, target, per_channel=True)


def _int8_static(material: Material, target: Path) -> None:
    quantize_static(material.split, target, material.plan)


def _int8_static_sensitive_fp32(material: Material, target: Path) -> None:
    keep = sensitive_products(material.split, material.activations, material.plan, SENSITIVE_SHARE)
    quantize_static(material.split, target, material.plan, keep)


def _int8_static_distilled(material: Material, target: Path) -> float:
    assert material.distil is not None
    student, seconds = material.distil()
    quantize_static(student.split, target, student.plan, embedding_bits=4)
    return seconds


def _int8_weights(material: Material, target: Path) -> None:
    quantize_weights(material.fused, target, bits=8)


def _int4_weights(material: Material, target: Path) -> None:
    quantize_weights(material.fused, target, bits=4)


# each writes its graph and returns the seconds it spent on training, if any
RECIPES: dict[str, Callable[[Material, Path], float | None]] = {
    "int8-dynamic": _int8_dynamic,
    "int8-dynamic-per-channel": _int8_dynamic_per_channel,
    "int8-static": _int8_static,
    "int8-static-sensitive-fp32": _int8_static_sensitive_fp32,
    "int8-static-distilled": _int8_static_distilled,
    "int8-weights": _int8_weights,
    "int4-weights": _int4_weights,
}


def export_candidates(
    tokens: Path,
    checkpoint: Path,
    candidates: Path,
    *,
    problem: str,
    labels: tuple[str, ...],
    export: ExportParams,
    seed: int,
    report: Report,
) -> None:
    """Write candidates/RECIPE/model.onnx for fp32 and each requested recipe, and export.json.

    candidates/export.json: {"opset", "recipes": [{"recipe", "bytes", "seconds",
    "training_seconds", "failure"}]}; a recipe that cannot be built stops nothing, its `failure`
    holds the reason.
    Raises ParamsError for an unknown recipe, ExportError if fp32 cannot be built, ParityError if
    fp32 ONNX and PyTorch compute different outputs.
    """
    problem_type = load_problem(problem)
    recipes = check_recipes(
        problem_type.defaults.recipes if export.recipes is None else export.recipes
    )
    pad = TokensInfo.read(tokens).pad_token_id
    model = load_checkpoint(problem_type.objective, checkpoint, labels).eval()
    started = time.perf_counter()
    material = replace(
        _material(model, problem_type, tokens, pad, export, seed),
        distil=partial(_distil, model, problem_type, tokens, checkpoint, pad, export, seed, report),
    )
    seconds = time.perf_counter() - started
    built = [_build(FP32, _fp32, material, candidates)]
    if built[0]["failure"]:
        remedy = "Try another `export.opset`, or another base model."
        raise ExportError(
            f"{checkpoint}: the fp32 ONNX graph cannot be built: {built[0]['failure']}", remedy
        )
    built[0]["seconds"] = round(built[0]["seconds"] + seconds, 3)
    parity_rows = _spread_rows(tokens / "validation.arrow", PARITY_ROWS)
    _check_parity(model, problem_type, parity_rows, pad, candidates / FP32 / MODEL)
    for done, name in enumerate(recipes, 1):
        report(done, {"progress": done / (len(recipes) + 1)})
        built.append(_build(name, RECIPES[name], material, candidates))
    write_json(candidates / "export.json", {"opset": export.opset, "recipes": built})
    report(len(built), {"progress": 1.0})


def check_recipes(names: Sequence[str]) -> list[str]:
    """The distinct recipes but fp32, which is always built; ParamsError names every unknown one."""
    unknown = [name for name in names if name not in RECIPES and name != FP32]
    if unknown:
        problems = [f"unknown recipe '{name}'.{did_you_mean(name, RECIPES)}" for name in unknown]
        raise ParamsError(f"export.recipes: {'; '.join(problems)}", f"Known: {', '.join(RECIPES)}.")
    return [name for name in dict.fromkeys(names) if name != FP32]


def _material(
    model: PreTrainedModel,
    problem: Problem,
    tokens: Path,
    pad: int,
    export: ExportParams,
    seed: int,
) -> Material:
    # two rows of different length: tracing must not bake in the batch size or the padding
    example = problem.encoding.collate(_spread_rows(tokens / "train.arrow", 2), pad)
    try:
        trace = trace_causal if problem.decoding.has_kv_cache else trace_model
        traced = trace(model, example, OUTPUT_NAME, export.opset)
    except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ExportError(
            f"{type(model).__name__}: cannot be traced to ONNX opset {export.opset}: "
            f"{_first_line(error)}",
            "Try another `export.opset`, or a base model of another architecture.",
        ) from error
    table = read_tokens(tokens / "train.arrow")
    rows = np.random.default_rng(seed).permutation(table.num_rows)[: export.calibration_rows]
    features = take(table, np.sort(rows))
    # batches of one row: ranges must come from text, not from padding
    batches = [
        problem.encoding.collate(
            {name: values[i : i + 1] for name, values in features.items()}, pad
        )
        for i in range(len(rows))
    ]
    return Material(traced, model.config, batches, seed)


def _distil(
    model: PreTrainedModel,
    problem: Problem,
    tokens: Path,
    checkpoint: Path,
    pad: int,
    export: ExportParams,
    seed: int,
    report: Report,
) -> tuple[Material, float]:
    """Train a student; returns its Material and the seconds spent. ValueError if it cannot be."""
    from tasks.shipping.distillation import distill, make_student

    if problem.encoding.random_inputs:
        raise ValueError(
            f"{problem.name} has outputs as wide as the vocabulary, too many to distil"
        )
    if (checkpoint / ADDITIONS).is_file():
        raise ValueError("finetune.method adds weights to layers that the student would drop")
    started = time.perf_counter()
    student = make_student(model, export.distilled_layers or len(layer_stack(model)) // 2)
    rows, epochs = read_tokens(tokens / "train.arrow"), export.distillation_epochs
    distill(student, model, problem.encoding, rows, pad, epochs=epochs, seed=seed, report=report)
    return _material(student, problem, tokens, pad, export, seed), time.perf_counter() - started


def _build(
    name: str,
    recipe: Callable[[Material, Path], float | None],
    material: Material,
    candidates: Path,
) -> dict[str, Any]:
    started = time.perf_counter()
    target = candidates / name / MODEL
    failure, trained = "", 0.0
    try:
        trained = recipe(material, target) or 0.0
    except (OSError, MemoryError):
        raise  # a full disk or lack of memory is not the recipe's fault
    except Exception as error:  # quantizers raise anything; the other recipes may still ship
        failure = f"{type(error).__name__}: {_first_line(error)}"
    size = 0 if failure else target.stat().st_size
    seconds = time.perf_counter() - started - trained
    return {
        "recipe": name,
        "bytes": size,
        "seconds": round(seconds, 3),
        "training_seconds": round(trained, 3),
        "failure": failure,
    }


def _check_parity(
    model: PreTrainedModel, problem: Problem, features: Features, pad: int, file: Path
) -> None:
    from tasks.training.networks.torch_outputs import predict_torch

    torch_outputs = predict_torch(model, problem.encoding, features, pad)
    onnx_outputs = OnnxModel(file, OUTPUT_NAME).outputs(features, problem.encoding, pad)
    difference = largest_difference(torch_outputs, onnx_outputs)
    if not difference <= PARITY:  # so written that NaN fails too
        raise ParityError(
            f"{file}: the fp32 ONNX graph differs from the checkpoint by {difference:.2g} "
            f"on {len(onnx_outputs)} rows, wanted at most {PARITY:g}.",
            "Try another `export.opset`; tracing may not support the architecture.",
        )


def _spread_rows(split: Path, count: int) -> Features:
    """Rows spread evenly over the lengths, shortest first."""
    table = read_tokens(split)
    by_length = np.argsort(token_lengths(table), kind="stable")
    ranks = np.linspace(0, len(by_length) - 1, min(count, len(by_length))).astype(np.int64)
    return take(table, by_length[ranks])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]
