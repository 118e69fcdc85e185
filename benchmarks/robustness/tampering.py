"""Changes to files that nobody should change: bundles, DVC's cache, base models and sources.

Size and modification time stay the same where possible. A changed file must never be used: no
prediction from a changed bundle, no out restored from a changed copy, no training on changed bytes
that a pin excludes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing, redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.robustness.changes import (
    Change,
    all_changes,
    contents,
    each_change,
    kept_whole,
    remove,
)
from benchmarks.robustness.small_workspace import own_registry, train_small_workspace
from benchmarks.robustness.tally import Tally
from flows.engine.stage_cache import StageCache
from tasks.core.errors import PipelineError
from tasks.core.files import read_json, sha256_file
from tasks.data.sources.base_models import other_sha256, weights_sha256
from tasks.data.sources.fetching import fetch, resolve_model
from tasks.inference.bundle import CONFIG, MANIFEST, Limits, write_manifest
from tasks.inference.predictor import Predictor
from tasks.lifecycle.model_registry import ModelRegistry
from tasks.params.ingestion import Source
from tasks.params.schema import BaseModelParams
from tasks.params.workspace import Workspace
from tasks.pipeline import STAGES, find_stage
from tasks.problems import load_problem

FLIPS = 8  # bits of a file that are turned, one at a time


def campaign(quick: bool) -> list[Tally]:
    """Every file of each kind, changed in every way; `quick` flips two bits of each, not FLIPS."""
    changes = all_changes(2 if quick else FLIPS)
    with tempfile.TemporaryDirectory() as scratch, own_registry(Path(scratch) / "reviews"):
        workspace = train_small_workspace(Path(scratch) / "reviews")
        return [
            _bundles(workspace, changes),
            _bundles_made_anew(workspace, changes),
            _pyfuncs(workspace, dict(list(changes.items())[:2]) if quick else changes),
            _cached(workspace, changes),
            _pinned_bases(workspace, Path(scratch), changes),
            _pinned_sources(workspace, changes),
            _unpinned_inputs(workspace, changes),
        ]


def _bundles(workspace: Workspace, changes: Mapping[str, Change]) -> Tally:
    """The registered version, its files changed as they lie."""
    bundle = ModelRegistry(workspace).find("1").directory
    tried = 0
    failures: list[str] = []
    for file in sorted(bundle.iterdir()):
        for how in each_change(file, changes):
            tried, failures = (
                tried + 1,
                failures + _accepted(f"{file.name}: {how}", lambda: _predict(workspace)),
            )
    return Tally(
        "files of a registered bundle changed, one at a time", tried, "a prediction", failures
    )


def _bundles_made_anew(workspace: Workspace, changes: Mapping[str, Change]) -> Tally:
    """The same, and the manifest made anew, so that the bundle is sound by itself."""
    bundle = ModelRegistry(workspace).find("1").directory
    tried = 0
    failures: list[str] = []
    for name, edit in _edits(bundle, changes).items():
        with kept_whole(bundle):
            edit()
            manifest = read_json(bundle / MANIFEST)
            _remake(bundle, manifest)
            tried, failures = tried + 1, failures + _accepted(name, lambda: _predict(workspace))
    return Tally(
        "files of a registered bundle changed and its manifest made anew",
        tried,
        "a prediction",
        failures,
    )


def _pyfuncs(workspace: Workspace, changes: Mapping[str, Change]) -> Tally:
    """The same as MLflow loads it."""
    import mlflow

    bundle = ModelRegistry(workspace).find("1").directory
    tried = 0
    failures: list[str] = []
    for name, edit in _edits(bundle, changes).items():
        with kept_whole(bundle):
            edit()
            _remake(bundle, read_json(bundle / MANIFEST))
            tried += 1
            failures += _accepted(
                name, lambda: mlflow.pyfunc.load_model(f"models:/{workspace.params().model_name}/1")
            )
    return Tally("the same, loaded as MLflow's pyfunc", tried, "a model that loads", failures)


def _cached(workspace: Workspace, changes: Mapping[str, Change]) -> Tally:
    """Every object that a stage's outs are restored from."""
    tried = 0
    failures: list[str] = []
    with closing(StageCache(workspace, workspace.values())) as cache, redirect_stderr(StringIO()):
        for stage in STAGES:
            whole = {path: contents(workspace.root / path) for path in stage.outs.values()}
            for file in _objects(workspace, stage.name):
                for how in each_change(file, changes):
                    for path in whole:
                        remove(workspace.root / path)
                    tried += 1
                    if cache.restore(stage.name) and any(
                        contents(workspace.root / path) != content
                        for path, content in whole.items()
                    ):
                        failures.append(
                            f"{stage.name}, {file.name}: {how}: restored as something else"
                        )
                if not cache.restore(stage.name):
                    failures.append(
                        f"{stage.name}: the cache is whole again and nothing is restored"
                    )
    return Tally(
        "objects and run-cache entries of DVC's cache changed",
        tried,
        "an out restored with other bytes",
        failures,
    )


