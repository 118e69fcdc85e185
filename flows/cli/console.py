"""Shared by all `ratchet` commands: the app, common options, output of results and errors."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tasks.core.errors import ParamsError, PipelineError, as_storage_error
from tasks.core.version import own_version

if TYPE_CHECKING:
    from tasks.params.workspace import Workspace

INTERRUPTED = 128 + signal.SIGINT  # exit code by shell convention

app = typer.Typer(
    name="ratchet",
    help="Fine-tune a language model on your own text, ship it as quantized ONNX, "
    "and promote only better models.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Directory = Annotated[
    Path | None,
    typer.Option(
        "-C",
        "--directory",
        help="The workspace (default: the one around the current directory).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ratchet {own_version()}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]


@app.callback()
def _options(context: typer.Context, directory: Directory = None, version: Version = False) -> None:
    context.obj = directory


def open_workspace(context: typer.Context, directory: Path | None) -> Workspace:
    """Open the workspace that the options name; set up its stores and quiet the libraries."""
    from flows.engine.environment import prepare
    from tasks.params.workspace import Workspace

    workspace = Workspace.find(directory or context.obj)
    prepare(workspace)
    return workspace


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def run_app() -> NoReturn:
    """Run the command line: a user error prints a message and exits 2, a bug a traceback and 1."""
    wants_json = "--json" in sys.argv
    for ending in (signal.SIGTERM, signal.SIGHUP):
        # the default would end only this process and leave its servers and workers behind
        if signal.getsignal(ending) == signal.SIG_DFL:
            signal.signal(ending, _end)
    try:
        code = app(standalone_mode=False)  # the exit code of a command that raised typer.Exit
    except PipelineError as error:
        _fail(error, wants_json)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if hasattr(error, "format_message"):  # an unknown option, or a value of the wrong type
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "ratchet"
            _fail(ParamsError(error.format_message(), f"See `{command} --help`."), wants_json)
        storage_error = as_storage_error(error)
        if storage_error is None:
            raise
        _fail(storage_error, wants_json)
    if code == INTERRUPTED:  # typer returns it after Ctrl-C
        print(
            "\nInterrupted. Finished work is kept; run the same command again to continue.",
            file=sys.stderr,
        )
    sys.exit(code or 0)


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _fail(error: PipelineError, wants_json: bool) -> NoReturn:
    if wants_json:
        name = type(error).__name__
        print_json({"error": {"type": name, "message": error.message, "remedy": error.remedy}})
    else:
        print(f"ratchet: {error}", file=sys.stderr)
    sys.exit(2)
