"""What ships: a directory with model.onnx, the tokenizer, config.json and manifest.json; nothing in it is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.calibration import Calibration
from tasks.core.errors import BundleError
from tasks.core.files import read_json, sha256_file, write_json

MODEL = "model.onnx"
CONFIG = "config.json"
MANIFEST = "manifest.json"
FORMAT = 1
_REMEDY = "Get the bundle again from where it was made (`ratchet train`, or the registry); do not edit it in place."


@dataclass(frozen=True)
class Settings:
    """The `ratchet` key of config.json: what inference needs beyond Hugging Face's own keys.

    threads  of onnxruntime; 0: one a physical core
    """

    problem: str
    labels: tuple[str, ...]
    max_length: int
    pad_token_id: int
    temperature: float
    output_name: str
    threads: int = 0
    bias: tuple[float, ...] = ()

    @property
    def calibration(self) -> Calibration:
        """What is done to the model's outputs."""
        return Calibration(self.temperature, self.bias)


@dataclass(frozen=True)
class BundleInfo:
    """A bundle whose every file was checked.

    metrics  of the bundle itself on the test split
    """

    directory: Path
    settings: Settings
    recipe: str
    metrics: Mapping[str, float]
    limits: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @property
    def problem(self) -> str:
        """The problem type's name."""
        return self.settings.problem

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, by their number."""
        return self.settings.labels

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files but the manifest."""
        return sum(int(entry["bytes"]) for entry in self.files.values())


def write_config(directory: Path, checkpoint_config: Mapping[str, Any], settings: Settings) -> None:
    """Write a plain Hugging Face config.json with our settings under one key."""
    write_json(directory / CONFIG, {**checkpoint_config, "ratchet": asdict(settings)})


def write_manifest(directory: Path, *, recipe: str, metrics: Mapping[str, float], limits: Mapping[str, Any]) -> None:
    """Write down every file's hash and size; whatever changes afterwards, `open_bundle` refuses."""
    files = {
        file.relative_to(directory).as_posix(): {"sha256": sha256_file(file), "bytes": file.stat().st_size}
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file != directory / MANIFEST
    }
    manifest = {"format": FORMAT, "recipe": recipe, "metrics": dict(metrics), "limits": dict(limits), "files": files}
    write_json(directory / MANIFEST, manifest)


def open_bundle(directory: Path, problems: Sequence[str] | None = None) -> BundleInfo:
    """Check every file of a bundle against its manifest.

    problems  the known problem types; None: any
    Raises BundleError for a file that is missing, extra, altered, a symbolic link or outside the directory, for a
    config.json that cannot be used, and for an unknown problem type.
    """
    manifest = _read_object(directory, MANIFEST)
    files = manifest.get("files")
    if manifest.get("format") != FORMAT or not isinstance(files, dict) or not files:
        raise BundleError(f"{directory / MANIFEST}: format is {manifest.get('format')!r}, wanted {FORMAT} with a list of files.", _REMEDY)
    wrong = [*_check_listed(directory, files), *_check_unlisted(directory, files)]
    wrong += [f"{name}: not in the manifest, wanted." for name in (MODEL, CONFIG, "tokenizer.json") if name not in files]
    if wrong:
        lines = "".join(f"\n  {line}" for line in wrong)
        raise BundleError(f"{directory}: {len(wrong)} of its files cannot be trusted:{lines}", _REMEDY)
    settings = _read_settings(directory)
    if problems is not None and settings.problem not in problems:
        raise BundleError(
            f"{directory / CONFIG}: unknown problem type '{settings.problem}', known: {', '.join(problems)}.",
            "Open the bundle with the version of Ratchet that made it.",
        )
    return BundleInfo(directory, settings, str(manifest.get("recipe")), manifest.get("metrics", {}), manifest.get("limits", {}), files)


def _check_listed(directory: Path, files: Mapping[str, Any]) -> list[str]:
    wrong = []
    for name, entry in files.items():
        file = directory / name
        if not name or "\\" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            wrong.append(f"{name!r}: leaves the directory.")
        elif not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
            wrong.append(f"{name}: the manifest has no sha256 of it.")
        elif any(part.is_symlink() for part in (file, *file.parents) if directory in part.parents):
            wrong.append(f"{name}: is a symbolic link, wanted a file.")
        elif not file.is_file():
            wrong.append(f"{name}: missing.")
        elif (found := sha256_file(file)) != entry["sha256"]:
            wrong.append(f"{name}: altered, found sha256 {found[:12]}…, wanted {entry['sha256'][:12]}….")
    return wrong


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


def _read_settings(directory: Path) -> Settings:
    config = _read_object(directory, CONFIG)
    values: Any = config.get("ratchet")
    try:
        settings = Settings(**{**values, "labels": tuple(values["labels"]), "bias": tuple(values.get("bias", ()))})
        valid = settings.temperature > 0 and settings.max_length > 0 and settings.threads >= 0 and bool(settings.output_name)
    except (TypeError, KeyError):
        valid = False
    if not valid:
        wanted = ", ".join(Settings.__dataclass_fields__)
        raise BundleError(f"{directory / CONFIG}: its `ratchet` key is {json.dumps(values)[:200]}, wanted {wanted}.", _REMEDY)
    return settings


def _read_object(directory: Path, name: str) -> dict[str, Any]:
    file = directory / name
    if file.is_symlink():
        raise BundleError(f"{file}: is a symbolic link, wanted a file.", _REMEDY)
    try:
        value = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        remedy = "Run `ratchet train`, or name the directory of a bundle."
        raise BundleError(f"{directory}: no bundle, there is no {name}.", remedy) from None
    except ValueError as error:  # also of bytes that are not UTF-8
        raise BundleError(f"{file}: not valid JSON: {error}", _REMEDY) from None
    if not isinstance(value, dict):
        raise BundleError(f"{file}: wanted a JSON object, found {type(value).__name__}.", _REMEDY)
    return value
