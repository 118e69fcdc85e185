"""A GGUF file, as llama.cpp reads it, as a base model's directory: its weights in float32, its tokenizer and chat template."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.core.downloads import lock
from tasks.core.errors import SourceError
from tasks.core.files import atomic_path, sha256_file


def converted_model(file: Path, cache: Path) -> Path:
    """The directory that a GGUF file was converted to, once for each content; takes under a minute for 135M parameters."""
    if not file.is_file():
        raise SourceError(f"{file}: no such file.", "Check `base_model.path` of params.yaml.")
    place = cache / "gguf" / sha256_file(file)[:24]
    with lock(place):
        if not (place / "model").is_dir():
            with atomic_path(place / "model") as new:
                new.mkdir()
                _convert(file, new)
    return place / "model"


def _convert(file: Path, directory: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": os.fspath(file.name), "trust_remote_code": False}
    try:
        model = AutoModelForCausalLM.from_pretrained(**source, dtype="float32")
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except ImportError:
        raise SourceError(f"{file.name}: the package gguf, which reads it, is not installed.", "pip install gguf==0.19.0") from None
    except (ValueError, KeyError, RuntimeError, OSError, NotImplementedError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise SourceError(f"{file.name}: cannot be read as GGUF: {said}", "Take a model as `save_pretrained` writes it.") from error
    # it was dequantized: what says that it is still quantized would keep it from being saved
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
