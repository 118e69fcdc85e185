"""`ratchet stage`, which dvc.yaml calls: unlike `python -m tasks`, it ignores a local `tasks`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import app


@app.command(hidden=True)
def stage(
    name: Annotated[str, typer.Argument(help="Name of a stage in dvc.yaml.")],
    code: Annotated[
        str,
        typer.Option(help="Code version that dvc.yaml was rendered with.", show_default=False),
    ] = "",
) -> None:
    """Run one stage of the current workspace, as `dvc repro` does."""
    from tasks.__main__ import main

    raise typer.Exit(main([name, *(["--code", code] if code else [])]))
