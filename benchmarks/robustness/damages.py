"""Damages to the files of a trained workspace, and how `ratchet train` has to answer each.

It repairs the damage, or tells the user in one message.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

Outcome = Literal["repaired", "told"]


def cut(path: Path) -> None:
    _write(path, path.read_bytes()[: path.stat().st_size // 2])


def torn(path: Path) -> None:
    """Cut the file in the middle of a key, so that it is no longer YAML."""
    content = path.read_bytes()
    _write(path, content[: content.rindex(b"md5", 0, len(content) // 2) + 2])


def longer(path: Path) -> None:
    _write(path, path.read_bytes() + b"x\n")


def empty(path: Path) -> None:
    _write(path, b"")


def junk(path: Path) -> None:
    _write(path, b"\x00\xff\xfejunk\n")


def a_list(path: Path) -> None:
    _write(path, b"[]\n")


def no_keys(path: Path) -> None:
    _write(path, b"{}\n")


def conflict(path: Path) -> None:
    ours = path.read_bytes()
    _write(path, b"<<<<<<< HEAD\n" + ours + b"=======\nx\n>>>>>>> other\n")


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x", encoding="utf-8")


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _write(path: Path, content: bytes) -> None:
    path.unlink()  # it may be a hard link into DVC's cache
    path.write_bytes(content)


Damage = Callable[[Path], None]
JSON = (cut, longer, empty, junk, a_list, no_keys)
_TABLE: tuple[tuple[str, tuple[Damage, ...], Outcome], ...] = (
    ("reports/metrics.json", JSON, "repaired"),
    ("reports/evaluation.json", (cut,), "repaired"),
    ("reports/verification.json", (a_list,), "repaired"),
    ("reports/training.json", (no_keys,), "repaired"),
    ("reports/validation.json", (empty,), "repaired"),
    ("reports/data_docs", (a_file,), "repaired"),
    ("data/raw", (a_file,), "repaired"),
    ("data/raw/sources.json", (junk,), "repaired"),
    ("data/raw/rows.parquet", (cut, empty), "repaired"),
    ("data/valid/rows.parquet", (longer,), "repaired"),
    ("data/splits/split.json", (a_list,), "repaired"),
    ("data/splits/test.parquet", (cut, junk), "repaired"),
    ("data/tokens/tokens.json", (no_keys,), "repaired"),
    ("data/tokens/train.arrow", (cut,), "repaired"),
    ("data/tokens/tokenizer/tokenizer.json", (cut,), "repaired"),
    ("models/bundle/config.json", (junk,), "repaired"),
    ("models/checkpoint/config.json", (cut,), "repaired"),
    ("models/checkpoint/model.safetensors", (empty,), "repaired"),
    ("models/candidates/export.json", (longer,), "repaired"),
    ("models/bundle", (a_file,), "repaired"),
    ("models/bundle/manifest.json", (a_list,), "repaired"),
    ("models/bundle/model.onnx", (cut,), "repaired"),
    (".ratchet/standing.json", (*JSON, a_directory), "repaired"),
    ("dvc.yaml", (conflict, junk, empty, a_list), "repaired"),
    ("dvc.lock", (torn, conflict, junk, empty, a_list, a_directory), "told"),
    (".dvc/config", (conflict, junk, a_list, cut), "told"),
    (".dvc", (a_file,), "told"),
    (".dvc/tmp", (a_file,), "told"),
    ("params.yaml", (conflict, junk, empty, a_list, a_directory), "told"),
    (".ratchet", (a_file,), "told"),
    (".ratchet/lock", (a_directory,), "told"),
    (".ratchet/mlflow.db", (junk, empty, a_directory), "told"),
    ("reports", (a_file,), "told"),
    ("models", (a_file,), "told"),
)
# name -> path in the workspace, damage, what `ratchet train` then has to do
DAMAGES = {
    f"{path}: {damage.__name__}": (path, damage, outcome)
    for path, damages, outcome in _TABLE
    for damage in damages
}
