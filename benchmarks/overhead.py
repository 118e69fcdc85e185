"""Orchestration overhead: seconds outside the stages, and a run with nothing to do.

The latter against `dvc repro`.

python -m benchmarks.overhead          # a small workspace of its own, made by `ratchet init`
python -m benchmarks.overhead --quick
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sections import BenchmarkSection, ratios, run_alone

BIN = Path(sys.executable).parent
SMALL = (
    "finetune.epochs=1",
    "finetune.freeze_layers=5",
    "evaluate.bootstrap_resamples=100",
    "evaluate.behaviour.rows=5",
    "verify.timing_rows=16",
    "verify.max_metric_loss=1.0",
    "export.calibration_rows=16",
    "export.recipes=[int8-dynamic]",
)


def measure(quick: bool) -> BenchmarkSection:
    """Runs without a Prefect server, with one up, and with nothing to do."""
    rounds, runs = (2, 1) if quick else (7, 3)
    with tempfile.TemporaryDirectory() as scratch:
        root = make_workspace(Path(scratch))
        changes = iter(range(2, 100))
        cold = [overhead(root, next(changes)) for _ in range(runs)]
        with server(Path(scratch)) as address:
            warm = [overhead(root, next(changes), PREFECT_API_URL=address) for _ in range(runs)]
        command(root, "ratchet", "train")
        times: dict[str, list[float]] = {"ratchet": [], "dvc": []}
        for number in range(rounds):
            for name in list(times)[:: 1 if number % 2 else -1]:
                started = time.perf_counter()
                command(root, name, "train" if name == "ratchet" else "repro")
                times[name].append(time.perf_counter() - started)
    rows = [
        ["flow over its stages, cold, ephemeral Prefect", f"{np.median(cold):.1f} s", "10 s"],
        ["the same with a Prefect server up", f"{np.median(warm):.1f} s", "3 s"],
        ["`ratchet train`, nothing changed", f"{np.median(times['ratchet']):.1f} s", "4 s"],
        ["`dvc repro`, nothing changed", f"{np.median(times['dvc']):.1f} s", "–"],
        ["the first over the second", ratios(times["dvc"], times["ratchet"]), "1.5x"],
    ]
    return BenchmarkSection("Orchestration", ("what", "found", "wanted, at most"), rows)


def make_workspace(scratch: Path) -> Path:
    """A git repository with a workspace of 600 made-up rows, trained once."""
    draw = np.random.default_rng(0)
    nouns = ["door", "lamp", "river", "train", "garden"]
    nouns += ["paper", "window", "music", "bread", "stone"]
    adjectives = {"good": ["lovely", "great", "fine"], "bad": ["awful", "broken", "poor"]}
    lines = ["text,label"]
    for number in range(600):
        label = ("good", "bad")[number % 2]
        subject = " ".join(draw.choice(nouns, 4))
        lines.append(f"the {subject} {number} was {draw.choice(adjectives[label])},{label}")
    (scratch / "data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command(scratch, "git", "init", "-q")
    command(scratch, "ratchet", "init", "space", "--yes", "--data", "data.csv")
    root = scratch / "space"
    from tasks.params.schema import save_overrides

    save_overrides(root / "params.yaml", SMALL)
    command(root, "ratchet", "train")
    return root


def overhead(root: Path, change: int, **environment: str) -> float:
    """Seconds outside the stages, of a run in which every stage has work to do."""
    arguments = ("train", "--force", "--json", "-S", f"finetune.warmup_share=0.{change:02d}")
    output = command(root, "ratchet", *arguments, **environment)
    return float(json.loads(output)["overhead_s"])


def command(root: Path, name: str, *arguments: str, **environment: str) -> str:
    """A command's standard output; its failure ends the benchmark."""
    variables = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PREFECT_", "MLFLOW_"))
    }
    variables |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | environment
    done = subprocess.run(
        [name, *arguments], cwd=root, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def server(scratch: Path) -> Iterator[str]:
    """Run a Prefect server; yields its address."""
    import httpx
    from tenacity import retry, stop_after_delay, wait_fixed

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PREFECT_HOME": str(scratch / "prefect")}
    command_line = [str(BIN / "prefect"), "server", "start", "--port", str(port)]
    process: Any = subprocess.Popen(
        command_line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}/api"

    @retry(stop=stop_after_delay(120), wait=wait_fixed(0.5))
    def healthy() -> None:
        httpx.get(f"{address}/health").raise_for_status()

    try:
        healthy()
        yield address
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    run_alone(__doc__ or "", measure)
