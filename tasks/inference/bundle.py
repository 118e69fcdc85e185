"""A bundle, the shipped model: model.onnx, the tokenizer, config.json and manifest.json.

Nothing in a bundle is ever unpickled. The manifest holds the hash of every other file, the registry
the hash of the manifest. Files are hashed as they are read, so a file cannot change between its
check and its use.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, ValidationError

from tasks.core.errors import BundleError
from tasks.core.files import sha256_file, write_json
from tasks.inference.calibration import Calibration
from tasks.params.section import MOST_THREADS, MOST_TOKENS

MODEL = "model.onnx"
CONFIG = "config.json"
MANIFEST = "manifest.json"
PYFUNC_SHA256 = "bundle_sha256"  # key of the hash in the pyfunc's model_config
FORMAT = 1
REMEDY = (
    "Get the bundle again from where it was made (`ratchet train`, or the registry); "
    "do not edit it in place."
)
_MOST_JSON = 64 * 2**20  # bytes of manifest.json and config.json, which both list the labels
_MOST_BYTES = 2**40  # bytes of any other file
_CHUNK = 2**20

Finite = Annotated[float, AllowInfNan(False)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Labels = Annotated[tuple[Name, ...], Field(max_length=1_000_000)]


class _StrictModel(BaseModel):
    """JSON read from a bundle: values are bounded and never converted, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Settings(_StrictModel):
    """The `ratchet` key of config.json: what inference needs beyond Hugging Face's own keys.

    threads  onnxruntime threads; 0: one per physical core
    """

    problem: Name
    labels: Labels
    max_length: Annotated[int, Field(ge=1, le=MOST_TOKENS)]
    pad_token_id: Annotated[int, Field(ge=0, lt=2**31)]
    temperature: Annotated[Finite, Field(gt=0, le=1e6)]
    output_name: Name
    threads: Annotated[int, Field(ge=0, le=MOST_THREADS)] = 0
    bias: Annotated[
        tuple[Annotated[Finite, Field(ge=-1e9, le=1e9)], ...], Field(max_length=1_000_000)
    ] = ()

    @property
    def calibration(self) -> Calibration:
        """Temperature and per-label bias applied to the model's outputs."""
        return Calibration(self.temperature, self.bias)


class FileEntry(_StrictModel):
    """A file's hash and size, as the manifest lists them."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, le=_MOST_BYTES)]


class Limits(_StrictModel):
    """The input length and the labels that the model was built for."""

    max_length: Annotated[int, Field(ge=1, le=MOST_TOKENS)]
    labels: Labels


class _Manifest(_StrictModel):
    format: Literal[1]
    recipe: Name
    metrics: Annotated[dict[Name, Finite], Field(max_length=1000)]
    limits: Limits
    files: Annotated[dict[str, FileEntry], Field(min_length=1, max_length=1000)]


class _Config(BaseModel):
    ratchet: Settings


Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class BundleInfo:
    """A bundle whose files have all been checked.

    sha256   of the manifest, which holds the hash of every other file
    metrics  of the bundle itself (not the checkpoint) on the test split
    """

    directory: Path
    sha256: str
    settings: Settings
    recipe: str
    metrics: Mapping[str, float]
    limits: Limits
    files: Mapping[str, FileEntry] = field(repr=False)

    @property
    def problem(self) -> str:
        """Name of the problem type."""
        return self.settings.problem

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of the model's outputs."""
        return self.settings.labels

    @property
    def size_bytes(self) -> int:
        """Total size of all files except the manifest."""
        return sum(entry.bytes for entry in self.files.values())

    def read(self, name: str) -> bytes | None:
        """A file's bytes, hashed as they are read; None if the bundle has no such file.

        Raises BundleError if the file has changed since the bundle was opened.
        """
        if name not in self.files:
            return None
        content = bytearray()
        if defect := _check_file(self.directory, name, self.files[name], content):
            raise BundleError(f"{self.directory}: {defect}", REMEDY)
        return bytes(content)


def write_config(directory: Path, checkpoint_config: Mapping[str, Any], settings: Settings) -> None:
    """Write a plain Hugging Face config.json with our settings under the `ratchet` key."""
    write_json(
        directory / CONFIG, {**checkpoint_config, "ratchet": settings.model_dump(mode="json")}
    )


