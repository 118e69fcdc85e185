"""A process of our own that answers JSON questions, one a line, until it is told to stop; its crash is an answer too."""

from __future__ import annotations

import json
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

_ROOT = Path(__file__).resolve().parent.parent.parent


_REFUSED = "refused"
FROM_OUTSIDE = (
    signal.SIGKILL,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
)  # sent by the kernel short of memory, or by people


class WorkerError(Exception):
    """The worker failed or died; the text says how, for people. `from_outside`: by no fault of what it computed."""

    def __init__(self, message: str, *, from_outside: bool) -> None:
        super().__init__(message)
        self.from_outside = from_outside


class Worker:
    """One `python -m MODULE`, started with a setting; `ask` waits for the answer."""

    def __init__(self, module: str, setting: Mapping[str, Any]) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115, closed with the worker
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(setting)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            cwd=_ROOT,  # so that our packages are found, installed or not
            text=True,
            encoding="utf-8",
        )

    def ask(self, **question: str | list[int]) -> dict[str, Any]:
        """The worker's answer; WorkerError where it has none, and the PipelineError that it ended with where it told one."""
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
        if told := answer.get(_REFUSED):
            raise getattr(errors, told["type"])(told["message"], told["remedy"])
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
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
            pass  # nobody reads what was left to write

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
def tell_refusal() -> Iterator[None]:
    """The worker's side, before it answers anything: a PipelineError is the answer to its first question."""
    try:
        yield
    except PipelineError as error:
        told = {"type": type(error).__name__, "message": error.message, "remedy": error.remedy}
        print(json.dumps({_REFUSED: told}), flush=True)
        raise SystemExit(2) from None


def answer_questions(handlers: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """The worker's side: answer each line of stdin by the handler that its `do` names."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not be taken for an answer
    for line in sys.stdin:
        question = json.loads(line)
        answers.write(json.dumps(handlers[question.pop("do")](**question)) + "\n")
        answers.flush()