def _pinned_bases(workspace: Workspace, scratch: Path, changes: Mapping[str, Change]) -> Tally:
    """A base model in one file and in shards, all its files pinned."""
    from transformers import AutoModel

    whole = workspace.root / "base"
    sharded = Path(
        shutil.copytree(whole, scratch / "sharded", ignore=shutil.ignore_patterns("*.safetensors"))
    )
    AutoModel.from_pretrained(whole).save_pretrained(sharded, max_shard_size="200KB")
    tried = 0
    failures: list[str] = []
    for directory in (whole, sharded):
        pin = BaseModelParams(
            path=str(directory), sha256=weights_sha256(directory), files=other_sha256(directory)
        )
        for file in sorted(directory.iterdir()):
            for how in each_change(file, changes):
                tried += 1
                failures += _accepted(
                    f"{directory.name}/{file.name}: {how}",
                    partial(resolve_model, pin, scratch, scratch),
                )
    return Tally(
        "files of a pinned base model changed", tried, "a training that takes them", failures
    )


def _pinned_sources(workspace: Workspace, changes: Mapping[str, Change]) -> Tally:
    file = workspace.root / "reviews.csv"
    source = Source(url="reviews.csv", sha256=sha256_file(file))
    tried = 0
    failures: list[str] = []
    for how in each_change(file, changes):
        tried, failures = (
            tried + 1,
            failures + _accepted(how, lambda: fetch(source, workspace.root, workspace.root)),
        )
    return Tally("a pinned source changed", tried, "an ingestion that takes it", failures)


def _unpinned_inputs(workspace: Workspace, changes: Mapping[str, Change]) -> Tally:
    """Sources and base models without a pin: they may change, and a training is to see it."""
    stages = {"reviews.csv": "ingest"} | {
        f"base/{file.name}": "finetune" for file in sorted((workspace.root / "base").iterdir())
    }
    tried = 0
    failures: list[str] = []
    for name, stage in stages.items():
        file = workspace.root / name
        for how in each_change(file, changes):
            with closing(StageCache(workspace, workspace.values())) as cache:
                cache.read_inputs()
                tried += 1
                if cache.status(stage) == "clean":
                    failures.append(f"{name}: {how}: {stage} is clean")
    return Tally(
        "sources and base models without a pin changed",
        tried,
        "a training that does not see it",
        failures,
    )


def _edits(bundle: Path, changes: Mapping[str, Change]) -> dict[str, Callable[[], None]]:
    """Edits to a bundle's files before its manifest is remade, except those that change nothing."""

    def settings(**values: Any) -> Callable[[], None]:
        def edit() -> None:
            config = read_json(bundle / CONFIG)
            (bundle / CONFIG).write_text(
                json.dumps({**config, "ratchet": {**config["ratchet"], **values}}), encoding="utf-8"
            )

        return edit

    def bytes_of(file: Path, change: Change) -> Callable[[], None]:
        def edit() -> None:
            file.write_bytes(change(file.read_bytes()))

        return edit

    labels = read_json(bundle / CONFIG)["ratchet"]["labels"]
    edits = {
        "labels reversed": settings(labels=labels[::-1]),
        "another temperature": settings(temperature=5.0),
        "10,000 threads": settings(threads=10_000),
        "a bias": settings(bias=[9.0] + [0.0] * (len(labels) - 1)),
    }  # fmt: skip
    for file in sorted(bundle.iterdir()):
        if file.name != MANIFEST:
            content = file.read_bytes()
            edits |= {
                f"{file.name}: {how}": bytes_of(file, change)
                for how, change in changes.items()
                if change(content) != content
            }
    return edits


def _remake(bundle: Path, manifest: Mapping[str, Any]) -> None:
    limits = Limits(
        max_length=manifest["limits"]["max_length"], labels=tuple(manifest["limits"]["labels"])
    )
    write_manifest(bundle, recipe=manifest["recipe"], metrics=manifest["metrics"], limits=limits)


def _accepted(name: str, use: Callable[[], Any]) -> list[str]:
    """A failure if the use succeeds or raises anything but one message for its user."""
    try:
        use()
    except PipelineError:
        return []
    except Exception as error:
        return [f"{name}: {type(error).__name__}: {str(error)[:200]}"]
    return [f"{name}: accepted"]


def _predict(workspace: Workspace) -> Any:
    info = ModelRegistry(workspace).find("1").open()
    return Predictor(info, load_problem(info.problem)).predict({"text": ["a good film"]})


def _objects(workspace: Workspace, stage: str) -> list[Path]:
    """The cache files that restore the stage: its outs' objects and the run cache's entries."""
    from ruamel.yaml import YAML

    lock = YAML(typ="safe").load((workspace.root / "dvc.lock").read_text(encoding="utf-8"))[
        "stages"
    ][stage]
    objects: list[Path] = []
    for out in lock["outs"]:
        file = _object(workspace, out["md5"])
        objects.append(file)
        if out["md5"].endswith(".dir"):
            objects += [_object(workspace, entry["md5"]) for entry in json.loads(file.read_bytes())]
    paths = set(find_stage(stage).outs.values())
    for entry in (workspace.root / ".dvc" / "cache" / "runs").rglob("*"):
        if (
            entry.is_file()
            and {
                out["path"]
                for out in YAML(typ="safe").load(entry.read_text(encoding="utf-8"))["outs"]
            }
            == paths
        ):
            objects.append(entry)
    return sorted(set(objects))


def _object(workspace: Workspace, oid: str) -> Path:
    return workspace.root / ".dvc" / "cache" / "files" / "md5" / oid[:2] / oid[2:]
