"""Which candidate ships: each in its own process against PyTorch, for agreement, metric, size and speed.

A recipe passes if it loses at most `max_metric_loss` of the problem's metric on validation, is faster than fp32 ONNX, and says
the same of a row whatever it is batched with (dynamic int8 takes its ranges from the whole batch, so neighbours can move it).
The fastest that passes ships, by the geometric mean of its gains in batch-1 latency and batch-32 throughput, or by the tokens that it
writes a second where it writes; else fp32 ships.
Times are of rows that are tokenized already, in the order they come: making the padded batch and running the model.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.bootstrap import Interval, Resampling, metric_intervals
from tasks.core.calibration import Calibration
from tasks.core.candidates import TORCH, Judge, Variant, choose_recipe
from tasks.core.checkpoints import load_checkpoint
from tasks.core.decoding import Writer, onnx_writer, tokens_per_second, torch_writer
from tasks.core.errors import ExportError
from tasks.core.files import read_json, write_json
from tasks.core.modelfiles import weight_files
from tasks.core.params import VerifyParams
from tasks.core.predictor import Predictor
from tasks.core.progress import Report
from tasks.core.ragged import stack_rows
from tasks.core.session import OnnxModel, physical_cores, take_rows
from tasks.core.shipping import assemble_bundle, seal_bundle
from tasks.core.timing import time_turn, turns
from tasks.core.tokens import TokensInfo, read_features
from tasks.core.workers import Worker, WorkerError, answer_questions
from tasks.problems import Problem, load_problem
from tasks.problems.base import Features, Floats

TIMING_SECONDS = 60.0  # after which no new turn of timing is begun, if the budget is not over before
MIN_TURNS = 3
DECODING_ROUNDS = 5
ALONE_ROWS = 64  # run one by one as well as in batches

Indices = npt.NDArray[np.int64]
Batch = Mapping[str, Indices]
Runners = tuple[Callable[[Batch], Floats], Callable[[Features, int], Floats], Writer]  # of one batch, of all rows, of what it writes


def verify_candidates(
    tokens: Path,
    checkpoint: Path,
    candidates: Path,
    bundle: Path,
    verification_report: Path,
    metrics: Path,
    *,
    problem: str,
    labels: tuple[str, ...],
    out_of_scope: str | None,
    verify: VerifyParams,
    seed: int,
    report: Report,
) -> None:
    """Write the bundle that ships, the report of all candidates, and the flat metrics of what ships.

    Raises ExportError if fp32 ONNX or PyTorch themselves cannot be measured.
    """
    kind = load_problem(problem)
    features = read_features(tokens / "validation.arrow")
    references = kind.references(features)
    rows = _timing_rows(len(references), verify.timing_rows, seed)
    setting = {
        "tokens": str(tokens), "problem": problem, "labels": labels, "threads": verify.threads or physical_cores(), "writes": kind.reads_on,
    }  # fmt: skip
    variants = _measure(checkpoint, candidates, setting, rows, verify.budget_seconds, report)
    torch, *others = variants
    assert torch.outputs is not None
    thresholds = kind.fit_calibration(torch.outputs, references, labels, out_of_scope)
    judge = Judge(kind, references, labels, verify, rows, torch, others[0], thresholds)
    judged = [judge.verdict(variant) for variant in others]
    shipped, reason = choose_recipe(judged, kind.metric, verify)
    outputs = next(variant.outputs for variant in others if variant.name == shipped)
    assert outputs is not None
    calibration = kind.fit_calibration(outputs, references, labels, out_of_scope)
    assemble_bundle(
        bundle, candidates / shipped / "model.onnx", tokens, checkpoint,
        problem=kind, labels=labels, recipe=shipped, calibration=calibration, threads=verify.threads,
    )  # fmt: skip
    test_metrics = _test_metrics(bundle, kind, tokens / "test.arrow", labels, calibration, seed)
    seal_bundle(bundle, {name: interval["value"] for name, interval in test_metrics.items()})
    rows_used = {"validation": len(references), "test": TokensInfo.read(tokens).rows["test"], "timing": torch.timings.rows}
    found = {
        "checkpoint": {"metric": judge.metric(torch), "size_bytes": torch.size_bytes, **torch.speed()},
        "metric": kind.metric, "candidates": judged, "shipped": shipped, "reason": reason,
        **asdict(calibration), "test_metrics": test_metrics, "rows": rows_used, "threads": setting["threads"],
    }  # fmt: skip
    write_json(verification_report, found)
    write_json(metrics, _flat_metrics(found))


def _flat_metrics(found: Mapping[str, Any]) -> dict[str, Any]:
    """One number a name, of what ships, for `dvc metrics show`."""
    chosen = next(entry for entry in found["candidates"] if entry["recipe"] == found["shipped"])
    quality = {name: interval["value"] for name, interval in found["test_metrics"].items()}
    names = ("latency_ms_p50", "latency_ms_p95", "throughput", "tokens_per_second", "speedup")
    speed = {name: chosen[name] for name in names if name in chosen}
    size = round(chosen["size_bytes"] / 1e6, 3)
    return {**quality, "size_mb": size, **speed, "temperature": found["temperature"], "recipe": found["shipped"]}


def _timing_rows(available: int, wanted: int, seed: int) -> list[int]:
    drawn: list[int] = np.random.default_rng(seed).permutation(available)[:wanted].tolist()
    return drawn


def _measure(
    checkpoint: Path, candidates: Path, setting: Mapping[str, Any], rows: list[int], budget: float, report: Report
) -> list[Variant]:
    """PyTorch, fp32 ONNX, then the recipes; those that `budget`, in seconds, leaves no time for have that as their failure."""
    exported = read_json(candidates / "export.json")["recipes"]
    variants = [Variant(TORCH, sum(file.stat().st_size for file in weight_files(checkpoint)))]
    variants += [Variant(entry["recipe"], entry["bytes"], entry["failure"]) for entry in exported]
    rounds, end = turns(rows), time.monotonic() + budget - sum(entry["seconds"] for entry in exported)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers: dict[str, Worker] = {}
        for variant in variants:  # all at once: their imports overlap
            if not variant.failure:
                model = checkpoint if variant.name == TORCH else candidates / variant.name / "model.onnx"
                workers[variant.name] = Worker("tasks.verification", {**setting, "model": str(model)})
                stack.callback(workers[variant.name].close)
        for done, variant in enumerate(variants, 1):
            if done > 2 and not variant.failure and time.monotonic() > end:
                variant.failure = f"the search's {budget:g} s (verify.budget_seconds) were over before it was looked at"
            elif variant.name in workers:
                _ask_outputs(variant, workers[variant.name], scratch / f"{done}.npz", [] if variant.name == TORCH else rows[:ALONE_ROWS])
            report(done, {"progress": 0.6 * done / len(variants)})
        _demand(variants[:2])
        end = min(end, time.monotonic() + TIMING_SECONDS)
        for done, turn in enumerate(rounds, 1):
            if done > MIN_TURNS and time.monotonic() > end:
                break  # a busy machine: the ratios are as good, and the run goes on
            for variant in variants if done % 2 else reversed(variants):
                _ask_turn(variant, workers.get(variant.name), turn)
            report(len(variants) + done, {"progress": 0.6 + 0.35 * done / len(rounds)})
        for done in range(DECODING_ROUNDS if setting["writes"] else 0):
            for variant in variants if done % 2 else reversed(variants):
                _ask_decoding(variant, workers.get(variant.name), rows[done % len(rows)])
    _demand(variants[:2])
    return variants


def _demand(variants: list[Variant]) -> None:
    for variant in variants:
        if variant.failure:
            remedy = "Without it nothing can be compared; mend it and run again."
            raise ExportError(f"{variant.name} cannot be measured: {variant.failure}.", remedy)


def _ask_outputs(variant: Variant, worker: Worker, file: Path, alone: list[int]) -> None:
    try:
        worker.ask(do="outputs", file=str(file), alone=alone)
        with np.load(file, allow_pickle=False) as found:
            variant.outputs, variant.alone = found["outputs"], found["alone"]
    except WorkerError as error:
        variant.failure = str(error)


def _ask_turn(variant: Variant, worker: Worker | None, turn: list[int]) -> None:
    if variant.failure or worker is None:
        return
    try:
        variant.timings.add(worker.ask(do="turn", rows=turn))
    except WorkerError as error:
        variant.failure = str(error)


def _ask_decoding(variant: Variant, worker: Worker | None, row: int) -> None:
    if variant.failure or worker is None:
        return
    try:
        variant.decoding.append(float(worker.ask(do="decode", row=str(row))["rate"]))
    except WorkerError as error:
        variant.failure = str(error)


def _test_metrics(
    bundle: Path, kind: Problem, test: Path, labels: tuple[str, ...], calibration: Calibration, seed: int
) -> dict[str, Interval]:
    """The finished bundle's own metrics, each with its bootstrap interval."""
    features = read_features(test)
    outputs = Predictor(bundle, kind).outputs_of_features(features)
    return metric_intervals(kind, calibration.apply(outputs), kind.references(features), labels, Resampling(seed=seed))


