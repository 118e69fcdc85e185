"""Which candidate ships: each in its own process against PyTorch, for agreement, metric, size and speed.

A recipe passes if it loses at most `max_metric_loss` of the problem's metric on validation and says the same of a row whatever it
is batched with (dynamic int8 takes its ranges from the whole batch, so neighbours can move it). The first of `export.recipes` that
passes ships, else fp32; the recipes after it are not examined unless `examine_all` asks. Speed is measured and reported, and decides
nothing: a busy machine ships what an idle one does.
Times are of rows that are tokenized already, in the order they come: making the padded batch and running the model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.arrays import Array, Features, Floats, Indices
from tasks.core.errors import ExportError
from tasks.core.files import read_json, write_json
from tasks.core.progress import Report
from tasks.core.ragged import stack_rows
from tasks.data.sources.base_models import weight_files
from tasks.encoding.token_files import TokensInfo, read_features
from tasks.inference.predictor import Predictor
from tasks.inference.session import OnnxModel, physical_cores, take_rows
from tasks.params.schema import VerifyParams
from tasks.problems import Problem, load_problem
from tasks.scoring.calibration_notes import calibration_notes
from tasks.scoring.statistics.bootstrap import Resampling, metric_intervals
from tasks.shipping.bundle_writer import assemble_bundle, seal_bundle
from tasks.shipping.candidates import (
    TORCH,
    Judge,
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
Runners = tuple[
    Callable[[Batch], Floats], Callable[[Features, int], Floats], Writer
]  # of one batch, of all rows, of what it writes


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

    Raises ExportError if fp32 ONNX or PyTorch themselves cannot be measured, or a process is killed from outside.
    """
    kind = load_problem(problem)
    references = kind.references(read_features(tokens / "validation.arrow"))
    rows = _timing_rows(len(references), verify.timing_rows, seed)
    threads = verify.threads or physical_cores()
    setting = {
        "tokens": str(tokens),
        "problem": problem,
        "labels": labels,
        "threads": threads,
        "writes": kind.reads_on,
    }
    torch, *others = _variants(checkpoint, candidates)
    with Workbench("tasks.verification", setting, rows) as bench:
        bench.start([torch, *others[:2]])
        _examine_references(bench, torch, others[0])
        assert torch.outputs is not None
        thresholds = kind.fit_calibration(torch.outputs, references, labels, out_of_scope)
        judge = Judge(kind, references, labels, verify, rows, torch, thresholds)
        judged = _judge_in_order(bench, judge, others, report)
        examined = [torch, *(variant for variant in others if variant.outputs is not None)]
        bench.time(
            examined, lambda share: report(len(others) + 1, {"progress": 0.6 + 0.35 * share})
        )
    _add_speed(judged, others)
    shipped, reason = choose_recipe(judged, kind.metric, verify)
    chosen = next(variant for variant in others if variant.name == shipped)
    assert chosen.outputs is not None
    calibration = kind.fit_calibration(chosen.outputs, references, labels, out_of_scope)
    assemble_bundle(
        bundle, chosen.model, tokens, checkpoint,
        problem=kind, labels=labels, recipe=shipped, calibration=calibration, threads=verify.threads,
    )  # fmt: skip
    outputs, test_references = _test_outputs(bundle, kind, tokens / "test.arrow")
    test_metrics = metric_intervals(
        kind, calibration.apply(outputs), test_references, labels, Resampling(seed=seed)
    )
    seal_bundle(bundle, {name: interval["value"] for name, interval in test_metrics.items()})
    notes = calibration_notes(kind, outputs, test_references, calibration)
    rows_used = {"validation": len(references), "test": len(outputs), "timing": torch.timings.rows}
    found = {
        "checkpoint": {"metric": judge.metric(torch), "size_bytes": torch.size_bytes, **torch.speed()},
        "metric": kind.metric, "candidates": judged, "shipped": shipped, "reason": reason,
        "notes": [*notes, *speed_notes(shipped, chosen.speedup_over(others[0]))],
        **asdict(calibration), "test_metrics": test_metrics, "rows": rows_used, "threads": threads,
    }  # fmt: skip
    write_json(verification_report, found)
    write_json(metrics, _flat_metrics(found))


def _flat_metrics(found: Mapping[str, Any]) -> dict[str, Any]:
    """One number a name, of what ships, for `dvc metrics show`."""
    chosen = next(entry for entry in found["candidates"] if entry["recipe"] == found["shipped"])
    quality = {name: interval["value"] for name, interval in found["test_metrics"].items()}
    names = ("latency_ms_p50", "latency_ms_p95", "throughput", "tokens_per_second")
    speed = {name: chosen[name] for name in names if name in chosen} | {
        "speedup": chosen["speedup"]["value"]
    }
    size = round(chosen["size_bytes"] / 1e6, 3)
    return {
        **quality,
        "size_mb": size,
        **speed,
        "temperature": found["temperature"],
        "recipe": found["shipped"],
    }


