"""Choose the candidate that ships: compare each to PyTorch by agreement, metric, size and speed.

Each candidate runs in its own process. A recipe passes if it loses at most `max_metric_loss` of
the problem's metric on validation, and its output for a row does not depend on the rest of the
batch (dynamic int8 takes activation ranges from the whole batch, so neighbours can change a row).
The first of `export.recipes` that passes ships, else fp32; later recipes are examined only if
`examine_all` is set. Speed is measured and reported but decides nothing: a busy machine ships what
an idle one does. Times cover padding the batch and running the model, on tokenized rows in the
order they come.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.arrays import Features, Floats, Indices
from tasks.core.errors import ExportError
from tasks.core.files import read_json, write_json
from tasks.core.progress import Report
from tasks.core.ragged import stack_rows
from tasks.data.sources.base_models import weight_files
from tasks.encoding.encoder import OUTPUT_NAME
from tasks.encoding.token_files import TokensInfo, read_features
from tasks.inference.calibration import Calibration
from tasks.inference.predictor import Predictor
from tasks.inference.session import OnnxModel, physical_cores, take_rows
from tasks.params.schema import VerifyParams
from tasks.problems import Problem, load_problem
from tasks.reports.stage_reports import (
    CandidateReport,
    CheckpointReport,
    Interval,
    VerificationReport,
)
from tasks.scoring.calibration_notes import calibration_notes
from tasks.scoring.statistics.bootstrap import Resampling, metric_intervals
from tasks.shipping.bundle_writer import assemble_bundle, seal_bundle
from tasks.shipping.candidates import (
    TORCH,
    RecipeJudge,
    Variant,
    choose_recipe,
    first_passing,
    speed_notes,
)
from tasks.shipping.decoding_speed import Writer, onnx_writer, tokens_per_second, torch_writer
from tasks.shipping.timing import time_turn
from tasks.shipping.workbench import Workbench
from tasks.shipping.workers import answer_questions
from tasks.training.methods.checkpoints import load_checkpoint

Batch = Mapping[str, Indices]
# run one batch; run all rows, padded with the given token id; generate tokens
Runners = tuple[Callable[[Batch], Floats], Callable[[Features, int], Floats], Writer]


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
    """Write the bundle that ships, a VerificationReport, and the bundle's flat metrics.

    Raises ExportError if fp32 ONNX or PyTorch itself cannot be measured, or if a process is killed
    from outside.
    """
    problem_type = load_problem(problem)
    scorer = problem_type.scoring
    references = problem_type.encoding.references(read_features(tokens / "validation.arrow"))

    def calibrate(variant: Variant) -> Calibration:
        assert variant.outputs is not None
        return scorer.fit_calibration(variant.outputs, references, labels, out_of_scope)

    rows = _timing_rows(len(references), verify.timing_rows, seed)
    threads = verify.threads or physical_cores()
    setting = {
        "tokens": str(tokens),
        "problem": problem,
        "labels": labels,
        "threads": threads,
        "writes": problem_type.decoding.has_kv_cache,
    }
    torch, *others = _variants(checkpoint, candidates)
    with Workbench("tasks.verification", setting, rows) as bench:
        bench.start([torch, *others[:2]])
        _examine_references(bench, torch, others[0])
        judge = RecipeJudge(scorer, references, labels, verify, rows, torch, calibrate(torch))
        judged = _judge_in_order(bench, judge, others, report)
        examined = [torch, *(variant for variant in others if variant.outputs is not None)]
        bench.time(
            examined, lambda share: report(len(others) + 1, {"progress": 0.6 + 0.35 * share})
        )
    judged = _with_speed(judged, others)
    shipped, reason = choose_recipe(judged, scorer.metric, verify)
    chosen = next(variant for variant in others if variant.name == shipped)
    calibration = calibrate(chosen)
    assemble_bundle(
        bundle, chosen.model, tokens, checkpoint,
        problem=problem, labels=labels, recipe=shipped,
        calibration=calibration, threads=verify.threads,
    )  # fmt: skip
    tested = _test_bundle(bundle, problem_type, tokens / "test.arrow", labels, calibration, seed)
    seal_bundle(bundle, {name: interval["value"] for name, interval in tested.metrics.items()})
    verification = VerificationReport(
        checkpoint=CheckpointReport(
            metric=judge.metric(torch), size_bytes=torch.size_bytes, **torch.speed().model_dump()
        ),
        metric=scorer.metric,
        candidates=judged,
        shipped=shipped,
        reason=reason,
        notes=[*tested.notes, *speed_notes(shipped, chosen.speedup_over(others[0]))],
        **asdict(calibration),
        test_metrics=tested.metrics,
        rows={"validation": len(references), "test": tested.rows, "timing": torch.timings.rows},
        threads=threads,
    )
    verification.write(verification_report)
    write_json(metrics, _flat_metrics(verification))


def _flat_metrics(verification: VerificationReport) -> dict[str, Any]:
    """The shipped bundle's metrics, one value per name, for `dvc metrics show`."""
    shipped = verification.shipped_candidate
    assert shipped.size_bytes is not None
    assert shipped.speedup is not None
    names = ("latency_ms_p50", "latency_ms_p95", "throughput", "tokens_per_second")
    speed = {name: getattr(shipped, name) for name in names}
    return {
        **{name: interval["value"] for name, interval in verification.test_metrics.items()},
        "size_mb": round(shipped.size_bytes / 1e6, 3),
        **{name: value for name, value in speed.items() if value is not None},
        "speedup": shipped.speedup["value"],
        "temperature": verification.temperature,
        "recipe": shipped.recipe,
    }


