"""Downloads: retried, checked before they take their place, whole or absent, and kept for the next run."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from tasks.core.addresses import LocalFile, has_glob, public_address, scheme_of
from tasks.core.errors import SourceError, as_storage_error
from tasks.core.files import atomic_path, read_kept, sha256_file, write_json
from tasks.core.progress import Report
from tasks.core.retries import retried
from tasks.data.sources.pins import compare_sha256, sha256_once

ATTEMPTS = 4
_EXTRAS = {"s3": "s3", "gs": "gcs"}  # scheme -> our extra that brings its library


class FileSystem(Protocol):
    """What we use of an fsspec file system."""

    def info(self, path: str) -> dict[str, Any]:
        """Size and version of a file."""

    def glob(self, path: str) -> list[str]:
        """Paths that a pattern stands for."""

    def get_file(self, rpath: str, lpath: str, callback: object) -> None:
        """Download a file."""


def kept(
    key: str,
    name: str,
    sha256: str | None,
    cache: Path,
    fill: Callable[[Path], None],
    validator: Mapping[str, str] | None = None,
    address: str = "",
) -> Path:
    """The file called `name` that `fill` makes, made only if the cache has none that will do: one whose bytes changed will not.

    key         what the content depends on, for example the address
    sha256      wanted; checked before the file takes its place
    validator   what the server says of its version; a kept file of another version will not do. None: versions never change
    """
    place = cache / "files" / hashlib.sha256(key.encode()).hexdigest()[:24] / name
    mark = place.parent / "about.json"
    with lock(place.parent):
        about = (read_kept(mark, "sha256", "validator") or {}) if place.is_file() else {}
        known = dict(validator) if validator is not None else None
        if about and about["validator"] == known and about["sha256"] == sha256_once(place):
            compare_sha256(about["sha256"], sha256, address or key)
            return place
        for left in place.parent.glob(f".{name}.*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        mark.unlink(missing_ok=True)
        with atomic_path(place) as new:
            fill(new)
            found = sha256_file(new)
            compare_sha256(found, sha256, address or key)
        write_json(mark, {"sha256": found, "validator": known})
    return place


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold a directory of the cache for this process alone."""
    from filelock import FileLock

    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / ".lock"):
        yield


def fetch_remote(url: str, sha256: str | None, cache: Path, report: Report) -> list[LocalFile]:
    """Files from http(s), s3 or gs; a pinned file that was fetched once is not asked for again."""
    import fsspec

    shown = public_address(url)
    try:
        options: dict[str, Any] = (
            {"client_kwargs": {"trust_env": True}} if scheme_of(url).startswith("http") else {}
        )  # honours HTTPS_PROXY
        system, path = fsspec.core.url_to_fs(url, **options)
    except ImportError:
        extra = _EXTRAS.get(scheme_of(url), scheme_of(url))
        raise SourceError(
            f"{shown}: the library for {scheme_of(url)}:// is not installed.",
            f"pip install 'ratchet[{extra}]'",
        ) from None
    if not has_glob(path) or scheme_of(url).startswith("http"):
        name = unquote(Path(urlsplit(url).path).name) or "index"
        return [LocalFile(_download(system, path, url, name, sha256, cache, report), name)]
    if sha256:
        raise SourceError(
            f"{shown}: stands for several files, but has one sha256.",
            "Give each file a source of its own.",
        )
    with _explained(shown):
        paths = sorted(retried(lambda: system.glob(path), _may_pass, ATTEMPTS))
    if not paths:
        raise SourceError(f"{shown}: no file is named so.", "Check the address and the pattern.")
    fixed = path.partition("*")[0].rpartition("/")[0] + "/"
    return [
        LocalFile(
            _download(
                system, found, f"{scheme_of(url)}://{found}", Path(found).name, None, cache, report
            ),
            found.removeprefix(fixed),
        )
        for found in paths
    ]


def _download(
    system: FileSystem,
    path: str,
    url: str,
    name: str,
    sha256: str | None,
    cache: Path,
    report: Report,
) -> Path:
    from fsspec.callbacks import Callback

    def fill(new: Path) -> None:
        # the hook is handed what has come so far
        watch = Callback(
            hooks={
                "report": lambda size, value, **_: report(
                    0, {"downloaded_mb": round(value / 1e6, 1)}
                )
            }
        )
        retried(lambda: system.get_file(path, str(new), callback=watch), _may_pass, ATTEMPTS)

    with _explained(public_address(url)):
        if sha256:
            return kept(f"{url} {sha256}", name, sha256, cache, fill, address=public_address(url))
        return kept(url, name, None, cache, fill, _validator(system, path))


def _validator(system: FileSystem, path: str) -> dict[str, str]:
    """What tells a version of a remote file from the next; a name that no file can keep where the server says nothing."""
    import uuid

    about = retried(lambda: system.info(path), _may_pass, ATTEMPTS)
    known = {
        key: str(about[key])
        for key in ("ETag", "etag", "Last-Modified", "LastModified", "generation", "md5Hash")
        if about.get(key)
    }
    return {**known, "size": str(about.get("size"))} if known else {"never": uuid.uuid4().hex}


def _may_pass(error: BaseException) -> bool:
    """Whether another attempt may succeed: not if the file is not there, not if this machine or the server refuses."""
    error = _cause(error)
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 425, 429)
    if isinstance(
        error, FileNotFoundError | PermissionError | ImportError | ValueError | TypeError
    ):
        return False
    return not (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    )


def _cause(error: BaseException) -> BaseException:
    """What fsspec calls FileNotFoundError when it could not even ask."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _explained(shown: str) -> Iterator[None]:
    from tasks.core.errors import PipelineError

    try:
        yield
    except PipelineError:
        raise
    except Exception as raised:
        error = _cause(raised)
        if (
            isinstance(raised, OSError)
            and as_storage_error(raised)
            and not isinstance(raised, PermissionError)
        ):
            raise
        if isinstance(error, FileNotFoundError) or getattr(error, "status", None) in (404, 410):
            raise SourceError(
                f"{shown}: there is no such file.", "Check the address in params.yaml."
            ) from None
        what = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "Check the network and the address (and your credentials, if it is not public), then run the command again."
        raise SourceError(f"{shown}: cannot be fetched: {what}.", remedy) from raised
