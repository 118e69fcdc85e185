"""The shipped bundle against what a user would run instead: texts in, labels out, in order.

python -m benchmarks.inference         # the default workspace's bundle on its own test texts
python -m benchmarks.inference --quick
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sections import BenchmarkSection, alternate, ratios, run_alone

SHIPPED, DISTILLED = "what ships (int8-static)", "what ships by int8-static-distilled"
PIPELINE, DYNAMIC = "transformers.pipeline (PyTorch fp32)", "plain export, quantize_dynamic"
BUNDLES = {SHIPPED: "models/bundle", DISTILLED: "models/distilled"}
BATCH = 32
MODULE = "benchmarks.inference"

Predict = Callable[[list[str]], Sequence[Any]]


def measure(quick: bool) -> BenchmarkSection:
    """Throughput on many texts, then the latency of single texts."""
    import pyarrow.parquet as pq

    from benchmarks.material import SHORT, default_workspace

    rounds, many, single = (2, 64, 8) if quick else (5, 2365, 64)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = default_workspace(Path(scratch), "verify", *SHORT)
        plain = export_plain(workspace.root)
        root = workspace.root
        test = pq.read_table(root / "data" / "splits" / "test.parquet", columns=["text"])
        texts = test["text"].to_pylist()[:many]
        ship_distilled(root)
        variants = (*BUNDLES, PIPELINE, DYNAMIC)
        settings = {name: {"root": str(root), "variant": name} for name in variants}
        answers = alternate(MODULE, settings, rounds, texts=texts, single=single)
        sizes = {
            name: sum(file.stat().st_size for file in (root / bundle).iterdir())
            for name, bundle in BUNDLES.items()
        }
        weights = root / "models" / "checkpoint" / "model.safetensors"
        sizes |= {PIPELINE: weights.stat().st_size, DYNAMIC: plain.stat().st_size}
    throughput = {
        name: [len(texts) / turn["seconds"] for turn in turns] for name, turns in answers.items()
    }
    latency_ms = {
        (name, q): [float(np.percentile(turn["alone"], q)) * 1e3 for turn in turns]
        for name, turns in answers.items()
        for q in (50, 95)
    }
    others = (PIPELINE, DYNAMIC)
    rows = [
        [
            name,
            f"{np.median(throughput[name]):.0f}",
            *(ratios(throughput[other], throughput[name]) for other in others),
            f"{np.median(latency_ms[name, 50]):.1f} / {np.median(latency_ms[name, 95]):.1f}",
            *(ratios(latency_ms[name, q], latency_ms[PIPELINE, q]) for q in (50, 95)),
            f"{sizes[name] / 1e6:.1f}",
        ]
        for name in answers
    ]
    note = (
        f"{len(texts)} texts as they come, batches of {BATCH} for the others, tokenizing included; "
        f"{single} texts one by one. Wanted of what ships: 6x the pipeline's throughput, "
        "2.5x that of quantize_dynamic, a seventh of PyTorch's latency, a sixth of its size."
    )
    header = (
        "variant",
        "texts/s",
        "over the pipeline",
        "over quantize_dynamic",
        "one text, p50 / p95 (ms)",
        "PyTorch's p50 over",
        "p95 over",
        "MB",
    )
    bars = {name: float(np.median(by_round)) for name, by_round in throughput.items()}
    return BenchmarkSection("Inference", header, rows, [note], bars, "texts/s")


def ship_distilled(root: Path) -> None:
    """Add the bundle of the distilled recipe to the workspace.

    Its student learns from few rows: only its speed and size matter here.
    """
    from benchmarks.material import keep_rows
    from tasks.core.progress import silent
    from tasks.params.workspace import Workspace
    from tasks.pipeline import find_stage, run_stage

    workspace = Workspace(root)
    shutil.copytree(root / "models" / "bundle", root / "kept")
    keep_rows(root, 640)
    params = workspace.params(["export.recipes=[int8-static-distilled]"])
    for name in ("export", "verify"):
        run_stage(find_stage(name), workspace, params, silent)
    (root / "models" / "bundle").rename(root / BUNDLES[DISTILLED])
    (root / "kept").rename(root / BUNDLES[SHIPPED])


def export_plain(root: Path) -> Path:
    """Trace the checkpoint and quantize the graph with onnxruntime's defaults."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    from tasks.encoding.encoder import OUTPUT_NAME, encode_rows
    from tasks.encoding.token_files import load_tokenizer
    from tasks.params.workspace import Workspace
    from tasks.problems import load_problem
    from tasks.shipping.graphs.encoder import trace_model
    from tasks.training.methods.checkpoints import load_checkpoint

    params = Workspace(root).params()
    problem, checkpoint = load_problem(params.problem), root / "models" / "checkpoint"
    model = load_checkpoint(problem.objective, checkpoint, params.labels).eval()
    tokenizer = load_tokenizer(checkpoint, 128)
    features = encode_rows(problem.encoding, tokenizer, problem.decoding.example(), ())
    example = problem.encoding.collate(features, 0)
    onnx.save(trace_model(model, example, OUTPUT_NAME, 17), root / "plain-fp32.onnx")
    quantize_dynamic(root / "plain-fp32.onnx", root / "plain.onnx")
    return root / "plain.onnx"


def serve(root: str, variant: str) -> None:
    """Answer questions in one variant's own process."""
    from tasks.shipping.workers import answer_questions

    if variant in BUNDLES:
        predict = shipped(Path(root), BUNDLES[variant])
    else:
        predict = {PIPELINE: pipeline, DYNAMIC: dynamic}[variant](Path(root))

    def turn(number: int, texts: list[str], single: int) -> dict[str, Any]:
        some = texts if number >= 0 else texts[:BATCH]
        started = time.perf_counter()
        assert len(predict(some)) == len(some)
        seconds, alone = time.perf_counter() - started, []
        for text in texts[:single]:
            started = time.perf_counter()
            predict([text])
            alone.append(time.perf_counter() - started)
        return {"seconds": seconds, "alone": alone}

    answer_questions({"turn": turn})


def shipped(root: Path, bundle: str) -> Predict:
    """A bundle, loaded as `ratchet predict` and the MLflow model load it."""
    from tasks.inference.predictor import Predictor
    from tasks.params.workspace import Workspace
    from tasks.problems import load_problem

    predictor = Predictor(root / bundle, load_problem(Workspace(root).params().problem))
    return lambda texts: predictor.predict({"text": texts})


def pipeline(root: Path) -> Predict:
    """transformers' pipeline."""
    from transformers import pipeline as make_pipeline

    checkpoint = str(root / "models" / "checkpoint")
    classify = make_pipeline("text-classification", model=checkpoint, device="cpu")
    return lambda texts: classify(texts, batch_size=BATCH, truncation=True, max_length=128)


def dynamic(root: Path) -> Predict:
    """onnxruntime with its defaults, batches padded to their longest text."""
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root / "models" / "checkpoint")
    session = onnxruntime.InferenceSession(
        str(root / "plain.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [graph_input.name for graph_input in session.get_inputs()]

    def predict(texts: list[str]) -> Sequence[Any]:
        outputs: list[Any] = []
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(
                texts[start : start + BATCH],
                padding=True,
                truncation=True,
                max_length=128,
                return_tensors="np",
            )
            inputs = {name: batch[name].astype(np.int64) for name in names}
            outputs.extend(session.run(None, inputs)[0].argmax(1))
        return outputs

    return predict


if __name__ == "__main__":
    run_alone(__doc__ or "", measure, serve)
