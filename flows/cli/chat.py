"""`ratchet chat`: talk to a model."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import (
    Alias,
    AsJson,
    Bundle,
    Directory,
    VersionNumber,
    app,
    open_workspace,
    say_which,
)
from tasks.core.errors import ParamsError


@app.command()
def chat(
    context: typer.Context,
    system: Annotated[
        str,
        typer.Option(help="System prompt.", show_default=False),
    ] = "",
    temperature: Annotated[
        float,
        typer.Option(min=0, help="0: always the likeliest token; 1: sample as the model predicts."),
    ] = 0.7,
    top_p: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Sample from the likeliest tokens with this total probability."
        ),
    ] = 0.9,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens per answer.")] = 128,
    seed: Annotated[
        int | None, typer.Option(help="Seed, for reproducible answers.", show_default=False)
    ] = None,
    alias: Alias = None,
    version: VersionNumber = None,
    bundle: Bundle = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Talk to a model: each line is a turn; /reset starts over, /exit or end of input ends."""
    from applications.conversation import converse
    from applications.prediction import load_predictor
    from tasks.inference.generation import ChatModel, Sampling

    workspace = None if bundle else open_workspace(context, directory)
    loaded = load_predictor(workspace, bundle=bundle, alias=alias, version=version)
    predictor = loaded.predictor
    if not predictor.problem.decoding.has_kv_cache:
        raise ParamsError(
            f"chat: a {predictor.problem.name} model cannot chat.", "Use `ratchet predict`."
        )
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    speaker = ChatModel(predictor.tokenizer, predictor.model, sampling)
    say_which("Talking", loaded)
    converse(speaker, system, as_json=as_json)
