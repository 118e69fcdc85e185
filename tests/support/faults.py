"""A fault at the nth write, flush or rename of a process.

A kill before or after it, or an error of the operating system.
"""

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
    "create_experiment",
    "create_model_version",
    "create_registered_model",
    "create_run",
    "delete_experiment",
    "delete_model_version",
    "delete_model_version_tag",
    "delete_registered_model_tag",
    "delete_run",
    "log_artifact",
    "log_batch",
    "set_model_version_tag",
    "set_registered_model_alias",
    "set_registered_model_tag",
    "set_tag",
    "set_terminated",
)


def arm(setting: str) -> None:
    """Count this process's events, and fail at the nth.

    Events are fsync, rename, opening a file of the workspace to write, and MLflow's writes.

    setting  'COUNTER:NUMBER:FAULT': a file that gets a byte an event, n, and 'kill',
             'killed-after' or an errno's name; n is 0 for no fault
    """
    counter, number, fault = setting.split(":")
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
        is_path = isinstance(file, str | Path)
        in_workspace = is_path and str(Path(file).absolute()).startswith(root)
        if in_workspace and set(mode) & set("wax+"):
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