def _timing_rows(available: int, wanted: int, seed: int) -> list[int]:
    drawn: list[int] = np.random.default_rng(seed).permutation(available)[:wanted].tolist()
    return drawn


def _variants(checkpoint: Path, candidates: Path) -> list[Variant]:
    """PyTorch, fp32 ONNX, then the recipes in the order of `export.recipes`."""
    torch = Variant(
        TORCH, checkpoint, sum(file.stat().st_size for file in weight_files(checkpoint))
    )
    exported = read_json(candidates / "export.json")["recipes"]
    return [
        torch,
        *(
            Variant(
                one["recipe"],
                candidates / one["recipe"] / "model.onnx",
                one["bytes"],
                one["failure"],
            )
            for one in exported
        ),
    ]


def _examine_references(bench: Workbench, *variants: Variant) -> None:
    """What all others are held against."""
    for variant in variants:
        bench.examine(variant)
        if variant.failure:
            remedy = "Without it nothing can be compared; mend it and run again."
            raise ExportError(f"{variant.name} cannot be measured: {variant.failure}.", remedy)


def _judge_in_order(
    bench: Workbench, judge: Judge, variants: list[Variant], report: Report
) -> list[dict[str, Any]]:
    """Each one's verdict; after the first recipe that passes, the others are examined only where `examine_all` asks."""
    judged: list[dict[str, Any]] = []
    for done, variant in enumerate(variants, 1):
        wanted = judge.verify.examine_all or first_passing(judged) is None
        if wanted and variant.outputs is None and not variant.failure:
            bench.examine(variant)
        judged.append(judge.verdict(variant))
        report(done, {"progress": 0.6 * done / len(variants)})
    return judged


def _add_speed(judged: list[dict[str, Any]], variants: list[Variant]) -> None:
    for entry, variant in zip(judged, variants, strict=True):
        if variant.outputs is not None:
            entry |= {**variant.speed(), "speedup": variant.speedup_over(variants[0]).as_dict()}


def _test_outputs(bundle: Path, kind: Problem, test: Path) -> tuple[Floats, Array]:
    """The finished bundle's own outputs, before calibration, and what is right."""
    features = read_features(test)
    return Predictor(bundle, kind).outputs_of_features(features), kind.references(features)


def _serve(setting: Mapping[str, Any]) -> None:
    """A variant's own process."""
    kind = load_problem(setting["problem"])
    tokens, model = Path(setting["tokens"]), Path(setting["model"])
    features = read_features(tokens / "validation.arrow")
    info = TokensInfo.read(tokens)
    pad = info.pad_token_id
    run, run_all, write = (
        _load_torch(model, setting, kind) if model.is_dir() else _load_onnx(model, setting, kind)
    )

    def run_rows(rows: Indices) -> Floats:
        chosen = take_rows(features, rows)
        return kind.reduce(run(kind.collate(chosen, pad)), chosen)

    def outputs(file: str, alone: list[int]) -> dict[str, Any]:
        by_itself = [run_rows(np.asarray([row]))[0] for row in alone]
        np.savez(file, outputs=run_all(features, pad), alone=stack_rows(by_itself) if alone else [])
        if setting["writes"]:
            decode("0")  # a recipe that cannot write fails before it is judged
        return {}

    def decode(row: str) -> dict[str, Any]:
        return {"rate": tokens_per_second(write, features["input_ids"][int(row)], info.max_length)}

    answer_questions(
        {"outputs": outputs, "turn": lambda rows: time_turn(run_rows, rows), "decode": decode}
    )


def _load_onnx(model: Path, setting: Mapping[str, Any], kind: Problem) -> Runners:
    onnx = OnnxModel(model, kind.output_name, setting["threads"])
    return onnx.run, lambda features, pad: onnx.outputs(features, kind, pad), onnx_writer(onnx)


def _load_torch(model: Path, setting: Mapping[str, Any], kind: Problem) -> Runners:
    import torch

    from tasks.training.networks.torch_outputs import predict_torch

    torch.set_num_threads(setting["threads"])
    network = load_checkpoint(kind, model, setting["labels"]).eval()

    def run(batch: Batch) -> Floats:
        with torch.inference_mode():
            outputs: Floats = network(
                **{name: torch.from_numpy(values) for name, values in batch.items()}
            )[kind.output_name].numpy()
            return outputs

    return (
        run,
        lambda features, pad: predict_torch(network, kind, features, pad),
        torch_writer(network),
    )


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
