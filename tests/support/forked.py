"""`ratchet` in processes forked from one that has imported everything.

Most of a command's time is imports. A fork runs what the installed command runs,
`flows.cli.main.main`, with its own environment, directory, streams and exit code. Only the imports
are shared, so tests of what a fresh process does (the README's commands, kills, a full disk) start
the command itself.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from tasks.core.quiet import quiet_libraries
from tasks.pipeline import STAGES

# none starts a Python thread when it is imported
MODULES = (
    "accelerate",
    "duckdb",
    "dvc.repo",
    "dvc.repo.status",
    "dvc.scm",
    "fastapi",
    "flows.cli.main",
    "flows.lifecycle.judgement",
    "flows.printing.lifecycle",
    "flows.printing.runs",
    "flows.retraining",
    "flows.workspaces.creation",
    "great_expectations",
    "matplotlib.figure",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "onnx",
    "onnxscript",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "sklearn.metrics",
    "tasks.comparison",
    "tasks.registration",
    *(stage.module for stage in STAGES),
    "torch.onnx",
    "transformers.models.bert.modeling_bert",
    "typer",
)


def fork_ratchet(
    directory: Path,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    script: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `ratchet` in a fork; what libraries read when they are imported they have read.

    script  run this in its place
    """
    command = [str(script or "ratchet"), *arguments]
    with tempfile.TemporaryDirectory() as streams:
        out, err = Path(streams, "out"), Path(streams, "err")
        request = {
            "command": command,
            "directory": str(directory),
            "environment": environment,
            "out": str(out),
            "err": str(err),
        }
        server, pid = _server(), None
        try:
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            pid = int(server.stdout.readline())
            code = int(server.stdout.readline())
        except BaseException:  # most likely the test's timeout; the next test gets a new server
            _server.cache_clear()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            server.kill()
            raise
        return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())


@cache
def _server() -> Any:
    """The process that forks; it ends when this one does, which closes its standard input."""
    command = [sys.executable, __file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def serve() -> dict[str, Any]:
    """Fork for each request on standard input, and print the fork's process id and exit code.

    Returns only in the fork: its request.
    """
    while line := os.read(0, 1 << 20):
        assert line.endswith(b"\n")
        if (pid := os.fork()) == 0:
            return dict(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    sys.exit(0)


def become(request: dict[str, Any]) -> None:
    """Adopt the request's environment, directory, streams and arguments."""
    from prefect.context import refresh_global_settings_context

    os.environ.clear()
    os.environ.update(request["environment"])
    quiet_libraries()
    refresh_global_settings_context()  # Prefect read the settings when it was imported
    tempfile.tempdir = None  # chosen anew
    os.chdir(request["directory"])
    for number, name in enumerate((os.devnull, request["out"], request["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    sys.argv = request["command"]


if __name__ == "__main__":
    quiet_libraries()
    from mlflow.utils import requirements_utils

    for module in MODULES:
        import_module(module)
    # which package each module belongs to: MLflow asks once a process, for a third of a second
    requirements_utils._init_modules_to_packages_map()
    assert threading.active_count() == 1, "a fork would lose the others"
    gc.freeze()  # else a collection in a fork would touch, and so copy, every page
    become(serve())
    from faults import NAME, arm
    from forked_workers import Spawner

    from flows.cli.main import main
    from tasks.shipping import workers

    workers.subprocess = Spawner()  # type: ignore[assignment, attr-defined]

    if NAME in os.environ:
        arm(os.environ[NAME])
    if sys.argv[0] != "ratchet":
        runpy.run_path(sys.argv[0], run_name="__main__")
    main()