def _timing_rows(available: int, wanted: int, seed: int) -> list[int]:
    drawn: list[int] = np.random.default_rng(seed).permutation(available)[:wanted].tolist()
    return drawn


def _variants(checkpoint: Path, candidates: Path) -> list[Variant]:
    """PyTorch, fp32 ONNX, then the recipes in the order of `export.recipes`."""
    size = sum(file.stat().st_size for file in weight_files(checkpoint))
    variants = [Variant(TORCH, checkpoint, size)]
    for entry in read_json(candidates / "export.json")["recipes"]:
        recipe = entry["recipe"]
        model = candidates / recipe / "model.onnx"
        variants.append(Variant(recipe, model, entry["bytes"], entry["failure"]))
    return variants


def _examine_references(bench: Workbench, *variants: Variant) -> None:
    """Measure the variants that all others are compared to; ExportError if one fails."""
    for variant in variants:
        bench.examine(variant)
        if variant.failure:
            remedy = "Nothing can be compared without it; fix it and run again."
            raise ExportError(f"{variant.name} cannot be measured: {variant.failure}.", remedy)


def _judge_in_order(
    bench: Workbench, judge: RecipeJudge, variants: list[Variant], report: Report
) -> list[CandidateReport]:
    """Verdicts in order; recipes after the first that passes are examined only if `examine_all`."""
    judged: list[CandidateReport] = []
    for done, variant in enumerate(variants, 1):
        needed = judge.verify.examine_all or first_passing(judged) is None
        if needed and variant.outputs is None and not variant.failure:
            bench.examine(variant)
        judged.append(judge.verdict(variant))
        report(done, {"progress": 0.6 * done / len(variants)})
    return judged


def _with_speed(
    judged: Sequence[CandidateReport], variants: Sequence[Variant]
) -> list[CandidateReport]:
    """The entries with the speed of those that were examined."""
    entries = []
    for entry, variant in zip(judged, variants, strict=True):
        speed: dict[str, Any] = {}
        if variant.outputs is not None:
            speedup = variant.speedup_over(variants[0]).as_dict()
            speed = variant.speed().model_dump() | {"speedup": speedup}
        entries.append(entry.model_copy(update=speed))
    return entries


@dataclass(frozen=True)
class TestedBundle:
    """The finished bundle on the test split; `notes` are caveats about its calibration."""

    rows: int
    metrics: dict[str, Interval]
    notes: list[str]


def _test_bundle(
    bundle: Path,
    problem: Problem,
    test: Path,
    labels: tuple[str, ...],
    calibration: Calibration,
    seed: int,
) -> TestedBundle:
    features = read_features(test)
    outputs = Predictor(bundle, problem).outputs_of_features(features)
    references = problem.encoding.references(features)
    calibrated, resampling = calibration.apply(outputs), Resampling(seed=seed)
    return TestedBundle(
        len(outputs),
        metric_intervals(problem.scoring, calibrated, references, labels, resampling),
        calibration_notes(problem.scoring, outputs, references, calibration),
    )


def _serve(setting: Mapping[str, Any]) -> None:
    """Serve one variant's outputs, timings and decoding speed; runs in a process of its own."""
    problem = load_problem(setting["problem"])
    tokens, model = Path(setting["tokens"]), Path(setting["model"])
    features = read_features(tokens / "validation.arrow")
    info = TokensInfo.read(tokens)
    pad = info.pad_token_id
    load = _load_torch if model.is_dir() else _load_onnx
    run, run_all, write = load(model, setting, problem)

    def run_rows(rows: Indices) -> Floats:
        chosen = take_rows(features, rows)
        return problem.encoding.reduce(run(problem.encoding.collate(chosen, pad)), chosen)

    def outputs(file: str, alone: list[int]) -> dict[str, Any]:
        singles = [run_rows(np.asarray([row]))[0] for row in alone]
        np.savez(file, outputs=run_all(features, pad), alone=stack_rows(singles) if alone else [])
        if setting["writes"]:
            decode("0")  # a recipe that cannot generate fails here, before its verdict
        return {}

    def decode(row: str) -> dict[str, Any]:
        return {"rate": tokens_per_second(write, features["input_ids"][int(row)], info.max_length)}

    answer_questions(
        {"outputs": outputs, "turn": lambda rows: time_turn(run_rows, rows), "decode": decode}
    )


def _load_onnx(model: Path, setting: Mapping[str, Any], problem: Problem) -> Runners:
    onnx = OnnxModel(model, OUTPUT_NAME, setting["threads"])
    return (
        onnx.run,
        lambda features, pad: onnx.outputs(features, problem.encoding, pad),
        onnx_writer(onnx),
    )


def _load_torch(model: Path, setting: Mapping[str, Any], problem: Problem) -> Runners:
    import torch

    from tasks.training.networks.torch_outputs import predict_torch

    torch.set_num_threads(setting["threads"])
    network = load_checkpoint(problem.objective, model, setting["labels"]).eval()

    def run(batch: Batch) -> Floats:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
            outputs: Floats = network(**tensors)[OUTPUT_NAME].numpy()
            return outputs

    def run_all(features: Features, pad: int) -> Floats:
        return predict_torch(network, problem.encoding, features, pad)

    return run, run_all, torch_writer(network)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
