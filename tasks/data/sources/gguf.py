"""Convert a GGUF file (llama.cpp's format) to a base model directory.

The directory holds float32 weights, the tokenizer and its chat template.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tasks.core.errors import SourceError
from tasks.core.files import atomic_path, read_json, write_json
from tasks.core.foreign import foreign_file
from tasks.data.sources.downloads import lock
from tasks.data.sources.pins import sha256_once
from tasks.training.networks.pretrained import check_weights


def converted_model(file: Path, cache: Path) -> Path:
    """Directory of the converted model, cached by content; under a minute for 135M parameters."""
    if not file.is_file():
        raise SourceError(f"{file}: no such file.", "Check `base_model.path` in params.yaml.")
    cache_dir = cache / "gguf" / sha256_once(file)[:24]
    directory, hashes = cache_dir / "model", cache_dir / "made.json"
    with lock(cache_dir):
        # not converted yet, or altered since
        if not hashes.is_file() or read_json(hashes) != _file_hashes(directory):
            with atomic_path(directory) as new:
                new.mkdir()
                _convert(file, new)
            write_json(hashes, _file_hashes(directory))
    return directory


def _file_hashes(directory: Path) -> dict[str, str]:
    return {file.name: sha256_once(file) for file in sorted(directory.glob("*"))}


def _convert(file: Path, directory: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto_class: Any = AutoModelForCausalLM  # typed as if it returned only the model
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": os.fspath(file.name),
        "trust_remote_code": False,
    }
    what = f"{file.name}: cannot be read as GGUF"
    try:
        with foreign_file(what, "Use a model as `save_pretrained` writes it."):
            model, loading = auto_class.from_pretrained(
                **source, dtype="float32", output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(**source)
    except ImportError:
        raise SourceError(
            f"{file.name}: reading GGUF needs the package gguf, which is not installed.",
            "pip install gguf==0.19.0",
        ) from None
    check_weights(model, loading, file.name, complete=True)
    # the weights are dequantized, but save_pretrained refuses a model still marked as quantized
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
