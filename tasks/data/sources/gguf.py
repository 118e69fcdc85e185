"""A GGUF file, as llama.cpp reads it, as a base model's directory: its weights in float32, its tokenizer and chat template."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.core.errors import SourceError
from tasks.core.files import atomic_path, read_json, write_json
from tasks.data.sources.downloads import lock
from tasks.data.sources.pins import sha256_once
from tasks.training.networks.pretrained import check_weights


def converted_model(file: Path, cache: Path) -> Path:
    """The directory that a GGUF file was converted to, once for each content; takes under a minute for 135M parameters."""
    if not file.is_file():
        raise SourceError(f"{file}: no such file.", "Check `base_model.path` of params.yaml.")
    place = cache / "gguf" / sha256_once(file)[:24]
    directory, made = place / "model", place / "made.json"
    with lock(place):
        if not made.is_file() or read_json(made) != _contents(
            directory
        ):  # never made, or changed since
            with atomic_path(directory) as new:
                new.mkdir()
                _convert(file, new)
            write_json(made, _contents(directory))
    return directory


def _contents(directory: Path) -> dict[str, str]:
    return {file.name: sha256_once(file) for file in sorted(directory.glob("*"))}


def _convert(file: Path, directory: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": os.fspath(file.name),
        "trust_remote_code": False,
    }
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            **source, dtype="float32", output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except ImportError:
        raise SourceError(
            f"{file.name}: the package gguf, which reads it, is not installed.",
            "pip install gguf==0.19.0",
        ) from None
    except (ValueError, KeyError, RuntimeError, OSError, NotImplementedError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise SourceError(
            f"{file.name}: cannot be read as GGUF: {said}",
            "Take a model as `save_pretrained` writes it.",
        ) from error
    check_weights(model, loading, file.name, complete=True)
    # it was dequantized: what says that it is still quantized would keep it from being saved
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
