"""What a test run makes only once, however many processes (pytest-xdist's workers) run tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
from filelock import FileLock

NAME = "RATCHET_TEST_RUN"
RUNS_PROCESS = "RATCHET_TEST_RUN_PROCESS"
# runs "$@" until it or the process $0 ends; then kills its whole session
WHILE_IT_LIVES = '"$@" & while kill -0 "$0" && kill -0 $!; do sleep 1; done 2>/dev/null; kill -9 0'
# kept until this process ends: Python warns when a running process is garbage collected
STARTED: list[subprocess.Popen[bytes]] = []


def open_run() -> None:
    """Before the first worker starts: make a directory for all of them; they inherit its path."""
    os.environ[NAME] = tempfile.mkdtemp(prefix="ratchet-tests-")
    os.environ[RUNS_PROCESS] = str(os.getpid())


def close_run() -> None:
    """After the last test, or an interrupt: stop all that was started and remove the directory."""
    directory = Path(os.environ.pop(NAME))
    for pid in directory.glob("*/pid"):
        with suppress(ProcessLookupError):
            os.killpg(int(pid.read_text()), signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """A directory that the first caller fills while others wait; read only from then on."""
    directory = Path(os.environ[NAME], name)
    made = directory.with_suffix(".made")
    with FileLock(directory.with_suffix(".lock")):
        if not made.exists():
            shutil.rmtree(directory, ignore_errors=True)  # left by an attempt that failed
            directory.mkdir()
            make(directory)
            made.touch()
    return directory


def prefect_server() -> str:
    """The API address of the test run's Prefect server, which the first caller starts.

    An ephemeral server would cost each command 10 s.
    """
    return (made_once("prefect", _start_prefect_server) / "url").read_text()


def _start_prefect_server(home: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    settings = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "COV"))
    }
    address = ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "prefect", "server", "start", *address, "--no-ui"]
    with (home / "log").open("wb") as log:
        # In a session of its own: Ctrl-C interrupts the tests first, then `close_run` stops the
        # server. The shell stops it when the run is killed.
        guarded = ["sh", "-c", WHILE_IT_LIVES, os.environ[RUNS_PROCESS], *command]
        server = subprocess.Popen(
            guarded, env=inherited | settings, stdout=log, stderr=log, start_new_session=True
        )
    STARTED.append(server)
    (home / "pid").write_text(str(server.pid))
    while not _answers(f"{url}/health"):
        assert server.poll() is None, (home / "log").read_text()
        time.sleep(0.1)
    (home / "url").write_text(url)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False
