"""What ships: a directory with model.onnx, the tokenizer, config.json and manifest.json; nothing in it is ever unpickled.

A manifest says what the other files are; the registry says what the manifest is. What is used is hashed as it is read: there is
no second look at a file that was found right.
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
FORMAT = 1
REMEDY = "Get the bundle again from where it was made (`ratchet train`, or the registry); do not edit it in place."
_MOST_JSON = 64 * 2**20  # bytes of a manifest or a config.json: the labels stand in both
_MOST_BYTES = 2**40  # of any other file
_CHUNK = 2**20

Finite = Annotated[float, AllowInfNan(False)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Labels = Annotated[tuple[Name, ...], Field(max_length=1_000_000)]


class _Part(BaseModel):
    """Read from a bundle: every value bounded, none converted, no key that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Settings(_Part):
    """The `ratchet` key of config.json: what inference needs beyond Hugging Face's own keys.

    threads  of onnxruntime; 0: one a physical core
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
        """What is done to the model's outputs."""
        return Calibration(self.temperature, self.bias)


class FileEntry(_Part):
    """What the manifest says of a file."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, le=_MOST_BYTES)]


class Limits(_Part):
    """What the model was made for."""

    max_length: Annotated[int, Field(ge=1, le=MOST_TOKENS)]
    labels: Labels


class _Manifest(_Part):
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
    """A bundle whose every file was checked.

    sha256   of its manifest, which holds every other file's
    metrics  of the bundle itself on the test split
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
        """The problem type's name."""
        return self.settings.problem

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the model's outputs."""
        return self.settings.labels

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files but the manifest."""
        return sum(entry.bytes for entry in self.files.values())

    def read(self, name: str) -> bytes | None:
        """A file's bytes, hashed as they were read; None for one that the bundle does not have, BundleError for one altered since."""
        if name not in self.files:
            return None
        content = bytearray()
        if wrong := _check_file(self.directory, name, self.files[name], content):
            raise BundleError(f"{self.directory}: {wrong}", REMEDY)
        return bytes(content)


def write_config(directory: Path, checkpoint_config: Mapping[str, Any], settings: Settings) -> None:
    """Write a plain Hugging Face config.json with our settings under one key."""
    write_json(
        directory / CONFIG, {**checkpoint_config, "ratchet": settings.model_dump(mode="json")}
    )


