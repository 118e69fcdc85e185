"""A fault at the nth write, flush or rename of a process: a kill before or after it, or the system's refusal."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "RATCHET_TEST_FAULT"
KILLED = 9
WRITERS = (
    "set_registered_model_alias", "set_registered_model_tag", "delete_registered_model_tag", "set_model_version_tag",
    "delete_model_version_tag", "create_experiment", "delete_experiment", "create_run", "set_terminated", "delete_run", "log_batch",
    "create_registered_model", "create_model_version", "delete_model_version", "log_artifact", "set_tag",
)  # fmt: skip


def arm(told: str) -> None:
    """Count and, at the nth, fail: fsync, rename, opening a file to write in the workspace, and MLflow's writes."""
    counter, number, fault = told.split(":")
    root = str(Path.cwd())
    left = [int(number)]

    def event(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with real_open(counter, "ab") as file:
            file.write(b".")
        left[0] -= 1
        if left[0] == 0:
            if fault == "kill":
                os._exit(KILLED)
            if fault == "killed-after":
                call(*arguments, **named)
                os._exit(KILLED)
            code = getattr(errno, fault)
            raise OSError(code, os.strerror(code), str(arguments[0]) if arguments else None)
        return call(*arguments, **named)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: event(call, *arguments, **named)

    def opened(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        ours = isinstance(file, str | Path) and str(Path(file).absolute()).startswith(root)
        if ours and set(mode) & set("wax+"):
            return event(real_open, file, mode, *arguments, **named)
        return real_open(file, mode, *arguments, **named)

    real_open = io.open
    io.open = builtins.open = opened
    for name in ("fsync", "rename", "replace"):
        setattr(os, name, counted(getattr(os, name)))
    from tasks.core import files

    files._exchange = counted(files._exchange)
    from mlflow import MlflowClient

    for name in WRITERS:
        _count_method(MlflowClient, name, event)


def _count_method(owner: Any, name: str, event: Callable[..., Any]) -> None:
    real = getattr(owner, name)
    setattr(owner, name, lambda self, *arguments, **named: event(real, self, *arguments, **named))
