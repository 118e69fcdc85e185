"""A Markdown table of what a classifier's head reads and how it starts.

    python -m benchmarks.heads --rows 2000 --seeds 3     # on the repository's default workspace
    python -m benchmarks.heads --workspace DIR           # on one of your own, trained before
    python -m benchmarks.heads -S finetune.epochs=5 -S finetune.learning_rate=2e-4

One process per run; each seed has rows of its own. The metric covers the whole test split, the
seconds the whole stage.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks.material import ROOT, default_workspace, keep_rows
from benchmarks.methods import mean_and_deviation, run
from tasks.core.quiet import quiet_libraries

FROZEN = ("finetune.method=frozen", "finetune.freeze_layers=all")
SETTINGS = {
    "full, own head": ("finetune.pooling=own",),
    "full, mean": ("finetune.pooling=mean",),
    "full, mean, solved": ("finetune.pooling=mean", "finetune.head_start=solved"),
    "full, mean, contrastive": (
        "finetune.pooling=mean",
        "finetune.head_start=solved",
        "finetune.loss=contrastive",
    ),
    "frozen, own head, solved": (*FROZEN, "finetune.pooling=own", "finetune.head_start=solved"),
    "frozen, mean, solved": (*FROZEN, "finetune.pooling=mean", "finetune.head_start=solved"),
}


def main() -> None:
    """Run what the command line asks for and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=0, help="training rows; 0: all")
    parser.add_argument(
        "--seeds", type=int, default=3, help="runs of each setting, each with other rows"
    )
    parser.add_argument("--workspace", type=Path, help="default: the repository's")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as scratch:
        root = given.workspace or default_workspace(Path(scratch), "tokenize").root
        draws = [drawn(root, Path(scratch), given.rows, seed) for seed in range(given.seeds)]
        print(
            "| head | seconds | metric (test), one per seed | mean ± deviation |\n|" + " --- |" * 4
        )
        for name in given.settings:
            overrides = [*given.overrides, *SETTINGS[name]]
            setting = {"root": str(given.workspace or ROOT), "overrides": overrides}
            found = [
                run(setting | {"tokens": str(tokens), "seed": seed})
                for seed, tokens in enumerate(draws)
            ]
            scores = [one["metric"] for one in found]
            seconds = statistics.median(one["all_seconds"] for one in found)
            each = ", ".join(f"{score:.3f}" for score in scores)
            mean = mean_and_deviation(scores)
            print(f"| {name} | {seconds:.0f} | {each} | {mean} |", flush=True)


def drawn(root: Path, scratch: Path, rows: int, seed: int) -> Path:
    """A copy of the workspace's tokens with `rows` of the training rows, other ones by seed."""
    copy = scratch / f"draw{seed}"
    tokens = shutil.copytree(root / "data" / "tokens", copy / "data" / "tokens")
    if rows:
        keep_rows(copy, rows, seed)
    return tokens


if __name__ == "__main__":
    main()
