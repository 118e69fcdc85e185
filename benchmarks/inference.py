"""What ships beside what a user would run instead: texts in, labels out, in the order they come.

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
    """Throughput of many texts, then each of some by itself."""
    import pyarrow.parquet as pq

    from benchmarks.material import SHORT, default_workspace

    rounds, many, single = (2, 64, 8) if quick else (5, 2365, 64)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = default_workspace(Path(scratch), "verify", *SHORT)
        plain = export_plain(workspace.root)
        texts = pq.read_table(
            workspace.root / "data" / "splits" / "test.parquet", columns=["text"]
        )["text"].to_pylist()[:many]
        ship_distilled(workspace.root)
        settings = {
            name: {"root": str(workspace.root), "variant": name}
            for name in (*BUNDLES, PIPELINE, DYNAMIC)
        }
        found = alternate(MODULE, settings, rounds, texts=texts, single=single)
        sizes = {
            **{
                name: sum(file.stat().st_size for file in (workspace.root / place).iterdir())
                for name, place in BUNDLES.items()
            },
            PIPELINE: (workspace.root / "models" / "checkpoint" / "model.safetensors")
            .stat()
            .st_size,
            DYNAMIC: plain.stat().st_size,
        }
    throughput = {
        name: [len(texts) / turn["seconds"] for turn in turns] for name, turns in found.items()
    }
    at = {
        name: {
            q: [float(np.percentile(turn["alone"], q)) * 1e3 for turn in turns] for q in (50, 95)
        }
        for name, turns in found.items()
    }
    others = (PIPELINE, DYNAMIC)
    rows = [
        [
            name, f"{np.median(throughput[name]):.0f}", *(ratios(throughput[other], throughput[name]) for other in others),
            f"{np.median(at[name][50]):.1f} / {np.median(at[name][95]):.1f}",
            *(ratios(at[name][q], at[PIPELINE][q]) for q in (50, 95)), f"{sizes[name] / 1e6:.1f}",
        ]
        for name in found
    ]  # fmt: skip
    note = (
        f"{len(texts)} texts as they come, batches of {BATCH} for the others, tokenizing included; {single} texts one by one. Wanted of "
        "what ships: 6x the pipeline's throughput, 2.5x that of quantize_dynamic, a seventh of PyTorch's latency, a sixth of its size."
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
    return BenchmarkSection(
        "Inference",
        header,
        rows,
        [note],
        {name: float(np.median(values)) for name, values in throughput.items()},
        "texts/s",
    )


def ship_distilled(root: Path) -> None:
    """The bundle of that recipe beside the other; its student learns from a few rows, for only its speed and size matter here."""
    from benchmarks.material import keep_rows
    from tasks.core.progress import silent
    from tasks.params.workspace import Workspace
    from tasks.pipeline import find_stage, run_stage

    workspace = Workspace(root)
    shutil.copytree(root / "models" / "bundle", root / "kept")
    keep_rows(root, 640)
    for name in ("export", "verify"):
        run_stage(
            find_stage(name),
            workspace,
            workspace.params(["export.recipes=[int8-static-distilled]"]),
            silent,
        )
    (root / "models" / "bundle").rename(root / BUNDLES[DISTILLED])
    (root / "kept").rename(root / BUNDLES[SHIPPED])


def export_plain(root: Path) -> Path:
    """The checkpoint's graph as it is traced, quantized with the defaults."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    from tasks.encoding.encoder import OUTPUT_NAME, encode_rows
    from tasks.encoding.token_files import load_tokenizer
    from tasks.params.workspace import Workspace
    from tasks.problems import load_problem
    from tasks.shipping.graphs.encoder import trace_model
    from tasks.training.methods.checkpoints import load_checkpoint

    params = Workspace(root).params()
    kind, checkpoint = load_problem(params.problem), root / "models" / "checkpoint"
    model = load_checkpoint(kind.objective, checkpoint, params.labels).eval()
    example = kind.encoding.collate(
        encode_rows(kind.encoding, load_tokenizer(checkpoint, 128), kind.decoding.example(), ()), 0
    )
    onnx.save(trace_model(model, example, OUTPUT_NAME, 17), root / "plain-fp32.onnx")
    quantize_dynamic(root / "plain-fp32.onnx", root / "plain.onnx")
    return root / "plain.onnx"


def serve(root: str, variant: str) -> None:
    """A variant's own process."""
    from tasks.shipping.workers import answer_questions

    predict = (
        shipped(Path(root), BUNDLES[variant])
        if variant in BUNDLES
        else {PIPELINE: pipeline, DYNAMIC: dynamic}[variant](Path(root))
    )

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
    """A bundle, by the way that `ratchet predict` and the MLflow model go."""
    from tasks.inference.predictor import Predictor
    from tasks.params.workspace import Workspace
    from tasks.problems import load_problem

    predictor = Predictor(root / bundle, load_problem(Workspace(root).params().problem))
    return lambda texts: predictor.predict({"text": texts})


def pipeline(root: Path) -> Predict:
    """transformers' own."""
    from transformers import pipeline as make

    found = make("text-classification", model=str(root / "models" / "checkpoint"), device="cpu")
    return lambda texts: found(texts, batch_size=BATCH, truncation=True, max_length=128)


def dynamic(root: Path) -> Predict:
    """onnxruntime with its defaults, batches padded to their longest."""
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root / "models" / "checkpoint")
    session = onnxruntime.InferenceSession(
        str(root / "plain.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_inputs()]

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
            outputs.extend(
                session.run(None, {name: batch[name].astype(np.int64) for name in names})[0].argmax(
                    1
                )
            )
        return outputs

    return predict


if __name__ == "__main__":
    run_alone(__doc__ or "", measure, serve)
