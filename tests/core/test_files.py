"""Atomic writes: a file is complete or absent."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from tasks.core.errors import as_storage_error
from tasks.core.files import atomic_path, read_jsonl, replace, write_json, write_jsonl, write_text
from tasks.core.foreign import foreign_file


def test_a_failed_write_leaves_the_old_file_and_no_scratch(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    write_text(target, "old")

    def write_half() -> None:
        with atomic_path(target) as new:
            new.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for names in (("a", "b"), ("c",)):
        with atomic_path(target) as new:
            new.mkdir()
            for name in names:
                (new / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_replace_swaps_a_file_for_a_directory(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("file")
    (tmp_path / "new").mkdir()
    replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").is_dir()


def test_the_place_of_a_directory_that_is_replaced_is_never_empty(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    ended, missing = threading.Event(), []

    def watch() -> None:
        while not ended.is_set():
            if not target.is_dir():
                missing.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for name in range(300):
        with atomic_path(target) as new:
            new.mkdir()
            (new / str(name)).touch()
    ended.set()
    watcher.join()
    assert not missing
    assert [path.name for path in target.iterdir()] == ["299"]


@pytest.mark.parametrize("old", ["nothing", "file", "directory"])
@pytest.mark.parametrize("new", ["file", "directory"])
@pytest.mark.parametrize("exchanges", [True, False])
def test_whatever_stood_there_is_replaced_and_all_of_it_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, exchanges: bool
) -> None:
    """`replace` flushes every file, the directories inside and the one that holds the target."""
    flushed: list[int] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        flushed.append(os.fstat(handle).st_ino)
        real(handle)

    def make(file_type: str, path: Path) -> Path:
        if file_type == "file":
            path.write_text(path.name)
        elif file_type == "directory":
            (path / "inner").mkdir(parents=True)
            (path / "inner" / "leaf").write_text(path.name)
        return path

    if not exchanges:
        monkeypatch.setattr("tasks.core.files._exchange", lambda *_: False)
    target, fresh = make(old, tmp_path / "target"), make(new, tmp_path / "fresh")
    inside = [fresh] if new == "file" else [fresh, fresh / "inner", fresh / "inner" / "leaf"]
    expected = {path.stat().st_ino for path in (*inside, tmp_path)}
    monkeypatch.setattr(os, "fsync", fsync)
    replace(fresh, target)
    assert (target if new == "file" else target / "inner" / "leaf").read_text() == "fresh"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert expected <= set(flushed)
    assert flushed[-1] == tmp_path.stat().st_ino


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_json_lines_survive_line_separators_of_unicode(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b\u0085c\nd\r\ne"}, {"text": "é 🙂 مرحبا"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_the_systems_refusal_becomes_a_message_with_a_remedy(code: int) -> None:
    error = as_storage_error(OSError(code, "refused", "data/raw"))
    assert error is not None
    assert "data/raw" in error.message
    assert error.remedy


def test_other_errors_of_the_system_stay_bugs() -> None:
    assert as_storage_error(OSError(errno.EBADF, "bad descriptor")) is None
    assert as_storage_error(ValueError("wrong")) is None


def test_a_file_never_takes_the_place_of_a_directory(tmp_path: Path) -> None:
    kept = tmp_path / "notes" / "deep" / "kept.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("still here")
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "notes", "a page")
    assert kept.read_text() == "still here"
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_refusal_is_found_inside_a_librarys_own_error() -> None:
    wrapped = RuntimeError("could not serialize")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device", "model.safetensors")
    assert "model.safetensors" in str(as_storage_error(wrapped))
    sqlite = RuntimeError("(sqlite3.OperationalError) database or disk is full")
    assert as_storage_error(sqlite) is not None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("Out of Memory Error: Allocation failure"),
        RuntimeError("exporting a stream from the object failed: MemoryError: "),
    ],
)
def test_a_lack_of_memory_is_told_as_such(error: Exception) -> None:
    try:
        raise ValueError("reading the table") from error
    except ValueError as outer:
        told = as_storage_error(outer)
    assert "out of memory" in str(told)
    assert "finetune.batch_size" in str(told)
    with pytest.raises(type(error)), foreign_file("base: cannot be read", "Use another."):
        raise error  # the file is not to blame
