"""Worker subprocess that answers JSON requests, one per line; a crash is reported as an error.

Not a concurrent.futures pool: a model that is killed for want of memory must not break the others'
pool, and each process sets its threads before it loads a library.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core import errors
from tasks.core.errors import PipelineError

log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parent.parent.parent
_REFUSED = "refused"
# sent by people, or by a kernel short of memory
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class WorkerError(Exception):
    """The worker failed or died, as the message says; `from_outside`: something else killed it."""

    def __init__(self, message: str, *, from_outside: bool) -> None:
        super().__init__(message)
        self.from_outside = from_outside


class Worker:
    """A `python -m MODULE` process, started with a setting; `ask` blocks until it answers."""

    def __init__(self, module: str, setting: Mapping[str, Any]) -> None:
        log.debug("starting %s with %s", module, setting)
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115, closed with the worker
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(setting)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            cwd=_ROOT,  # our packages can be imported, installed or not
            text=True,
            encoding="utf-8",
        )

    def ask(self, **question: str | int | list[int]) -> dict[str, Any]:
        """The worker's answer.

        Raises WorkerError if it died without one, or the PipelineError that it reported.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._last_words() from None
        line = self.process.stdout.readline()
        if not line:
            raise self._last_words()
        answer: dict[str, Any] = json.loads(line)
        if refusal := answer.get(_REFUSED):
            raise getattr(errors, refusal["type"])(refusal["message"], refusal["remedy"])
        return answer

    def close(self) -> None:
        """Kill the process if it still runs, and close its streams."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.errors):
            if stream is not None:
                stream.close()
        try:
            if self.process.stdin is not None:
                self.process.stdin.close()
        except BrokenPipeError:
            pass  # flushing what was still buffered for a dead process

    def _last_words(self) -> WorkerError:
        code = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        how = (
            f"was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"ended with exit code {code}"
        )
        message = f"its process {how}" + (f": {lines[-1][:300]}" if lines else "")
        return WorkerError(message, from_outside=-code in FROM_OUTSIDE)


@contextmanager
def report_refusal() -> Iterator[None]:
    """In the worker, before its first answer: send a PipelineError as that answer, then exit."""
    try:
        yield
    except PipelineError as error:
        refusal = {"type": type(error).__name__, "message": error.message, "remedy": error.remedy}
        print(json.dumps({_REFUSED: refusal}), flush=True)
        raise SystemExit(2) from None


def answer_questions(handlers: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """In the worker: answer each line of stdin with the handler that its `do` names."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library's print must not be read as an answer
    for line in sys.stdin:
        question = json.loads(line)
        answers.write(json.dumps(handlers[question.pop("do")](**question)) + "\n")
        answers.flush()