def write_manifest(
    directory: Path, *, recipe: str, metrics: Mapping[str, float], limits: Limits
) -> None:
    """List every file's hash and size; `open_bundle` refuses any later change."""
    files = {
        path.relative_to(directory).as_posix(): {
            "sha256": sha256_file(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST
    }
    manifest = {
        "format": FORMAT,
        "recipe": recipe,
        "metrics": dict(metrics),
        "limits": limits.model_dump(mode="json"),
        "files": files,
    }
    write_json(directory / MANIFEST, manifest)


def open_bundle(
    directory: Path, problems: Sequence[str] | None = None, registered: str | None = None
) -> BundleInfo:
    """Check every file of a bundle against its manifest, and the manifest against the registry.

    problems    known problem types; None: any
    registered  sha256 of the manifest in the registry; None: do not check it
    Raises BundleError for a file that is missing, extra, altered, a symbolic link or outside the
    directory, for invalid values in the manifest or config.json, for an unknown problem type, and
    for a bundle other than the registered one.
    """
    raw = _read_small(directory, MANIFEST)
    sha256 = hashlib.sha256(raw).hexdigest()
    if registered is not None and sha256 != registered:
        raise BundleError(
            f"{directory}: is not the bundle that was registered: its {MANIFEST} has sha256 "
            f"{sha256[:12]}…, wanted {registered[:12]}….",
            "It has been changed since it was registered. Register it again (`ratchet train`), "
            "or name another version.",
        )
    manifest = _parse(_Manifest, raw, directory / MANIFEST)
    defects = [
        *_check_listed(directory, manifest.files),
        *_check_unlisted(directory, manifest.files),
    ]
    defects += [
        f"{name}: not in the manifest, wanted."
        for name in (MODEL, CONFIG, "tokenizer.json")
        if name not in manifest.files
    ]
    if defects:
        lines = "".join(f"\n  {line}" for line in defects)
        raise BundleError(
            f"{directory}: {len(defects)} of its files cannot be trusted:{lines}", REMEDY
        )
    raw = _read_small(directory, CONFIG)
    if hashlib.sha256(raw).hexdigest() != manifest.files[CONFIG].sha256:
        raise BundleError(f"{directory / CONFIG}: changed while it was being read.", REMEDY)
    settings = _parse(_Config, raw, directory / CONFIG).ratchet
    if problems is not None and settings.problem not in problems:
        raise BundleError(
            f"{directory / CONFIG}: unknown problem type '{settings.problem}', "
            f"known: {', '.join(problems)}.",
            "Open the bundle with the version of Ratchet that made it.",
        )
    return BundleInfo(
        directory,
        sha256,
        settings,
        manifest.recipe,
        manifest.metrics,
        manifest.limits,
        manifest.files,
    )


def _check_listed(directory: Path, files: Mapping[str, FileEntry]) -> list[str]:
    checked = (_check_file(directory, name, entry) for name, entry in files.items())
    return [defect for defect in checked if defect]


def _check_file(
    directory: Path, name: str, entry: FileEntry, content: bytearray | None = None
) -> str:
    """What is wrong with a file, empty if nothing is; appends its bytes to `content`."""
    path = directory / name
    if (
        not name
        or "\\" in name
        or "\0" in name
        or Path(name).is_absolute()
        or ".." in Path(name).parts
    ):
        return f"{name!r}: leaves the directory."
    if any(step.is_symlink() for step in (path, *path.parents) if directory in step.parents):
        return f"{name}: is a symbolic link, wanted a file."
    digest = hashlib.sha256()
    left = entry.bytes + 1  # one byte too many is enough to change the hash
    try:
        with _open(path) as stream:
            while left and (chunk := stream.read(min(left, _CHUNK))):
                digest.update(chunk)
                left -= len(chunk)
                if content is not None:
                    content += chunk
    except (FileNotFoundError, NotADirectoryError):
        return f"{name}: missing."
    sha256 = digest.hexdigest()
    if sha256 == entry.sha256:
        return ""
    return f"{name}: altered, found sha256 {sha256[:12]}…, wanted {entry.sha256[:12]}…."


def _check_unlisted(directory: Path, files: Mapping[str, Any]) -> list[str]:
    defects = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if name in files or name == MANIFEST:
            continue
        if path.is_symlink():
            defects.append(f"{name}: a symbolic link that is not in the manifest.")
        elif not path.is_dir():
            defects.append(f"{name}: not in the manifest.")
    return defects


def _open(path: Path) -> BinaryIO:
    """Open a regular file for reading; FileNotFoundError for anything else.

    Non-blocking: a named pipe would otherwise wait for its writer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(path)
    return open(descriptor, "rb")  # noqa: PTH123, of a descriptor; the caller closes it


def _read_small(directory: Path, name: str) -> bytes:
    path = directory / name
    if path.is_symlink():
        raise BundleError(f"{path}: is a symbolic link, wanted a file.", REMEDY)
    try:
        with _open(path) as stream:
            raw = stream.read(_MOST_JSON + 1)
    except (FileNotFoundError, NotADirectoryError):
        remedy = "Run `ratchet train`, or name the directory of a bundle."
        raise BundleError(f"{directory}: no bundle, there is no {name}.", remedy) from None
    if len(raw) > _MOST_JSON:
        raise BundleError(f"{path}: over {_MOST_JSON} bytes, too large for a {name}.", REMEDY)
    return raw


def _parse(model: type[Model], raw: bytes, path: Path) -> Model:
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        lines = "".join(
            f"\n  {_explain(dict(item))}" for item in error.errors(include_url=False)[:10]
        )
        raise BundleError(
            f"{path}: {error.error_count()} of its values cannot be used:{lines}", REMEDY
        ) from None


def _explain(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        return f"{where[:200]}: unknown key."
    value = error["input"]
    found = "" if isinstance(value, dict | list) else f", found {str(value)[:100]!r}"
    return f"{where[:200]}: {str(error['msg'])[:300]}{found}."
