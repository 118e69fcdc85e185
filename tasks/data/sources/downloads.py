"""Downloads: retried, verified, written atomically and cached for the next run.

fsspec does the fetching. The cache is ours: neither fsspec's nor pooch's compares an entry with
its pin on every use, or revalidates one without a pin by the server's ETag, size and time.
"""

from __future__ import annotations

import errno
import hashlib
import logging
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
from tasks.core.retries import call_with_retries
from tasks.data.sources.pins import compare_sha256, sha256_once

log = logging.getLogger(__name__)

ATTEMPTS = 4
# URL scheme -> packages that read it; not `ratchet[s3]`: that name is another project's
_PACKAGES = {"s3": "s3fs 'dvc[s3]'", "gs": "gcsfs 'dvc[gs]'"}


class FileSystem(Protocol):
    """The part of fsspec's file system interface that is used here."""

    def info(self, path: str) -> dict[str, Any]:
        """Size and version metadata of a file."""

    def glob(self, path: str) -> list[str]:
        """Paths that match a pattern."""

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
    """Cached file `name`; `fill` writes it if it is not cached, is outdated or was altered.

    key         what the content depends on, for example the address
    sha256      expected digest; checked before the file enters the cache
    validator   the server's version metadata; a cached file of another version is fetched again.
                None: the content never changes
    """
    path = cache / "files" / hashlib.sha256(key.encode()).hexdigest()[:24] / name
    entry_path = path.parent / "about.json"
    with lock(path.parent):
        entry = (read_kept(entry_path, "sha256", "validator") or {}) if path.is_file() else {}
        version = dict(validator) if validator is not None else None
        if entry and entry["validator"] == version and entry["sha256"] == sha256_once(path):
            compare_sha256(entry["sha256"], sha256, address or key)
            return path
        for leftover in path.parent.glob(f".{name}.*"):  # from a run that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        entry_path.unlink(missing_ok=True)
        with atomic_path(path) as new:
            fill(new)
            digest = sha256_file(new)
            compare_sha256(digest, sha256, address or key)
        write_json(entry_path, {"sha256": digest, "validator": version})
    return path


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Lock a cache directory against other processes."""
    from filelock import FileLock

    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / ".lock"):
        yield


def fetch_remote(url: str, sha256: str | None, cache: Path, report: Report) -> list[LocalFile]:
    """Files from http(s), s3 or gs; a pinned file in the cache needs no request."""
    import fsspec

    scheme, shown_url = scheme_of(url), public_address(url)
    is_http = scheme.startswith("http")
    # trust_env: honour HTTPS_PROXY
    options: dict[str, Any] = {"client_kwargs": {"trust_env": True}} if is_http else {}
    try:
        system, path = fsspec.core.url_to_fs(url, **options)
    except ImportError:
        raise SourceError(
            f"{shown_url}: the library for {scheme}:// is not installed.",
            f"pip install {_PACKAGES.get(scheme, 'aiohttp')}",
        ) from None
    if not has_glob(path) or is_http:
        name = unquote(Path(urlsplit(url).path).name) or "index"
        return [LocalFile(_download(system, path, url, name, sha256, cache, report), name)]
    if sha256:
        raise SourceError(
            f"{shown_url}: a pattern can match several files, but one sha256 is given.",
            "Give each file a source of its own.",
        )
    with _explained(shown_url):
        paths = sorted(call_with_retries(lambda: system.glob(path), _is_transient, ATTEMPTS))
    if not paths:
        raise SourceError(f"{shown_url}: no file matches.", "Check the address and the pattern.")
    prefix = path.partition("*")[0].rpartition("/")[0] + "/"

    def download(match: str) -> Path:
        name = Path(match).name
        return _download(system, match, f"{scheme}://{match}", name, None, cache, report)

    return [LocalFile(download(match), match.removeprefix(prefix)) for match in paths]


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
        def show(size: int, value: int, **_: object) -> None:  # value: bytes downloaded so far
            report(0, {"downloaded_mb": round(value / 1e6, 1)})

        callback = Callback(hooks={"report": show})
        call_with_retries(
            lambda: system.get_file(path, str(new), callback=callback), _is_transient, ATTEMPTS
        )

    log.debug("%s, unless it is in %s", public_address(url), cache)
    with _explained(public_address(url)):
        if sha256:
            return kept(f"{url} {sha256}", name, sha256, cache, fill, address=public_address(url))
        return kept(url, name, None, cache, fill, _validator(system, path))


def _validator(system: FileSystem, path: str) -> dict[str, str]:
    """Version metadata of a remote file; a unique value, which never matches, if there is none."""
    import uuid

    info = call_with_retries(lambda: system.info(path), _is_transient, ATTEMPTS)
    version = {
        key: str(info[key])
        for key in ("ETag", "etag", "Last-Modified", "LastModified", "generation", "md5Hash")
        if info.get(key)
    }
    return {**version, "size": str(info.get("size"))} if version else {"never": uuid.uuid4().hex}


def _is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed: not if the file is missing or access is refused."""
    error = _cause(error)
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 425, 429)
    if isinstance(
        error, PermissionError | ImportError | FileNotFoundError | ValueError | TypeError
    ):
        return False
    disk_errors = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    return not (isinstance(error, OSError) and error.errno in disk_errors)


def _cause(error: BaseException) -> BaseException:
    """Underlying error: fsspec raises FileNotFoundError for connection failures too."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _explained(shown_url: str) -> Iterator[None]:
    from tasks.core.errors import PipelineError

    try:
        yield
    except PipelineError:
        raise
    except Exception as raised:
        error = _cause(raised)
        is_storage_error = isinstance(raised, OSError) and as_storage_error(raised)
        if is_storage_error and not isinstance(raised, PermissionError):
            raise
        if isinstance(error, FileNotFoundError) or getattr(error, "status", None) in (404, 410):
            raise SourceError(f"{shown_url}: no such file.", "Check the address.") from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SourceError(
            f"{shown_url}: cannot be fetched: {reason}.",
            "Check the network and the address (and your credentials, if it is not public), "
            "then run the command again.",
        ) from raised
