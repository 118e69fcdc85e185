"""Ingesting, validating, splitting and tokenizing many rows against tokenizing alone; peak memory.

Tokenizing alone is what a user would run instead: transformers' fast tokenizer, called on batches.
As a lower bound, its Rust code runs without anyone reading the ids.

python -m benchmarks.data --quick      # 20,000 rows
python -m benchmarks.data              # 1,000,000
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sections import BenchmarkSection, ratios, run_alone

STAGES = ("ingest", "validate", "split", "tokenize")
BATCH = 10_000
ALONE = ("transformers", "rust")
RATCHET = ("-c", "from flows.cli.main import main; main()")


def measure(quick: bool) -> BenchmarkSection:
    """Seconds and peak memory of each stage, and of each way to tokenize alone.

    Each runs in a process of its own; they take turns.
    """
    rows, rounds = (20_000, 1) if quick else (1_000_000, 3)
    with tempfile.TemporaryDirectory() as scratch:
        root = make_workspace(Path(scratch), rows)
        turns = [
            {stage: timed(root, *RATCHET, "stage", stage) for stage in STAGES}
            | {way: timed(root, "-m", "benchmarks.data", str(root), way) for way in ALONE}
            for _ in range(rounds)
        ]
    seconds = {name: [turn[name][0] for turn in turns] for name in turns[0]}
    together = [sum(turn[stage][0] for stage in STAGES) for turn in turns]
    by_stage = [
        f"{np.median(seconds[stage]):.1f} s, {max(turn[stage][1] for turn in turns):.0f} MB"
        for stage in STAGES
    ]
    over = [f"{ratios(seconds[way], together)}, {np.median(seconds[way]):.1f} s" for way in ALONE]
    note = (
        "Made-up sentences of 5 to 30 words, two classes, one CSV file; "
        "median seconds and the most memory. "
        "Tokenizing alone: transformers' fast tokenizer, called with batches of 1,000 texts "
        "for their ids; its Rust code: without reading an id. "
        "Wanted: 1.5x of tokenizing alone, at most 2 GB at any size."
    )
    header = ("rows", *STAGES, "together", "over tokenizing alone", "over its Rust code")
    row = [f"{rows:,}", *by_stage, f"{np.median(together):.1f} s", *over]
    return BenchmarkSection("Data", header, [row], [note])


def make_workspace(scratch: Path, rows: int) -> Path:
    """A workspace whose CSV file has `rows` rows, no two alike."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    draw = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = pa.array(
        ["".join(draw.choice(letters, length)) for length in draw.integers(2, 10, 20_000)]
    )
    labels = pa.array(["good", "bad"])
    schema = pa.schema([("text", pa.string()), ("label", pa.string())])
    options = csv.WriteOptions(quoting_style="none")
    with csv.CSVWriter(scratch / "data.csv", schema, write_options=options) as file:
        for start in range(0, rows, BATCH):
            lengths = draw.integers(5, 31, min(BATCH, rows - start))
            ends = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
            drawn = words.take(pa.array(draw.integers(0, len(words), lengths.sum())))
            sentences = pc.binary_join(pa.ListArray.from_arrays(ends, drawn), " ")
            classes = labels.take(pa.array(np.arange(len(lengths)) % 2))
            file.write_table(pa.table([sentences, classes], schema=schema))
    ratchet = Path(sys.executable).parent / "ratchet"
    command: list[str | Path] = [ratchet, "init", "space", "--yes", "--data", "data.csv"]
    subprocess.run(command, cwd=scratch, capture_output=True, check=True)
    return scratch / "space"


# a forked process inherits its parent's peak memory, so a small process starts the measured one
_WATCH = """
import json, os, sys, time
command = [sys.executable, *sys.argv[1:]]
started = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawn(sys.executable, command, os.environ), 0)
print(json.dumps([status, time.perf_counter() - started, usage.ru_maxrss]))
"""


def timed(root: Path, *arguments: str) -> tuple[float, float]:
    """(seconds, MB at the peak) of a Python process in the workspace."""
    code = Path(__file__).resolve().parent.parent
    watch = [sys.executable, "-c", _WATCH, *arguments]
    environment = os.environ | {"PYTHONPATH": str(code)}
    done = subprocess.run(
        watch, cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    status, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    if status:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return seconds, peak / (1e6 if sys.platform == "darwin" else 1e3)


def tokenize_alone(root: Path, way: str) -> None:
    """The work no pipeline can avoid: texts already in memory, through the fast tokenizer.

    way  one of ALONE
    """
    import pyarrow.parquet as pq

    rows = pq.read_table(root / "data" / "raw" / "rows.parquet", columns=["text"])
    texts = rows["text"].to_pylist()
    directory = root / "data" / "tokens" / "tokenizer"
    if way == "rust":
        from tasks.encoding.token_files import load_tokenizer

        tokenize = load_tokenizer(directory, 128).encode_batch_fast
    else:
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        tokenize = partial(
            tokenizer,
            truncation=True,
            max_length=128,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
    for start in range(0, len(texts), 1_000):
        tokenize(texts[start : start + 1_000])


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[2] in ALONE:
        tokenize_alone(Path(sys.argv[1]), sys.argv[2])
    else:
        run_alone(__doc__ or "", measure)
