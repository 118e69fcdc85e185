"""Ingesting, validating, splitting and tokenizing many rows, beside the fast tokenizer alone in bare batches; and the memory it takes.

python -m benchmarks.data --quick      # 20,000 rows
python -m benchmarks.data              # 1,000,000
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.sections import Section, run_alone

STAGES = ("ingest", "validate", "split", "tokenize")
BATCH = 10_000


def measure(quick: bool) -> Section:
    """A process for each stage and for the tokenizer; seconds and peak memory of each."""
    table = []
    for rows in (20_000,) if quick else (1_000_000,):
        with tempfile.TemporaryDirectory() as scratch:
            root = make_workspace(Path(scratch), rows)
            found = {stage: timed(root, "-m", "tasks", stage) for stage in STAGES}
            bare = timed(root, "-m", "benchmarks.data", str(root))
        whole = sum(seconds for seconds, _ in found.values())
        each = [f"{seconds:.1f} s, {megabytes:.0f} MB" for seconds, megabytes in found.values()]
        table.append([f"{rows:,}", *each, f"{whole:.1f} s", f"{bare[0]:.1f} s", f"{whole / bare[0]:.2f}x"])
    note = "Made-up sentences of 5 to 30 words, two classes, one CSV file. Wanted: 1.5x, at most 2 GB at any size."
    return Section("Data", ("rows", *STAGES, "together", "tokenizing alone", "ratio"), table, [note])


def make_workspace(scratch: Path, rows: int) -> Path:
    """A workspace whose CSV file has so many rows, no two of them alike."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    draw = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = pa.array(["".join(draw.choice(letters, length)) for length in draw.integers(2, 10, 20_000)])
    labels = pa.array(["good", "bad"])
    schema = pa.schema([("text", pa.string()), ("label", pa.string())])
    options = csv.WriteOptions(quoting_style="none")
    with csv.CSVWriter(scratch / "data.csv", schema, write_options=options) as file:
        for start in range(0, rows, BATCH):
            lengths = draw.integers(5, 31, min(BATCH, rows - start))
            ends = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
            sentences = pc.binary_join(
                pa.ListArray.from_arrays(ends, words.take(pa.array(draw.integers(0, len(words), lengths.sum())))), " "
            )
            file.write_table(pa.table([sentences, labels.take(pa.array(np.arange(len(lengths)) % 2))], schema=schema))
    ratchet = Path(sys.executable).parent / "ratchet"
    subprocess.run([ratchet, "init", "space", "--yes", "--data", "data.csv"], cwd=scratch, capture_output=True, check=True)
    return scratch / "space"


# a process is charged with the memory of the one that it was forked from, so a small one starts it
_WATCH = """
import json, os, sys, time
started = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawn(sys.executable, [sys.executable, *sys.argv[1:]], os.environ), 0)
print(json.dumps([status, time.perf_counter() - started, usage.ru_maxrss]))
"""


def timed(root: Path, *arguments: str) -> tuple[float, float]:
    """(seconds, MB at the peak) of a Python process in the workspace."""
    code = Path(__file__).resolve().parent.parent
    watch = [sys.executable, "-c", _WATCH, *arguments]
    done = subprocess.run(watch, cwd=root, env=os.environ | {"PYTHONPATH": str(code)}, capture_output=True, text=True, check=True)
    status, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    if status:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return seconds, peak / (1e6 if sys.platform == "darwin" else 1e3)


def tokenize_alone(root: Path) -> None:
    """What nobody can do without: the texts, already in memory, through the fast tokenizer."""
    import pyarrow.parquet as pq

    from tasks.core.tokens import load_tokenizer

    texts = pq.read_table(root / "data" / "raw" / "rows.parquet", columns=["text"])["text"].to_pylist()
    tokenizer = load_tokenizer(root / "data" / "tokens" / "tokenizer", 128)
    for start in range(0, len(texts), BATCH):
        tokenizer.encode_batch_fast(texts[start : start + BATCH])


if __name__ == "__main__":
    if len(sys.argv) == 2 and Path(sys.argv[1]).is_dir():
        tokenize_alone(Path(sys.argv[1]))
    else:
        run_alone(__doc__ or "", measure)
