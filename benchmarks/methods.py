"""Every fine-tuning method on the default workspace, as a Markdown table.

Trained parameters, time, memory and macro-F1 of each.

    python -m benchmarks.methods --rows 2000 --seeds 3  # a process a run; keep the machine quiet
    python -m benchmarks.methods --quick                # 200 rows, one seed: whether it works

Data, base model, epochs and all other parameters come from params.yaml; the method and its learning
rate come from the table below. Metrics cover the whole test split. Peak memory is the training
process's, libraries included (the GPU's on CUDA).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.material import ROOT, default_workspace, keep_rows
from tasks.core.quiet import quiet_libraries

# The fewer parameters a method trains, and the further from the output, the larger its rate. There
# was no search: of one to three rates a method, the best after one epoch of 1,000 rows (32 steps).
# So few steps cannot tell rates apart for bitfit, p-tuning and rslora; theirs are guesses.
LEARNING_RATES = {
    "full": 1e-4,
    "frozen": 1e-2,
    "lora": 3e-3,
    "rslora": 2e-3,
    "dora": 3e-3,
    "adalora": 1e-2,
    "ia3": 3e-2,
    "bitfit": 3e-3,
    "adapter": 1e-2,
    "prefix-tuning": 1e-2,
    "prompt-tuning": 1e-1,
    "p-tuning": 1e-3,
}
COLUMNS = (
    "method",
    "learning rate",
    "trained parameters",
    "seconds an epoch",
    "peak memory (MB)",
    "macro-F1 (test)",
)


def main() -> None:
    """Run the methods that the command line names and print the table."""
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
    # each run's process gets its setting as JSON
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    quiet_libraries()
    if arguments.run:
        print(json.dumps(measure(**json.loads(arguments.run))))
        return
    rows, seeds = (200, 1) if arguments.quick else (arguments.rows, arguments.seeds)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = default_workspace(Path(scratch), "tokenize")
        keep_rows(workspace.root, rows)
        tokens = workspace.root / "data" / "tokens"
        print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
        for method in arguments.methods:
            setting = {"tokens": str(tokens), "method": method, "epochs": arguments.epochs}
            runs = [run(setting | {"seed": seed}) for seed in range(seeds)]
            print(line(method, runs), flush=True)


def run(setting: dict[str, Any]) -> dict[str, float]:
    """`measure` in a process of its own, because peak memory is a process's."""
    command = [sys.executable, "-m", "benchmarks.methods", "--run", json.dumps(setting)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{setting}: {done.stderr[-2000:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(tokens: str, method: str, epochs: float | None, seed: int) -> dict[str, float]:
    """Train once; returns the size, time, peak memory and test metric."""
    from tasks.core.files import read_json
    from tasks.core.progress import silent
    from tasks.encoding.token_files import TokensInfo, read_features
    from tasks.finetuning import finetune_model
    from tasks.params.workspace import Workspace, cache_dir
    from tasks.problems import load_problem
    from tasks.training.methods.checkpoints import load_checkpoint
    from tasks.training.networks.device import pick_device
    from tasks.training.networks.torch_outputs import predict_torch

    overrides = [
        f"finetune.method={method}",
        f"finetune.learning_rate={LEARNING_RATES[method]:.1e}",
    ]
    if method == "frozen":
        overrides.append("finetune.freeze_layers=all")
    if epochs:
        overrides.append(f"finetune.epochs={epochs}")
    params = Workspace(ROOT).params(overrides)
    problem, device = load_problem(params.problem), pick_device(params.device)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        finetune_model(
            Path(tokens),
            out / "checkpoint",
            out / "training.json",
            start=None,
            problem=params.problem,
            labels=params.labels,
            base_model=params.base_model,
            finetune=params.finetune,
            seed=seed,
            device=device,
            root=ROOT,
            cache=cache_dir(),
            work=out / "work",
            report=silent,
        )
        facts = read_json(out / "training.json")
        model = load_checkpoint(problem.objective, out / "checkpoint", params.labels).to(device)
    test = read_features(Path(tokens) / "test.arrow")
    pad = TokensInfo.read(Path(tokens)).pad_token_id
    outputs = predict_torch(model, problem.encoding, test, pad, device)
    references = problem.encoding.references(test)
    metrics = problem.scoring.metrics(outputs, references, params.labels)
    names = ("trained_parameters", "seconds_per_epoch", "peak_memory_mb")
    return {name: facts[name] for name in names} | {"metric": metrics[problem.scoring.metric]}


def line(method: str, runs: list[dict[str, float]]) -> str:
    """A row of the table over the seeds: the median time, the highest memory, mean ± sd of F1."""
    metrics = [run["metric"] for run in runs]
    spread = f" ± {statistics.stdev(metrics):.3f}" if len(metrics) > 1 else ""
    cells = (
        method,
        f"{LEARNING_RATES[method]:.0e}",
        f"{runs[0]['trained_parameters']:,}",
        f"{statistics.median(run['seconds_per_epoch'] for run in runs):.1f}",
        f"{max(run['peak_memory_mb'] for run in runs):.0f}",
        f"{statistics.mean(metrics):.3f}{spread}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
