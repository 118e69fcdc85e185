"""What every `ratchet` command shares: the app, its common options, how results and errors are told."""

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

INTERRUPTED = 128 + signal.SIGINT  # the shells' exit code of it

app = typer.Typer(
    name="ratchet",
    help="Fine-tune a language model on your own text, ship it as quantized ONNX, let only better models through.",
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
        help="The workspace (default: the one you stand in).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ratchet {own_version()}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and end."
    ),
]


@app.callback()
def _options(context: typer.Context, directory: Directory = None, version: Version = False) -> None:
    context.obj = directory


def open_workspace(context: typer.Context, directory: Path | None) -> Workspace:
    """The workspace that the options name, its stores set up and the libraries quieted."""
    from flows.engine.environment import prepare
    from tasks.params.workspace import Workspace

    workspace = Workspace.find(directory or context.obj)
    prepare(workspace)
    return workspace


def print_json(value: Any) -> None:
    """Print a result for programs."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def run_app() -> NoReturn:
    """Run the command line: a user's mistake ends in one message and exit code 2, a bug in its traceback and 1."""
    wants_json = "--json" in sys.argv
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if (
            signal.getsignal(ending) == signal.SIG_DFL
        ):  # it would end this process alone and leave its servers and workers behind
            signal.signal(ending, _end)
    try:
        code = app(
            standalone_mode=False
        )  # of a command that ends by itself with another code than 0
    except PipelineError as error:
        _fail(error, wants_json)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if hasattr(
            error, "format_message"
        ):  # an option that does not exist, or a value of the wrong kind
            context = getattr(error, "ctx", None)
            _fail(
                ParamsError(
                    error.format_message(),
                    f"See `{context.command_path if context else 'ratchet'} --help`.",
                ),
                wants_json,
            )
        refusal = as_storage_error(error)
        if refusal is None:
            raise
        _fail(refusal, wants_json)
    if code == INTERRUPTED:  # typer's answer to Ctrl-C
        print(
            "\nInterrupted. What was finished is kept; the same command goes on from here.",
            file=sys.stderr,
        )
    sys.exit(code or 0)


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _fail(error: PipelineError, wants_json: bool) -> NoReturn:
    if wants_json:
        print_json(
            {
                "error": {
                    "type": type(error).__name__,
                    "message": error.message,
                    "remedy": error.remedy,
                }
            }
        )
    else:
        print(f"ratchet: {error}", file=sys.stderr)
    sys.exit(2)
