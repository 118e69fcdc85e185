"""Standard input and output in place of files, for pipes."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.core.errors import DataError, PipelineError
from tasks.data.tables.text_files import Text, as_utf8, undecodable
from tasks.params.ingestion import Source

STANDARD = Path("-")
LINES = "lines"  # format: each line is a text
_LONGEST_START = 4096  # bytes, blanks included
_JSON_START = re.compile(rb'(\xef\xbb\xbf)?\s*(?P<array>\[\s*)?\{\s*["}]')


def is_piped() -> bool:
    """Whether standard input is open and no terminal."""
    return sys.stdin is not None and not sys.stdin.isatty()


def require_input() -> None:
    """Raise DataError if standard input is empty; waits for its first byte."""
    if not sys.stdin.buffer.peek(1):  # type: ignore[union-attr]
        raise DataError(
            "predict: nothing to predict: standard input is empty.",
            "Give texts, --input FILE, or rows on standard input.",
        )


@contextmanager
def input_rows(path: Path, options: dict[str, str], columns: list[str]) -> Iterator[Source]:
    """The rows to predict for, from a file, or from standard input if `path` is STANDARD.

    options  of the Source; `format` may also be LINES. Standard input without a format is JSONL if
             it starts like an object, JSON if like a list of objects, else lines.
    columns  the problem's input columns; lines have only one
    Raises ParamsError for wrong options, DataError for lines that cannot be texts.
    """
    from tasks.params.schema import source_of_options

    with tempfile.TemporaryDirectory(prefix="ratchet-") as scratch, _named_without(scratch):
        if path == STANDARD:
            path = Path(scratch, "standard input")
            with path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
            options = {"format": _format(path)} | options
        if options.get("format") != LINES:
            yield source_of_options(str(path), options)
            return
        source = source_of_options(str(path), options | {"format": "jsonl"})
        if len(columns) != 1:
            raise DataError(
                f"{path.name}: lines of text, but a row has {' and '.join(columns)}.",
                "Give JSONL, one object per line; or a CSV file.",
            )
        text = as_utf8(path, path.name, source, Path(scratch, "text"))
        target = Path(scratch, "lines.jsonl")
        with target.open("w", encoding="utf-8") as file:
            file.writelines(
                json.dumps({columns[0]: line}) + "\n" for line in _lines(text, path.name)
            )
        yield source_of_options(str(target), {"format": "jsonl"})


@contextmanager
def _named_without(scratch: str) -> Iterator[None]:
    """Errors name files without the temporary directory that they are in."""
    try:
        yield
    except PipelineError as error:
        error.message = error.message.replace(f"{scratch}/", "")
        raise


def _format(path: Path) -> str:
    """By the first characters: no text of a person starts like an object, or a list of them."""
    with path.open("rb") as file:
        start = file.read(_LONGEST_START)
    match = _JSON_START.match(start)
    if match is None:
        return LINES
    return "json" if match["array"] else "jsonl"


def _lines(text: Text, name: str) -> Iterator[str]:
    with text.open() as file:
        for number, line in enumerate(file, 1):
            if reason := undecodable(line):
                raise DataError(
                    f"{name}, line {number}: {reason}.", "Name its encoding with --encoding."
                )
            yield line.removesuffix("\n").removesuffix("\r")


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """A file to write: `path`, or JSONL that goes to standard output if no error occurs."""
    if path != STANDARD:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="ratchet-") as scratch:
        written = Path(scratch, "stdout.jsonl")
        yield written
        sys.stdout.flush()
        with written.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
