"""The command that orders candidates: answers to a question, items for what a user liked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.console import AsJson, Directory, app, open_workspace, print_json
from tasks.core.errors import ParamsError


@app.command()
def rank(
    context: typer.Context,
    query: Annotated[
        str, typer.Argument(help="The first text of every pair: a question, or what a user liked.")
    ],
    candidates: Annotated[
        list[str] | None, typer.Argument(help="The second texts, to be ranked.", show_default=False)
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="CSV, TSV, JSONL or Parquet file that holds them in the column `text_b`.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="The class whose probability ranks, where the model gives classes.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="How many to print (default: all).", show_default=False),
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Take the version with this alias.")] = None,
    version: Annotated[int | None, typer.Option(help="Take this version.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Take this bundle directory; needs no workspace.")
    ] = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Rank candidates for a query with a registered version (default: the newest) or a bundle, the best first."""
    from applications.prediction import load_predictor
    from applications.ranking import rank_candidates, read_candidates

    if bool(candidates) == (input_file is not None):
        raise ParamsError(
            "rank: no candidates, or two kinds of them.", "Give them as arguments, or --input FILE."
        )
    workspace = None if bundle else open_workspace(context, directory)
    predictor, _ = load_predictor(workspace, bundle=bundle, alias=alias, version=version)
    given = candidates if input_file is None else read_candidates(predictor, input_file)
    ranked = rank_candidates(predictor, query, given or [], label)[:top]
    print_json(ranked) if as_json else _print(ranked)


def _print(ranked: list[dict[str, Any]]) -> None:
    for one in ranked:
        print(f"{one['rank']:>4}  {one['score']:8.3f}  {one['text']}")
