"""Which candidate ships: each in its own process against PyTorch, for agreement, metric, size and speed.

A recipe passes if it loses at most `max_metric_loss` of the problem's metric on validation, is faster than fp32 ONNX, and says
the same of a row whatever it is batched with (dynamic int8 takes its ranges from the whole batch, so neighbours can move it).
The fastest that passes ships, by the geometric mean of its gains in batch-1 latency and batch-32 throughput; else fp32 ships.
Times are of rows that are tokenized already, in the order they come: making the padded batch and running the model.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.bootstrap import Interval, Resampling, metric_intervals
from tasks.core.calibration import Calibration
from tasks.core.checkpoints import load_checkpoint
from tasks.core.errors import ExportError
from tasks.core.files import read_json, write_json
from tasks.core.params import VerifyParams
from tasks.core.predictor import Predictor
from tasks.core.progress import Report
from tasks.core.ragged import stack_rows
from tasks.core.session import OnnxModel, physical_cores, take_rows
from tasks.core.shipping import assemble_bundle, seal_bundle
from tasks.core.timing import Timings, time_turn, turns
from tasks.core.tokens import TokensInfo, read_features
from tasks.core.workers import Worker, WorkerError, answer_questions
from tasks.problems import Problem, load_problem
from tasks.problems.base import Array, Features, Floats

FP32 = "fp32"
TORCH = "pytorch"

# of each candidate: on validation, against the checkpoint; and how far a probability moves between batches of 1 and of many
FOUND = ("metric", "metric_loss", "agreement", "max_probability_difference", "max_batch_difference")

TIMING_SECONDS = 60.0  # after which no new turn of timing is begun
MIN_TURNS = 3
ALONE_ROWS = 64  # run one by one as well as in batches
MAX_BATCH_DIFFERENCE = 0.01  # of a probability between the two

Indices = npt.NDArray[np.int64]
Batch = Mapping[str, Indices]
Runners = tuple[Callable[[Batch], Floats], Callable[[Features, int], Floats]]  # of one batch, and of all rows


@dataclass
class Variant:
    """One way to compute the model, and what was found of it. `failure` is empty while nothing went wrong."""

    name: str
    size_bytes: int = 0
    failure: str = ""
    outputs: Floats | None = None  # of all validation rows
    alone: Floats | None = None  # of the first timing rows, each by itself
    timings: Timings = field(default_factory=Timings)


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
    setting = {"tokens": str(tokens), "problem": problem, "labels": labels, "threads": verify.threads or physical_cores()}
    variants = _measure(checkpoint, candidates, setting, rows, report)
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
        "checkpoint": {"metric": judge.metric(torch), "size_bytes": torch.size_bytes, **torch.timings.summary()},
        "metric": kind.metric, "candidates": judged, "shipped": shipped, "reason": reason,
        **asdict(calibration), "test_metrics": test_metrics, "rows": rows_used, "threads": setting["threads"],
    }  # fmt: skip
    write_json(verification_report, found)
    write_json(metrics, _flat_metrics(found))


def _flat_metrics(found: Mapping[str, Any]) -> dict[str, Any]:
    """One number a name, of what ships, for `dvc metrics show`."""
    chosen = next(entry for entry in found["candidates"] if entry["recipe"] == found["shipped"])
    quality = {name: interval["value"] for name, interval in found["test_metrics"].items()}
    speed = {name: chosen[name] for name in ("latency_ms_p50", "latency_ms_p95", "throughput", "speedup")}
    size = round(chosen["size_bytes"] / 1e6, 3)
    return {**quality, "size_mb": size, **speed, "temperature": found["temperature"], "recipe": found["shipped"]}


def choose_recipe(judged: list[dict[str, Any]], metric: str, verify: VerifyParams) -> tuple[str, str]:
    """(the recipe that ships, why); writes into each candidate why it does not."""
    passing = sorted((entry for entry in judged if entry["passed"] and entry["recipe"] != FP32), key=lambda entry: -entry["speedup"])
    if not passing:
        tried = "; ".join(f"{entry['recipe']}: {entry['reason']}" for entry in judged if entry["recipe"] != FP32)
        return FP32, f"fp32 ONNX ships, no recipe passed. {tried or 'No recipe was asked for.'}"
    best, *slower = passing
    for entry in slower:
        entry["reason"] = f"passed; {best['recipe']} is faster ({best['speedup']:.2f}x against {entry['speedup']:.2f}x fp32 ONNX)"
    loss = f"{metric} on validation {-best['metric_loss']:+.4f} against the checkpoint (budget -{verify.max_metric_loss:g})"
    best["reason"] = f"the fastest within the budget: {best['speedup']:.2f}x fp32 ONNX, {loss}"
    return best["recipe"], f"{best['recipe']} is {best['reason']}."


def _timing_rows(available: int, wanted: int, seed: int) -> list[int]:
    drawn: list[int] = np.random.default_rng(seed).permutation(available)[:wanted].tolist()
    return drawn


def _measure(checkpoint: Path, candidates: Path, setting: Mapping[str, Any], rows: list[int], report: Report) -> list[Variant]:
    """PyTorch, fp32 ONNX, then the recipes."""
    variants = [Variant(TORCH, (checkpoint / "model.safetensors").stat().st_size)]
    variants += [Variant(entry["recipe"], entry["bytes"], entry["failure"]) for entry in read_json(candidates / "export.json")["recipes"]]
    rounds = turns(rows)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers: dict[str, Worker] = {}
        for variant in variants:  # all at once: their imports overlap
            if not variant.failure:
                model = checkpoint if variant.name == TORCH else candidates / variant.name / "model.onnx"
                workers[variant.name] = Worker("tasks.verification", {**setting, "model": str(model)})
                stack.callback(workers[variant.name].close)
        for done, variant in enumerate(variants, 1):
            if variant.name in workers:
                _ask_outputs(variant, workers[variant.name], scratch / f"{done}.npz", [] if variant.name == TORCH else rows[:ALONE_ROWS])
            report(done, {"progress": 0.6 * done / len(variants)})
        _demand(variants[:2])
        started = time.monotonic()
        for done, turn in enumerate(rounds, 1):
            if done > MIN_TURNS and time.monotonic() - started > TIMING_SECONDS:
                break  # a busy machine: the ratios are as good, and the run goes on
            for variant in variants if done % 2 else reversed(variants):
                _ask_turn(variant, workers.get(variant.name), turn)
            report(len(variants) + done, {"progress": 0.6 + 0.35 * done / len(rounds)})
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


@dataclass(frozen=True)
class Judge:
    """What all are held against: `torch` and its thresholds for what is computed, `fp32` for speed; `rows` are those that were timed."""

    kind: Problem
    references: Array
    labels: tuple[str, ...]
    verify: VerifyParams
    rows: list[int]
    torch: Variant
    fp32: Variant
    thresholds: Calibration

    def metric(self, variant: Variant) -> float:
        """The problem's metric on validation."""
        assert variant.outputs is not None
        return self.kind.metrics(self.thresholds.decide(variant.outputs), self.references, self.labels)[self.kind.metric]

    def verdict(self, variant: Variant) -> dict[str, Any]:
        """Everything the report says of a candidate; `reason` says why it did not pass."""
        if variant.failure or variant.outputs is None or variant.alone is None or self.torch.outputs is None:
            nothing = dict.fromkeys((*FOUND, "latency_ms_p50", "latency_ms_p95", "throughput", "speedup"))
            size = variant.size_bytes or None
            return {"recipe": variant.name, **nothing, "size_bytes": size, "passed": False, "reason": f"failed: {variant.failure}"}
        metric = self.metric(variant)
        outputs, alone = self.thresholds.decide(variant.outputs), self.thresholds.decide(variant.alone)
        agreement, difference = self.kind.agreement(outputs, self.thresholds.decide(self.torch.outputs))
        _, moved = self.kind.agreement(outputs[self.rows[: len(alone)]], alone)
        found = dict(zip(FOUND, (metric, self.metric(self.torch) - metric, agreement, difference, moved), strict=True))
        speedup = variant.timings.speedup_over(self.fp32.timings)
        wrong = self._shortcomings(variant.name, found, speedup)
        speed = {**variant.timings.summary(), "speedup": speedup}
        return {
            "recipe": variant.name, **found, "size_bytes": variant.size_bytes, **speed,
            "passed": not wrong, "reason": "; ".join(wrong) or "passed",
        }  # fmt: skip

    def _shortcomings(self, name: str, found: Mapping[str, float], speedup: float) -> list[str]:
        wrong, loss, moved = [], found["metric_loss"], found["max_batch_difference"]
        if not loss <= self.verify.max_metric_loss:
            wrong.append(f"loses {loss:.4f} of {self.kind.metric} on validation, the budget is {self.verify.max_metric_loss:g}")
        if not moved <= MAX_BATCH_DIFFERENCE:
            wrong.append(f"a probability moves by {moved:.3f} with the rows it is batched with, allowed are {MAX_BATCH_DIFFERENCE:g}")
        if name != FP32 and not speedup > self.verify.min_speedup:
            wrong.append(f"not faster: {speedup:.2f}x fp32 ONNX, wanted more than {self.verify.min_speedup:g}x")
        return wrong


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
    pad = TokensInfo.read(tokens).pad_token_id
    run, run_all = _load_torch(model, setting, kind) if model.is_dir() else _load_onnx(model, setting, kind)

    def run_rows(rows: Indices) -> Floats:
        chosen = take_rows(features, rows)
        return kind.reduce(run(kind.collate(chosen, pad)), chosen)

    def outputs(file: str, alone: list[int]) -> dict[str, Any]:
        by_itself = [run_rows(np.asarray([row]))[0] for row in alone]
        np.savez(file, outputs=run_all(features, pad), alone=stack_rows(by_itself) if alone else [])
        return {}

    answer_questions({"outputs": outputs, "turn": lambda rows: time_turn(run_rows, rows)})


def _load_onnx(model: Path, setting: Mapping[str, Any], kind: Problem) -> Runners:
    onnx = OnnxModel(model, kind.output_name, setting["threads"])
    return onnx.run, lambda features, pad: onnx.outputs(features, kind, pad)


def _load_torch(model: Path, setting: Mapping[str, Any], kind: Problem) -> Runners:
    import torch

    from tasks.core.inference import predict_torch

    torch.set_num_threads(setting["threads"])
    network = load_checkpoint(kind, model, setting["labels"]).eval()

    def run(batch: Batch) -> Floats:
        with torch.inference_mode():
            outputs: Floats = network(**{name: torch.from_numpy(values) for name, values in batch.items()})[kind.output_name].numpy()
            return outputs

    return run, lambda features, pad: predict_torch(network, kind, features, pad)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
