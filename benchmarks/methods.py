"""A Markdown table that compares every fine-tuning method on the repository's default workspace.

    python -m benchmarks.methods --rows 2000 --seeds 3  # one process per run, on a quiet machine
    python -m benchmarks.methods --quick                # 200 rows, one seed: does it work at all?

Each row shows a method's trained parameters, time, memory and metric. The method and its learning
rate are from LEARNING_RATES; params.yaml sets the data, the base model, the epochs and everything
else. Metrics cover the whole test split. Peak memory is that of the training process, including
libraries (on CUDA, that of the card).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.material import ROOT, default_workspace, keep_rows
from tasks.core.quiet import quiet_libraries

# The fewer weights a method trains, and the further they are from the output, the larger its rate.
# There was no search: each rate is the best of one to three in one epoch of 1,000 rows. Those 32
# steps are too few to judge bitfit, p-tuning and rslora, so their rates are guesses.
LEARNING_RATES = {
    "full": 1e-4, "frozen": 1e-2, "lora": 3e-3, "rslora": 2e-3, "dora": 3e-3, "adalora": 1e-2,
    "ia3": 3e-2, "bitfit": 3e-3, "adapter": 1e-2, "prefix-tuning": 1e-2, "prompt-tuning": 1e-1,
    "p-tuning": 1e-3,
}  # fmt: skip
COLUMNS = (
    "method",
    "learning rate",
    "trained parameters",
    "seconds an epoch",
    "peak memory (MB)",
    "macro-F1 (test)",
)


def main() -> None:
    """Run what the command line asks for and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2000, help="training rows")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method")
    parser.add_argument("--epochs", type=float, help="default: params.yaml's")
    parser.add_argument(
        "--methods", nargs="+", choices=LEARNING_RATES, default=list(LEARNING_RATES)
    )
    parser.add_argument("--quick", action="store_true", help="200 rows, one seed")
    parser.add_argument(
        "--run", help=argparse.SUPPRESS
    )  # a run's setting as JSON: what the processes are started with
    given = parser.parse_args()
    quiet_libraries()
    if given.run:
        print(json.dumps(measure(**json.loads(given.run))))
        return
    rows, seeds = (200, 1) if given.quick else (given.rows, given.seeds)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = default_workspace(Path(scratch), "tokenize")
        keep_rows(workspace.root, rows)
        tokens = workspace.root / "data" / "tokens"
        print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
        for method in given.methods:
            setting = {"root": str(ROOT), "tokens": str(tokens)}
            overrides = overrides_of(method, given.epochs)
            found = [run(setting | {"overrides": overrides, "seed": seed}) for seed in range(seeds)]
            print(line(method, found), flush=True)


def run(setting: dict[str, Any]) -> dict[str, float]:
    """`measure` in a process of its own, for the memory is the process's."""
    command = [sys.executable, "-m", "benchmarks.methods", "--run", json.dumps(setting)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{setting}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def overrides_of(method: str, epochs: float | None) -> list[str]:
    """How params.yaml is overridden for a method."""
    return [
        f"finetune.method={method}",
        f"finetune.learning_rate={LEARNING_RATES[method]:.1e}",
        *(["finetune.freeze_layers=all"] if method == "frozen" else []),
        *([f"finetune.epochs={epochs}"] if epochs else []),
    ]


def measure(root: str, tokens: str, overrides: list[str], seed: int) -> dict[str, float]:
    """Train once on a workspace's tokens, with its params.yaml; what it took and came to."""
    from tasks.core.files import read_json
    from tasks.core.progress import silent
    from tasks.encoding.token_files import TokensInfo, read_features
    from tasks.finetuning import finetune_model
    from tasks.params.workspace import Workspace, cache_dir
    from tasks.problems import load_problem
    from tasks.training.methods.checkpoints import load_checkpoint
    from tasks.training.networks.device import pick_device
    from tasks.training.networks.torch_outputs import predict_torch

    params = Workspace(Path(root)).params(overrides)
    kind, device = load_problem(params.problem), pick_device(params.device)
    with tempfile.TemporaryDirectory() as scratch:
        out, started = Path(scratch), time.perf_counter()
        finetune_model(
            Path(tokens), out / "checkpoint", out / "training.json", start=None,
            problem=params.problem, labels=params.labels, base_model=params.base_model,
            finetune=params.finetune, seed=seed, device=device, root=Path(root), cache=cache_dir(),
            work=out / "work", report=silent,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        facts = read_json(out / "training.json")
        model = load_checkpoint(kind.objective, out / "checkpoint", params.labels)
        model.to(device)  # type: ignore[arg-type]  # decorator hides self
    test = read_features(Path(tokens) / "test.arrow")
    outputs = predict_torch(
        model, kind.encoding, test, TokensInfo.read(Path(tokens)).pad_token_id, device
    )
    metric = kind.scoring.metrics(outputs, kind.encoding.references(test), params.labels)[
        kind.scoring.metric
    ]
    names = ("trained_parameters", "seconds_per_epoch", "peak_memory_mb")
    return {name: facts[name] for name in names} | {"metric": metric, "all_seconds": seconds}


def line(method: str, found: list[dict[str, float]]) -> str:
    """A table row: the metric's mean and deviation over seeds, the median time, the peak memory."""
    cells = (
        method,
        f"{LEARNING_RATES[method]:.0e}",
        f"{found[0]['trained_parameters']:,}",
        f"{statistics.median(one['seconds_per_epoch'] for one in found):.1f}",
        f"{max(one['peak_memory_mb'] for one in found):.0f}",
        mean_and_deviation([one["metric"] for one in found]),
    )
    return f"| {' | '.join(cells)} |"


def mean_and_deviation(values: list[float]) -> str:
    """As in '0.619 ± 0.008'; the mean alone of a single value."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
