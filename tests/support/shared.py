"""What a whole test run makes once, however many processes (pytest-xdist's workers) run its tests."""

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
# runs "$@" until it ends or the process $0 does; then ends all of its session
WHILE_IT_LIVES = '"$@" & while kill -0 "$0" && kill -0 $!; do sleep 1; done 2>/dev/null; kill -9 0'
STARTED: list[
    subprocess.Popen[bytes]
] = []  # referred to until this process ends, or Python warns of them


def open_run() -> None:
    """Before the first worker starts: a directory for all of them, whose address they inherit."""
    os.environ[NAME] = tempfile.mkdtemp(prefix="ratchet-tests-")
    os.environ[RUNS_PROCESS] = str(os.getpid())


def close_run() -> None:
    """After the last test, also of a run that was interrupted: what was started is stopped, what was made is removed."""
    directory = Path(os.environ.pop(NAME))
    for pid in directory.glob("*/pid"):
        with suppress(ProcessLookupError):
            os.killpg(int(pid.read_text()), signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """A directory that the first to ask for it fills; whoever asks meanwhile waits. Read only from then on."""
    place = Path(os.environ[NAME], name)
    made = place.with_suffix(".made")
    with FileLock(place.with_suffix(".lock")):
        if not made.exists():
            shutil.rmtree(place, ignore_errors=True)  # of an attempt that failed
            place.mkdir()
            make(place)
            made.touch()
    return place


def prefect_server() -> str:
    """The API address of the run's Prefect server, started by the first who asks: an ephemeral one costs each command 10 s."""
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
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    with (home / "log").open("wb") as log:
        # in a session of its own: Ctrl-C interrupts the tests first, then `close_run` stops the server; a killed run leaves none either
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
