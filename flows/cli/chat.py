"""The command that talks to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import AsJson, Directory, app, open_workspace
from tasks.core.errors import ParamsError


@app.command()
def chat(
    context: typer.Context,
    system: Annotated[
        str,
        typer.Option(help="What the model is told before the dialogue begins.", show_default=False),
    ] = "",
    temperature: Annotated[
        float,
        typer.Option(min=0, help="0: always the likeliest token; 1: as the model has learnt."),
    ] = 0.7,
    top_p: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Choose among the likeliest tokens with this probability together."
        ),
    ] = 0.9,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")] = 128,
    seed: Annotated[
        int | None, typer.Option(help="The same answers again.", show_default=False)
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option(
            help="Take the version with this alias (default: champion).", show_default=False
        ),
    ] = None,
    version: Annotated[int | None, typer.Option(help="Take this version.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Take this bundle directory; needs no workspace.")
    ] = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Talk to the champion: a line is a turn; /reset begins anew, /exit (or the end of the input) ends."""
    from applications.conversation import converse
    from applications.prediction import load_predictor
    from tasks.inference.generation import Sampling, Speaker

    workspace = None if bundle else open_workspace(context, directory)
    named = alias if alias or version else "champion"
    predictor, called = load_predictor(workspace, bundle=bundle, alias=named, version=version)
    if not predictor.problem.reads_on:
        raise ParamsError(
            f"chat: a model of {predictor.problem.name} does not talk.", "Use `ratchet predict`."
        )
    converse(
        Speaker(
            predictor.tokenizer, predictor.model, Sampling(max_new_tokens, temperature, top_p, seed)
        ),
        called,
        system,
        as_json=as_json,
    )
