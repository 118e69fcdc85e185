"""The model that `ratchet init` and training give on a user's own rows, beside the plain method.

For each seed a random sample of the files' rows is trained on and others are judged on, by the
checkpoint; docs/defaults.md has the figures.

python -m benchmarks.defaults reviews.csv --rows 500 --seeds 0 1 -S finetune.epochs=10
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks.material import run_stages
from benchmarks.overhead import command
from tasks.core.quiet import quiet_libraries
from tasks.params.workspace import Workspace
from tasks.reports.stage_reports import EvaluationReport

TEST_ROWS = 1000


def main() -> None:
    """Print one line for each seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help="CSV or JSON lines")
    parser.add_argument("--rows", type=int, default=500, help="to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--init", action="append", default=[], help="argument of `ratchet init`")
    arguments = parser.parse_args()
    quiet_libraries()
    rows = pd.concat([read(file) for file in arguments.files])
    for seed in arguments.seeds:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            root = make_workspace(Path(scratch), rows, arguments.rows, seed, arguments.init)
            line = train(root, [f"seed={seed}", *arguments.set])
        print(f"seed {seed}: {line}; {time.perf_counter() - started:.0f} s", flush=True)


def read(file: Path) -> pd.DataFrame:
    """The file's rows, each value as it stands there."""
    if file.suffix == ".jsonl":
        return pd.read_json(file, lines=True, dtype=False)
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def make_workspace(
    scratch: Path, rows: pd.DataFrame, train_rows: int, seed: int, options: list[str]
) -> Path:
    """A workspace by `ratchet init --yes`: `train_rows` rows, a fifth more for validation, the
    rest (at most TEST_ROWS) for the test.
    """
    drawn = rows.sample(frac=1, random_state=seed)
    held_out = train_rows + max(100, train_rows // 5)
    ends = (0, train_rows, held_out, held_out + TEST_ROWS)
    names: list[str] = []
    for name, begin, end in zip(("train", "validation", "test"), ends, ends[1:], strict=False):
        drawn[begin:end].to_json(
            scratch / f"{name}.jsonl", orient="records", lines=True, force_ascii=False
        )
        names += [f"--{name}", f"{name}.jsonl"]
    command(scratch, "ratchet", "init", "workspace", "--yes", *options, *names)
    return scratch / "workspace"


def train(root: Path, overrides: list[str]) -> str:
    """Run the stages up to the evaluation; one line about the checkpoint."""
    workspace = Workspace(root)
    params = workspace.params(overrides)
    run_stages(workspace, params, "evaluate")
    report = EvaluationReport.read(root / "reports" / "evaluation.json")
    ours, values = report.metrics[report.metric]["value"], params.finetune
    plain = "no plain method"
    if report.baseline:
        plain = f"{report.baseline.name} {report.baseline.metrics[report.metric]['value']:.3f}"
    return (
        f"{report.metric} {ours:.3f}, {plain}; {values.epochs} epochs"
        f" of {values.batch_size}, {values.learning_rate:g}, head {values.head_learning_rate}"
    )


if __name__ == "__main__":
    main()
