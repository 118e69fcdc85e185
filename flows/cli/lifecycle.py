"""Commands that judge and move versions: compare, promote, approve, rollback, history, retrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.completion import versions_and_aliases
from flows.cli.console import (
    AsJson,
    Directory,
    VersionName,
    app,
    open_workspace,
    print_json,
    require_file,
)
from tasks.core.errors import ParamsError


def _short_enough(reason: str) -> str:
    from tasks.lifecycle.decisions import MAX_REASON

    if len(reason) > MAX_REASON:
        raise ParamsError(
            f"--reason: {len(reason):,} characters.",
            f"Use at most {MAX_REASON:,}, or a link to more.",
        )
    return reason


Reason = Annotated[
    str,
    typer.Option(
        "--reason", help="Reason, for the ledger.", show_default=False, callback=_short_enough
    ),
]


@app.command()
def compare(
    context: typer.Context,
    first: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="Version number, alias or bundle directory.",
            autocompletion=versions_and_aliases,
        ),
    ] = "challenger",
    second: Annotated[
        str,
        typer.Argument(
            metavar="B",
            help="Version number, alias or bundle directory to compare A with.",
            autocompletion=versions_and_aliases,
        ),
    ] = "champion",
    html: Annotated[
        Path | None, typer.Option("--html", help="Write an HTML page with plots to this file.")
    ] = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Compare two models on the same test rows: paired statistics, slices, speed side by side."""
    if html:
        html = require_file("compare: --html", html)
    workspace = open_workspace(context, directory)
    from flows.engine.progress import terminal_progress
    from flows.lifecycle.comparing import compare as run_comparison
    from flows.lifecycle.comparing import comparison_page
    from flows.printing.lifecycle import print_comparison
    from tasks.core.files import write_text

    with terminal_progress():
        comparison = run_comparison(workspace, first, second)
    if html:
        write_text(html, comparison_page(comparison))
    if as_json:
        print_json(comparison)
    else:
        print_comparison(comparison, html)


@app.command()
def promote(
    context: typer.Context,
    version: VersionName = "challenger",
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Promote it even if gates fail; needs --reason, and is recorded."
        ),
    ] = False,
    reason: Reason = "",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Make a version champion if no gate fails; a refusal exits with 2."""
    if force and not reason.strip():
        raise ParamsError(
            "promote: --force without a reason.",
            'Say why: --force --reason "…". The ledger keeps it.',
        )
    if reason and not force:
        raise ParamsError(
            "promote: --reason goes with --force.",
            "Without --force the gates decide, and the ledger keeps their reasons.",
        )
    workspace = open_workspace(context, directory)
    from flows.engine.progress import terminal_progress
    from flows.launch import promote as run_promotion
    from flows.lifecycle.effects import answering
    from flows.printing.lifecycle import print_promotion

    with answering(workspace, "promote") as effect:
        with terminal_progress():
            result = run_promotion(workspace, version, reason, effect)
        if as_json:
            print_json(result)
        else:
            print_promotion(result)
    if result["state"] == "refused":
        raise typer.Exit(2)


@app.command()
def approve(
    context: typer.Context,
    no: Annotated[bool, typer.Option("--no", help="Refuse the waiting promotion.")] = False,
    reason: Reason = "",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Answer a promotion that waits for manual approval (`promotion.approval: manual`)."""
    workspace = open_workspace(context, directory)
    from flows.launch import require_server
    from flows.lifecycle.approval import answer
    from flows.lifecycle.effects import answering

    require_server(workspace)
    with answering(workspace, "approve") as effect:
        run = answer(workspace, effect, approve=not no, reason=reason)
        if as_json:
            print_json({"state": "refused" if no else "approved", "flow_run": run})
        else:
            print(f"{'Refused' if no else 'Approved'}: the promotion {run} resumes.")


@app.command()
def rollback(
    context: typer.Context,
    to: Annotated[
        int | None,
        typer.Option(
            "--to", help="An earlier champion (default: the previous one).", show_default=False
        ),
    ] = None,
    reason: Reason = "",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Go back to the previous champion, after checking its files as for a promotion."""
    workspace = open_workspace(context, directory)
    from flows.launch import roll_back
    from flows.lifecycle.effects import answering
    from flows.printing.lifecycle import print_rollback

    with answering(workspace, "rollback") as effect:
        result = roll_back(workspace, to, reason, effect)
        if as_json:
            print_json(result)
        else:
            print_rollback(result)


@app.command()
def history(context: typer.Context, directory: Directory = None, as_json: AsJson = False) -> None:
    """Show every decision about the champion: who, when, for or against, why."""
    workspace = open_workspace(context, directory)
    from dataclasses import asdict

    from flows.printing.lifecycle import print_history
    from tasks.lifecycle.model_registry import ModelRegistry

    registry = ModelRegistry(workspace)
    decisions = registry.decisions()
    if as_json:
        print_json([asdict(decision) for decision in decisions])
    else:
        print_history(registry.name, decisions)


@app.command()
def retrain(context: typer.Context, directory: Directory = None, as_json: AsJson = False) -> None:
    """Train and promote if new data, drift, a worse metric or age triggers it.

    The triggers are set under `retrain:` in params.yaml.
    """
    workspace = open_workspace(context, directory)
    from flows.engine.progress import terminal_progress
    from flows.launch import retrain as run_retraining
    from flows.lifecycle.effects import answering
    from flows.printing.lifecycle import print_retraining

    with answering(workspace, "retrain") as effect:
        with terminal_progress():
            result = run_retraining(workspace, effect)
        if as_json:
            print_json(result)
        else:
            print_retraining(result)
