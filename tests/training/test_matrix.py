"""Every problem type with every method.

Each pair trains, resumes, merges, exports and predicts, or is refused with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import SAMPLES
from shared import made_once

from tasks.core.errors import ParamsError
from tasks.core.files import read_json, sha256_file
from tasks.core.progress import Report, silent
from tasks.core.ragged import largest_difference
from tasks.encoding.encoder import OUTPUT_NAME
from tasks.encoding.token_files import TokensInfo, read_features
from tasks.export import export_candidates
from tasks.finetuning import finetune_model
from tasks.inference.session import OnnxModel
from tasks.params.finetuning import FinetuneParams, Method
from tasks.params.schema import BaseModelParams, ExportParams, TokenizeParams
from tasks.problems import load_problem, problem_names
from tasks.tokenization import tokenize_splits
from tasks.training.methods.checkpoints import load_checkpoint
from tasks.training.methods.compatibility import check_method
from tasks.training.networks.torch_outputs import predict_torch

METHODS: tuple[Method, ...] = get_args(Method)
COMBINATIONS = [(problem, method) for problem in problem_names() for method in METHODS]
SIZES = {"rank": 2, "virtual_tokens": 3, "bottleneck": 4}
STEPS = 4
# pairs that the sample's base model refuses; qlora is refused without a CUDA device
REFUSED_BY_BASE = {("chat", "bitfit"): "has no biases"}


class Killed(BaseException):
    """Stands for a kill: no `except Exception` catches it."""


def refusal(problem: str, method: Method) -> str:
    """The expected reason of a refusal; empty: the pair works."""
    if method == "qlora":
        return "needs a CUDA device"
    return REFUSED_BY_BASE.get((problem, method), "")


@cache
def tokens_of(problem: str) -> Path:
    def make(directory: Path) -> None:
        sample, problem_type = SAMPLES[problem], load_problem(problem)
        known = (*problem_type.rows.columns, *problem_type.rows.derived)
        columns = {name: sample.rows[name] for name in known if name in sample.rows}
        rows = pa.table({"row": range(len(sample)), **columns})
        splits = directory / "splits"
        splits.mkdir()
        for split in ("train", "validation", "test"):
            pq.write_table(rows, splits / f"{split}.parquet")
        tokenize_splits(
            splits,
            directory / "tokens",
            problem=problem,
            labels=sample.labels,
            tokenize=TokenizeParams(max_length=32),
            base_model=BaseModelParams(path=str(sample.base_dir())),
            root=directory,
            cache=directory,
            report=silent,
        )

    return made_once(f"matrix-{problem}", make) / "tokens"


def train(
    problem: str, method: Method, out: Path, report: Report = silent, **changed: object
) -> None:
    sample, problem_type = SAMPLES[problem], load_problem(problem)
    values = {
        "method": method,
        "sizes": SIZES,
        "epochs": 1,
        "batch_size": len(sample) // STEPS,
        "learning_rate": 1e-2,
        "early_stopping_metric": problem_type.scoring.metric,
        "evaluations_per_epoch": 1,
        "freeze_layers": 1 if method == "frozen" else 0,
    }
    params = FinetuneParams.model_validate(values | changed)
    check_method(problem, problem_type.objective, params, "cpu")
    finetune_model(
        tokens_of(problem),
        out / "checkpoint",
        out / "training.json",
        start=None,
        problem=problem,
        labels=sample.labels,
        base_model=BaseModelParams(path=str(sample.base_dir())),
        finetune=params,
        seed=7,
        device="cpu",
        root=out,
        cache=out,
        work=out / "work",
        report=report,
    )


def killed_after_two_steps(step: int, metrics: Mapping[str, float]) -> None:
    if step > 2:
        raise Killed


@pytest.mark.parametrize(("problem", "method"), COMBINATIONS)
def test_it_trains_resumes_merges_exports_and_predicts_or_is_refused(
    problem: str, method: Method, tmp_path: Path
) -> None:
    reason = refusal(problem, method)
    if reason:
        with pytest.raises(ParamsError, match=reason):
            train(problem, method, tmp_path)
        assert not (tmp_path / "checkpoint").exists()
        return
    problem_type, sample, tokens = load_problem(problem), SAMPLES[problem], tokens_of(problem)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(problem, method, whole)
    with pytest.raises(Killed):
        train(problem, method, resumed, killed_after_two_steps)
    train(problem, method, resumed)
    for file in (whole / "checkpoint").rglob("*.safetensors"):
        assert sha256_file(file) == sha256_file(resumed / file.relative_to(whole))
    facts = read_json(whole / "training.json")
    assert facts["steps"] == STEPS
    assert 0 < facts["trained_parameters"] <= facts["parameters"]

    checkpoint, candidates, labels = whole / "checkpoint", tmp_path / "candidates", sample.labels
    export_candidates(
        tokens,
        checkpoint,
        candidates,
        problem=problem,
        labels=labels,
        export=ExportParams(recipes=()),  # fp32 alone
        seed=0,
        report=silent,
    )
    encoding, scoring = problem_type.encoding, problem_type.scoring
    features, pad = read_features(tokens / "validation.arrow"), TokensInfo.read(tokens).pad_token_id
    exported = OnnxModel(candidates / "fp32" / "model.onnx", OUTPUT_NAME)
    outputs = exported.outputs(features, encoding, pad)
    model = load_checkpoint(problem_type.objective, checkpoint, labels)
    assert largest_difference(outputs, predict_torch(model, encoding, features, pad)) < 1e-4
    calibration = scoring.fit_calibration(outputs, encoding.references(features), labels, None)
    predictions = problem_type.decoding.decode(outputs, sample.rows, labels, calibration)
    assert len(predictions) == len(sample)


def test_every_combination_is_covered() -> None:
    refused = [pair for pair in COMBINATIONS if refusal(*pair)]
    problems = len(problem_names())
    assert len(COMBINATIONS) == 13 * problems
    # qlora for every problem type, and the pairs above
    assert len(refused) == problems + len(REFUSED_BY_BASE.keys() & set(COMBINATIONS))
    assert {problem for problem, _ in COMBINATIONS} == set(SAMPLES)
