"""`ratchet rank`: rank candidates, such as answers to a question or items a user may like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.console import (
    Alias,
    AsJson,
    Bundle,
    Directory,
    VersionNumber,
    app,
    open_workspace,
    print_json,
    say_which,
)
from tasks.core.errors import ParamsError


@app.command()
def rank(
    context: typer.Context,
    query: Annotated[
        str, typer.Argument(help="First text of every pair: a question, or an item the user liked.")
    ],
    candidates: Annotated[
        list[str] | None, typer.Argument(help="Second texts, to be ranked.", show_default=False)
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="CSV, TSV, JSONL or Parquet file with the candidates in column `text_b`.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Class whose probability ranks the candidates, if the model predicts classes.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Number to print (default: all).", show_default=False),
    ] = None,
    alias: Alias = None,
    version: VersionNumber = None,
    bundle: Bundle = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Rank candidates for a query, best first."""
    from applications.prediction import load_predictor
    from applications.ranking import rank_candidates, read_candidates

    if bool(candidates) == (input_file is not None):
        problem = "both arguments and --input" if candidates else "no candidates"
        raise ParamsError(
            f"rank: {problem}.", "Give the candidates either as arguments or with --input FILE."
        )
    workspace = None if bundle else open_workspace(context, directory)
    loaded = load_predictor(workspace, bundle=bundle, alias=alias, version=version)
    say_which("Ranking", loaded)
    predictor = loaded.predictor
    texts = candidates if input_file is None else read_candidates(predictor, input_file)
    ranked = rank_candidates(predictor, query, texts or [], label)[:top]
    print_json(ranked) if as_json else _print(ranked)


def _print(ranked: list[dict[str, Any]]) -> None:
    for candidate in ranked:
        print(f"{candidate['rank']:>4}  {candidate['score']:8.3f}  {candidate['text']}")