def _serve(setting: Mapping[str, Any]) -> None:
    """A variant's own process."""
    kind = load_problem(setting["problem"])
    tokens, model = Path(setting["tokens"]), Path(setting["model"])
    features = read_features(tokens / "validation.arrow")
    info = TokensInfo.read(tokens)
    pad = info.pad_token_id
    run, run_all, write = _load_torch(model, setting, kind) if model.is_dir() else _load_onnx(model, setting, kind)

    def run_rows(rows: Indices) -> Floats:
        chosen = take_rows(features, rows)
        return kind.reduce(run(kind.collate(chosen, pad)), chosen)

    def outputs(file: str, alone: list[int]) -> dict[str, Any]:
        by_itself = [run_rows(np.asarray([row]))[0] for row in alone]
        np.savez(file, outputs=run_all(features, pad), alone=stack_rows(by_itself) if alone else [])
        return {}

    def decode(row: str) -> dict[str, Any]:
        return {"rate": tokens_per_second(write, features["input_ids"][int(row)], info.max_length)}

    answer_questions({"outputs": outputs, "turn": lambda rows: time_turn(run_rows, rows), "decode": decode})


def _load_onnx(model: Path, setting: Mapping[str, Any], kind: Problem) -> Runners:
    onnx = OnnxModel(model, kind.output_name, setting["threads"])
    return onnx.run, lambda features, pad: onnx.outputs(features, kind, pad), onnx_writer(onnx)


def _load_torch(model: Path, setting: Mapping[str, Any], kind: Problem) -> Runners:
    import torch

    from tasks.core.inference import predict_torch

    torch.set_num_threads(setting["threads"])
    network = load_checkpoint(kind, model, setting["labels"]).eval()

    def run(batch: Batch) -> Floats:
        with torch.inference_mode():
            outputs: Floats = network(**{name: torch.from_numpy(values) for name, values in batch.items()})[kind.output_name].numpy()
            return outputs

    return run, lambda features, pad: predict_torch(network, kind, features, pad), torch_writer(network)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