def write_manifest(
    directory: Path, *, recipe: str, metrics: Mapping[str, float], limits: Limits
) -> None:
    """Write down every file's hash and size; whatever changes afterwards, `open_bundle` refuses."""
    files = {
        file.relative_to(directory).as_posix(): {
            "sha256": sha256_file(file),
            "bytes": file.stat().st_size,
        }
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file != directory / MANIFEST
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
    """Check every file of a bundle against its manifest, and that against what was registered.

    problems    the known problem types; None: any
    registered  sha256 of the manifest that the registry knows; None: whatever lies there is taken
    Raises BundleError for a file that is missing, extra, altered, a symbolic link or outside the directory, for a manifest or a
    config.json with values that cannot be, for an unknown problem type, and for a bundle that is not the one registered.
    """
    raw = _read_small(directory, MANIFEST)
    found = hashlib.sha256(raw).hexdigest()
    if registered is not None and found != registered:
        raise BundleError(
            f"{directory}: is not the bundle that was registered: its {MANIFEST} has sha256 {found[:12]}…, wanted {registered[:12]}….",
            "Somebody changed it since. Register it again (`ratchet train`), or name another version.",
        )
    manifest = _parse(_Manifest, raw, directory / MANIFEST)
    wrong = [*_check_listed(directory, manifest.files), *_check_unlisted(directory, manifest.files)]
    wrong += [
        f"{name}: not in the manifest, wanted."
        for name in (MODEL, CONFIG, "tokenizer.json")
        if name not in manifest.files
    ]
    if wrong:
        lines = "".join(f"\n  {line}" for line in wrong)
        raise BundleError(
            f"{directory}: {len(wrong)} of its files cannot be trusted:{lines}", REMEDY
        )
    raw = _read_small(directory, CONFIG)
    if hashlib.sha256(raw).hexdigest() != manifest.files[CONFIG].sha256:
        raise BundleError(f"{directory / CONFIG}: changed while it was read.", REMEDY)
    settings = _parse(_Config, raw, directory / CONFIG).ratchet
    if problems is not None and settings.problem not in problems:
        raise BundleError(
            f"{directory / CONFIG}: unknown problem type '{settings.problem}', known: {', '.join(problems)}.",
            "Open the bundle with the version of Ratchet that made it.",
        )
    return BundleInfo(
        directory,
        found,
        settings,
        manifest.recipe,
        manifest.metrics,
        manifest.limits,
        manifest.files,
    )


def _check_listed(directory: Path, files: Mapping[str, FileEntry]) -> list[str]:
    checked = (_check_file(directory, name, entry) for name, entry in files.items())
    return [wrong for wrong in checked if wrong]


def _check_file(
    directory: Path, name: str, entry: FileEntry, content: bytearray | None = None
) -> str:
    """What is wrong with a file, or nothing; its bytes are put into `content`."""
    file = directory / name
    if (
        not name
        or "\\" in name
        or "\0" in name
        or Path(name).is_absolute()
        or ".." in Path(name).parts
    ):
        return f"{name!r}: leaves the directory."
    if any(part.is_symlink() for part in (file, *file.parents) if directory in part.parents):
        return f"{name}: is a symbolic link, wanted a file."
    digest, left = (
        hashlib.sha256(),
        entry.bytes + 1,
    )  # a byte more than there should be is enough to tell
    try:
        with _open(file) as opened:
            while left and (chunk := opened.read(min(left, _CHUNK))):
                digest.update(chunk)
                left -= len(chunk)
                if content is not None:
                    content += chunk
    except (FileNotFoundError, NotADirectoryError):
        return f"{name}: missing."
    found = digest.hexdigest()
    return (
        ""
        if found == entry.sha256
        else f"{name}: altered, found sha256 {found[:12]}…, wanted {entry.sha256[:12]}…."
    )


def _check_unlisted(directory: Path, files: Mapping[str, Any]) -> list[str]:
    wrong = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if name in files or name == MANIFEST:
            continue
        if path.is_symlink():
            wrong.append(f"{name}: a symbolic link that is not in the manifest.")
        elif not path.is_dir():
            wrong.append(f"{name}: not in the manifest.")
    return wrong


def _open(file: Path) -> BinaryIO:
    """A plain file, opened to read; FileNotFoundError for whatever else lies there, and nothing is waited for."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(file)
    return open(descriptor, "rb")  # noqa: PTH123, of a descriptor; the caller closes it


def _read_small(directory: Path, name: str) -> bytes:
    file = directory / name
    if file.is_symlink():
        raise BundleError(f"{file}: is a symbolic link, wanted a file.", REMEDY)
    try:
        with _open(file) as opened:
            raw = opened.read(_MOST_JSON + 1)
    except (FileNotFoundError, NotADirectoryError):
        remedy = "Run `ratchet train`, or name the directory of a bundle."
        raise BundleError(f"{directory}: no bundle, there is no {name}.", remedy) from None
    if len(raw) > _MOST_JSON:
        raise BundleError(f"{file}: over {_MOST_JSON} bytes, which no {name} has.", REMEDY)
    return raw


def _parse(model: type[Model], raw: bytes, file: Path) -> Model:
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        lines = "".join(
            f"\n  {_explain(dict(item))}" for item in error.errors(include_url=False)[:10]
        )
        raise BundleError(
            f"{file}: {error.error_count()} of its values cannot be used:{lines}", REMEDY
        ) from None


def _explain(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        return f"{where[:200]}: unknown key."
    found = (
        "" if isinstance(error["input"], dict | list) else f", found {str(error['input'])[:100]!r}"
    )
    return f"{where[:200]}: {str(error['msg'])[:300]}{found}."
