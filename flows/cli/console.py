"""Shared by all `ratchet` commands: the app, common options, output of results and errors."""

from __future__ import annotations

import io
import json
import logging
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from flows.cli.completion import alias_names, version_numbers, versions_and_aliases
from tasks.core.addresses import redact
from tasks.core.errors import ParamsError, PipelineError, as_storage_error
from tasks.core.logs import show_logs
from tasks.core.version import own_version

if TYPE_CHECKING:
    from applications.prediction import Loaded
    from tasks.params.workspace import Workspace

INTERRUPTED = 128 + signal.SIGINT  # exit code by shell convention

VERBOSE = "Log every action on standard error; RATCHET_LOG=info logs less."


def _show_all_logs(context: object, option: object, wanted: bool) -> None:
    if wanted:
        show_logs(verbose=True)


# panels of `ratchet --help`, in the order of a model's life
PANELS = {
    "Start": ("init", "demo", "adapt"),
    "Train and use": ("train", "status", "report", "predict", "rank", "chat", "ui"),
    "Into production": ("compare", "promote", "approve", "rollback", "history"),
    "Again": ("retrain", "schedule"),
}


class _Commands(TyperGroup):
    """The commands, grouped; each takes -v too, because people write it after the command."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for panel, names in PANELS.items():
            for name in names:
                command = self.commands.pop(name)
                command.rich_help_panel = panel  # type: ignore[attr-defined]
                self.commands[name] = command
        for command in self.commands.values():
            option = copy(next(option for option in self.params if option.name == "verbose"))
            option.expose_value, option.callback = False, _show_all_logs
            command.params.append(option)


app = typer.Typer(
    name="ratchet",
    cls=_Commands,
    help="Fine-tune a language model on your own text, ship it as quantized ONNX, "
    "and promote only better models.",
    invoke_without_command=True,
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

Alias = Annotated[
    str | None,
    typer.Option(
        help="Use the version with this alias.", show_default=False, autocompletion=alias_names
    ),
]
VersionNumber = Annotated[
    int | None,
    typer.Option(
        "--version",
        help="Use this version (default: the champion; the newest, if none was promoted).",
        show_default=False,
        autocompletion=version_numbers,
    ),
]
VersionName = Annotated[
    str,
    typer.Argument(
        metavar="VERSION", help="Version number or alias.", autocompletion=versions_and_aliases
    ),
]
Bundle = Annotated[
    Path | None,
    typer.Option(help="Use this bundle directory; needs no workspace.", show_default=False),
]
FileEncoding = Annotated[
    str | None,
    typer.Option("--encoding", help="Encoding of text files (default: utf-8).", show_default=False),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Between the fields of CSV (default: found out).", show_default=False),
]
Sheet = Annotated[
    str | None,
    typer.Option(help="Sheet of an Excel file (default: the only one).", show_default=False),
]


def given(**options: str | None) -> dict[str, str]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def require_file(option: str, path: Path, source: Path | None = None) -> Path:
    """The file to write, a link followed; ParamsError unless it may be written or replaced.

    source  what is read meanwhile
    """
    path = path.resolve() if path.is_symlink() else path
    if path.is_dir():
        raise ParamsError(f"{option} {path}: a directory.", "Name a file.")
    if path.exists() and not path.is_file():
        raise ParamsError(f"{option} {path}: not a plain file.", "Name a file.")
    if source and source.exists() and path.exists() and path.samefile(source):
        raise ParamsError(f"{option} {path}: the input, which it would replace.", "Name another.")
    return path


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ratchet {own_version()}")
        raise typer.Exit


Verbose = Annotated[bool, typer.Option("-v", "--verbose", help=VERBOSE)]
Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]


@app.callback()
def _options(
    context: typer.Context,
    directory: Directory = None,
    verbose: Verbose = False,
    version: Version = False,
) -> None:
    context.obj = directory
    show_logs(verbose=verbose)
    if context.invoked_subcommand is None:
        print(context.get_help())


def open_workspace(context: typer.Context, directory: Path | None) -> Workspace:
    """Open the workspace that the options name; set up its stores and quiet the libraries."""
    from flows.engine.environment import prepare
    from tasks.core.memory import TO_READ, require_address_space
    from tasks.params.workspace import Workspace

    require_address_space(TO_READ)
    workspace = Workspace.find(directory or context.obj)
    prepare(workspace)
    return workspace


def say_which(doing: str, loaded: Loaded) -> None:
    """Say which model is used, on standard error."""
    print(f"{doing} with {loaded.name}.", file=sys.stderr)
    if loaded.note:
        print(loaded.note, file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a result as JSON; all in ASCII where standard output cannot hold every character."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(value, ensure_ascii=not is_unicode, indent=2, default=str))


def run_app() -> NoReturn:
    """Run the command line: exit code 2 after a user's mistake, 1 after a bug, with a message."""
    wants_json = "--json" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it cannot hold is printed as \xef
            stream.reconfigure(errors="backslashreplace")
    for ending in (signal.SIGTERM, signal.SIGHUP):
        # the default would end only this process and leave its servers and workers behind
        if signal.getsignal(ending) == signal.SIG_DFL:
            signal.signal(ending, _end)
    try:
        _require_text(sys.argv)
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
            try:
                _report_bug(error, wants_json)
            except MemoryError as shortage:  # it needs some too
                storage_error = as_storage_error(shortage)
                assert storage_error is not None
        _fail(storage_error, wants_json)
    if code == INTERRUPTED:  # typer returns it after Ctrl-C
        print(
            "\nInterrupted. Finished work is kept; run the same command again to continue.",
            file=sys.stderr,
        )
    sys.exit(code or 0)


def _require_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            shown = argument.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            raise ParamsError(
                f"the argument '{shown}' is not UTF-8.",
                "Write it in UTF-8; rename a file whose name is not.",
            )


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _fail(error: PipelineError, wants_json: bool) -> NoReturn:
    _print_error(type(error).__name__, error, wants_json)
    sys.exit(2)


def _report_bug(error: Exception, wants_json: bool) -> NoReturn:
    """Write the traceback to a file of its own and say where."""
    lines = traceback.format_exception(error)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix="ratchet-error-", suffix=".txt", delete=False
    ) as file:
        command = f"ratchet {own_version()}: {shlex.join(sys.argv[1:])}"
        file.write(redact(f"{command}\n{''.join(lines)}"))
    logging.getLogger(__name__).debug("unexpected error", exc_info=error)
    name = type(error).__name__
    told = PipelineError(
        f"unexpected {lines[-1].strip()[:500]}",
        f"This is a bug in Ratchet. Its traceback is in {file.name}: please report it.",
    )
    _print_error(name, told, wants_json)
    sys.exit(1)


def _print_error(name: str, error: PipelineError, wants_json: bool) -> None:
    if wants_json:
        print_json({"error": {"type": name, "message": error.message, "remedy": error.remedy}})
    else:
        print(f"ratchet: {error}", file=sys.stderr)
