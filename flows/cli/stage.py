"""The command that dvc.yaml calls: stage. What is called `tasks` where the user stands does not come in its way."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import app


@app.command(hidden=True)
def stage(
    name: Annotated[str, typer.Argument(help="A stage of dvc.yaml.")],
    code: Annotated[
        str,
        typer.Option(
            help="Version of the code that dvc.yaml was rendered with.", show_default=False
        ),
    ] = "",
) -> None:
    """Run one stage of the workspace you stand in, as `dvc repro` does."""
    from tasks.__main__ import main

    raise typer.Exit(main([name, *(["--code", code] if code else [])]))
