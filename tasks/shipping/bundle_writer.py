"""Assemble a bundle from the outputs of earlier stages, then seal it with its own test metrics."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tasks.core.files import read_json
from tasks.encoding.encoder import OUTPUT_NAME
from tasks.encoding.token_files import TokensInfo
from tasks.inference.bundle import (
    MODEL,
    Limits,
    Settings,
    open_bundle,
    write_config,
    write_manifest,
)
from tasks.inference.calibration import Calibration


def assemble_bundle(
    bundle: Path,
    model: Path,
    tokens: Path,
    checkpoint: Path,
    *,
    problem: str,
    labels: Sequence[str],
    recipe: str,
    calibration: Calibration,
    threads: int,
) -> None:
    """Write everything but the metrics, which are measured on the finished bundle."""
    info = TokensInfo.read(tokens)
    bundle.mkdir(parents=True)
    for file in sorted((tokens / "tokenizer").iterdir()):
        shutil.copyfile(file, bundle / file.name)
    shutil.copyfile(model, bundle / MODEL)
    settings = Settings(
        problem=problem, labels=tuple(labels), max_length=info.max_length,
        pad_token_id=info.pad_token_id, temperature=calibration.temperature,
        output_name=OUTPUT_NAME, threads=threads, bias=calibration.bias,
    )  # fmt: skip
    write_config(bundle, read_json(checkpoint / "config.json"), settings)
    limits = Limits(max_length=info.max_length, labels=tuple(labels))
    write_manifest(bundle, recipe=recipe, metrics={}, limits=limits)


def seal_bundle(bundle: Path, metrics: dict[str, float]) -> None:
    """Write the bundle's own test metrics into its manifest, after which it is final."""
    info = open_bundle(bundle)
    write_manifest(bundle, recipe=info.recipe, metrics=metrics, limits=info.limits)
