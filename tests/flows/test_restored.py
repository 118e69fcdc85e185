"""A damaged copy in DVC's cache is dropped and made again.

Bytes that changed under the same size and modification time are noticed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tampered import flip, rewrite

from flows.engine.stage_runner import StageRunner
from tasks.core.errors import PipelineError, SourceError
from tasks.core.files import sha256_file
from tasks.core.progress import silent
from tasks.params.workspace import Workspace

OTHER = ("tokenize.max_length=16",)


@pytest.fixture
def runner(trained: Path) -> Iterator[Callable[..., StageRunner]]:
    """A function that makes a runner of the trained workspace, with overrides."""
    runners: list[StageRunner] = []

    def make(*overrides: str, **options: Any) -> StageRunner:
        runners.append(StageRunner(Workspace(trained), overrides, lambda stage: silent, **options))
        return runners[-1]

    yield make
    for stage_runner in runners:
        stage_runner.close()


def contents(directory: Path) -> dict[str, str]:
    return {
        file.relative_to(directory).as_posix(): sha256_file(file)
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def locked(root: Path, stage: str, out: str) -> str:
    """The hash of an out in dvc.lock."""
    stages = YAML(typ="safe").load((root / "dvc.lock").read_text())["stages"]
    return str(next(entry["md5"] for entry in stages[stage]["outs"] if entry["path"] == out))


def cached(root: Path, oid: str) -> Path:
    return root / ".dvc" / "cache" / "files" / "md5" / oid[:2] / oid[2:]


@pytest.mark.parametrize("what", ["list", "file", "every file"])
def test_a_damaged_copy_is_dropped_and_the_stage_runs_again(
    trained: Path, runner: Callable[..., StageRunner], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = trained / "data" / "tokens"
    whole, listing = contents(tokens), cached(trained, locked(trained, "tokenize", "data/tokens"))
    objects = {
        entry["relpath"]: cached(trained, entry["md5"])
        for entry in YAML(typ="safe").load(listing.read_text())
    }
    damaged = {"list": [listing], "file": [objects["train.arrow"]], "every file": objects.values()}
    shutil.rmtree(tokens)
    for file in damaged[what]:
        flip(file)
    assert runner().run("tokenize").state == "ran"
    damage = "the copy of data/tokens in DVC's cache is damaged and was dropped"
    assert f"{damage}; the stage runs again" in caplog.text
    assert contents(tokens) == whole
    shutil.rmtree(tokens)
    assert runner().run("tokenize").state == "restored"  # the cache is whole again
    assert contents(tokens) == whole


def test_a_run_cache_entry_that_names_another_result_is_dropped(
    trained: Path, runner: Callable[..., StageRunner]
) -> None:
    tokens = trained / "data" / "tokens"
    whole, right = contents(tokens), locked(trained, "tokenize", "data/tokens")
    out = f"path: data/tokens\n  hash: md5\n  md5: {right}"
    entry = next(
        file
        for file in (trained / ".dvc" / "cache" / "runs").rglob("*")
        if file.is_file() and out in file.read_text().partition("outs:")[2]
    )
    assert runner(*OTHER).run("tokenize").state == "ran"
    wrong = locked(trained, "tokenize", "data/tokens")
    assert contents(tokens) != whole
    rewrite(entry, entry.read_text().replace(right, wrong).encode())
    assert runner().run("tokenize").state == "ran"
    assert contents(tokens) == whole
    assert runner(*OTHER).run("tokenize").state == "restored"
    assert runner().run("tokenize").state == "restored"
    assert contents(tokens) == whole


def test_a_stage_never_goes_on_from_what_was_altered_under_the_same_time(
    trained: Path, runner: Callable[..., StageRunner]
) -> None:
    tokens = trained / "data" / "tokens"
    whole = contents(tokens)
    assert runner().statuses()["tokenize"] == "clean"  # read once: the workspace is a copy
    flip(tokens / "train.arrow", 0.9)
    assert runner().statuses()["tokenize"] == "clean"  # as far as size and time tell
    with pytest.raises(PipelineError, match=r"finetune: data/tokens is not what tokenize made"):
        runner(rerun=("finetune",)).run("finetune")
    assert runner().run("tokenize").state == "restored"
    assert contents(tokens) == whole


@pytest.mark.parametrize(
    "name", ["reviews.csv", "base/config.json", "base/model.safetensors", "base/tokenizer.json"]
)
def test_a_training_sees_inputs_that_changed_under_the_same_size_and_time(
    trained: Path, runner: Callable[..., StageRunner], name: str
) -> None:
    stage = "ingest" if name == "reviews.csv" else "finetune"
    key = runner().lineage().content_key
    flip(trained / name)
    assert runner().statuses()[stage] == "clean"  # what `ratchet status` says
    with closing(runner()) as training:
        training.read_inputs()
        assert training.statuses()[stage] == "stale"
        assert training.lineage().content_key != key
    flip(trained / name)
    with closing(runner()) as training:
        training.read_inputs()
        assert training.statuses()[stage] == "clean"
        assert training.lineage().content_key == key


def test_a_pinned_source_that_changed_under_the_same_size_and_time_stops_the_training(
    trained: Path, runner: Callable[..., StageRunner]
) -> None:
    pin = f"ingest.sources.0.sha256={sha256_file(trained / 'reviews.csv')}"
    with closing(runner(pin)) as training:
        assert training.run("ingest").state == "ran"
    source = trained / "reviews.csv"
    rewrite(source, source.read_bytes().replace(b"positive", b"negative"))
    with closing(runner(pin)) as training:
        training.read_inputs()
        with pytest.raises(SourceError, match="differs from the pinned one"):
            training.run("ingest")


@pytest.mark.parametrize(
    "content", [b"", b"cmd: x\n", b"\xff\xfe", b"[1]", b"{", b"deps: 3\nouts: 4\n"]
)
def test_a_run_cache_entry_that_is_none_is_replaced(
    trained: Path, runner: Callable[..., StageRunner], content: bytes
) -> None:
    tokens = trained / "data" / "tokens"
    whole, right = contents(tokens), locked(trained, "tokenize", "data/tokens")
    entries = [
        file
        for file in (trained / ".dvc" / "cache" / "runs").rglob("*")
        if file.is_file() and right in file.read_text()
    ]
    kept = {file: file.read_bytes() for file in entries}
    for file in entries:
        rewrite(file, content)
    shutil.rmtree(tokens)
    assert runner().run("tokenize").state == "restored"  # dvc.lock knows it too
    assert contents(tokens) == whole
    assert any(file.is_file() and file.read_bytes() == kept[file] for file in entries)


def test_inputs_that_change_while_a_stage_runs_make_its_outs_nobodys(
    runner: Callable[..., StageRunner], trained: Path
) -> None:
    cache = runner()._cache
    before = cache.snapshot("ingest")
    with (trained / "reviews.csv").open("a", encoding="utf-8") as file:
        file.write("one more,positive\n")
    with pytest.raises(PipelineError, match=r"reviews\.csv changed while the stage ran"):
        cache.commit("ingest", before)
