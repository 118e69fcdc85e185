"""Models from few labels or none, by `ratchet init` and `train` alone: CLINC150's intents in scope.

Each draw has training rows and unlabelled rows of its own; validation and test rows are the same.
The accuracy is of the int8 bundle that ships.

python -m benchmarks.models            # fetches the data from its authors' repository
RATCHET_CLINC150=data_full.json python -m benchmarks.models --quick
"""

from __future__ import annotations

import csv
import json
import os
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.methods import mean_and_deviation
from benchmarks.overhead import command
from benchmarks.sections import BenchmarkSection, run_alone

DATA = (
    "https://raw.githubusercontent.com/clinc/oos-eval/"
    "828f8093932c8fe6ca7936c3d2e52903b1c523de/data/data_full.json"
)
DRAWS = 3
HELD_OUT = {"validation": 1_500, "test": 2_250}  # rows
Rows = Sequence[tuple[str, str]]  # (text, label)


@dataclass(frozen=True)
class Setting:
    """What `init` is given: rows a label, unlabelled rows, a recipe."""

    labelled: int
    unlabelled: int
    recipe: str

    @property
    def draws(self) -> int:
        """Without any row to draw, one."""
        return DRAWS if self.labelled or self.unlabelled else 1


SETTINGS = (
    Setting(0, 0, "zero-shot"),
    Setting(0, 6_000, "zero-shot"),
    Setting(1, 0, "frozen"),
    Setting(1, 6_000, "frozen"),
    Setting(8, 0, "frozen"),
    Setting(8, 0, "few-shot"),
    Setting(8, 6_000, "few-shot"),
)


def measure(quick: bool) -> BenchmarkSection:
    """Accuracy and seconds of each setting."""
    table = []
    with tempfile.TemporaryDirectory() as scratch:
        data = read(Path(scratch))
        for setting in SETTINGS[1:4:2] if quick else SETTINGS:
            draws = range(1 if quick else setting.draws)
            runs = [train(Path(scratch), data, setting, draw) for draw in draws]
            scores = [run["metrics"]["accuracy"] for run in runs]
            plain = [run["plain"]["metrics"]["accuracy"]["value"] for run in runs]
            seconds = [
                statistics.median(
                    sum(stage["seconds"] for stage in run["stages"] if stage["name"] in names)
                    for run in runs
                )
                for names in ({"finetune"}, {stage["name"] for stage in runs[0]["stages"]})
            ]
            table.append([
                str(setting.labelled), f"{setting.unlabelled:,}", setting.recipe,
                mean_and_deviation(scores), f"{seconds[0]:.0f} s", f"{seconds[1]:.0f} s",
                mean_and_deviation(plain),
            ])  # fmt: skip
            print(" | ".join(table[-1]), flush=True)
    return BenchmarkSection(
        "Models from few labels",
        (
            *("rows a label", "unlabelled rows", "recipe", "accuracy, int8", "finetune"),
            *("all stages", "TF-IDF + logistic regression"),
        ),
        table,
        [
            f"CLINC150, 150 intents in scope, {HELD_OUT['test']:,} test rows; mean ± deviation of "
            f"{DRAWS} draws of training and unlabelled rows."
        ],
    )


def read(scratch: Path) -> dict[str, Rows]:
    """Split -> rows in scope, of the authors' file or of the one that RATCHET_CLINC150 names."""
    from tasks.data.sources.fetching import fetch
    from tasks.params.ingestion import Source
    from tasks.params.workspace import cache_dir

    address = os.environ.get("RATCHET_CLINC150", DATA)
    (file,) = fetch(Source(url=address), Path.cwd(), cache_dir())
    content: dict[str, Any] = json.loads(file.path.read_text(encoding="utf-8"))
    names = {"train": "train", "validation": "val", "test": "test"}
    data: dict[str, Rows] = {
        split: [(text, label) for text, label in content[names[split]]] for split in names
    }
    for split, count in HELD_OUT.items():
        rows = sorted(data[split])
        random.Random(0).shuffle(rows)
        write(scratch / f"{split}.csv", ("text", "label"), rows[:count])
    return data


def train(scratch: Path, data: dict[str, Rows], setting: Setting, draw: int) -> Any:
    """What `ratchet train --json` says of a workspace made for the setting."""
    rows = sorted(data["train"])
    random.Random(draw).shuffle(rows)
    seen: Counter[str] = Counter()
    labelled: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for text, label in rows:
        seen[label] += 1
        (labelled if seen[label] <= setting.labelled else others).append((text, label))
    write(scratch / "train.csv", ("text", "label"), labelled)
    write(scratch / "pool.csv", ("text",), [(text,) for text, _ in others[: setting.unlabelled]])
    options = ["--validation", "validation.csv", "--test", "test.csv", "--recipe", setting.recipe]
    options += ["--train", "train.csv"] if setting.labelled else []
    options += ["--unlabelled", "pool.csv"] if setting.unlabelled else []
    name = f"{setting.labelled}-{setting.unlabelled}-{setting.recipe}-{draw}"
    command(scratch, "ratchet", "init", name, "--yes", *options)
    return json.loads(command(scratch / name, "ratchet", "train", "--json"))


def write(file: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])


if __name__ == "__main__":
    run_alone(__doc__ or "", measure)
