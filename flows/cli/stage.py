"""Commands that DVC and developers call: `ratchet stage` is what dvc.yaml runs.

No `python -m tasks`: a workspace may have a tasks.py of its own.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.cli.console import app, open_workspace
from tasks.core.errors import PipelineError


@app.command(hidden=True)
def stage(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a stage in dvc.yaml.")],
    code: Annotated[
        str | None,
        typer.Option(help="Code version that dvc.yaml was rendered with.", show_default=False),
    ] = None,
) -> None:
    """Run one stage of the workspace, as `dvc repro` does."""
    workspace = open_workspace(context, None)
    from flows.engine.progress import listener, terminal_progress
    from tasks.pipeline import check_params, code_version, find_stage, run_stage

    found = find_stage(name)
    params = check_params(workspace.params(), workspace.root)
    installed = code_version(found, params.problem)
    if code not in (None, installed):
        raise PipelineError(
            f"{name}: dvc.yaml wants version {code} of its code, this Ratchet has {installed}.",
            "Run `ratchet dvc-yaml`, then `dvc repro` again.",
        )
    with terminal_progress():
        run_stage(found, workspace, params, listener.get()(name))


@app.command(hidden=True)
def dvc_yaml(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if dvc.yaml is stale; write nothing.")
    ] = False,
) -> None:
    """Render the workspace's dvc.yaml from the stage table and params.yaml."""
    workspace = open_workspace(context, None)
    from tasks.pipeline import is_current, render_dvc_yaml, write_dvc_yaml

    if not check:
        print("dvc.yaml written" if write_dvc_yaml(workspace) else "dvc.yaml is up to date")
    elif not is_current(workspace, render_dvc_yaml(workspace)):
        print("dvc.yaml is stale. Run `ratchet dvc-yaml`.", file=sys.stderr)
        raise typer.Exit(1)
