"""Real servers for tests, on a free port of this machine; stopped with all that they started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from workspaces import clean_environment


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def hear_interrupts() -> None:
    """What a shell starts in the background ignores them, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Server:
    """A server process and its children; `url` is its address, also after a restart."""

    def __init__(
        self, command: list[str], port: int, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command, self._log = [*command, "--host", "127.0.0.1", "--port", str(port)], log
        self._environment = clean_environment() | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, without waiting until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=hear_interrupts,
            )  # fmt: skip

    def wait(self, path: str) -> None:
        """Wait until `path` answers."""
        assert self._process is not None
        for _ in range(240):
            assert self._process.poll() is None, self._log.read_text()
            try:
                if httpx.get(f"{self.url}{path}").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise AssertionError(f"{self._command[0]} does not answer\n{self._log.read_text()}")

    def interrupt(self) -> int:
        """Interrupt it and all that it started, as Ctrl-C does; returns its exit code."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(timeout=60)

    def kill(self) -> None:
        """Kill it and all that it started: tests keep none of its files."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=20)


def prefect_server(home: Path, **environment: str) -> Server:
    """A Prefect server, not started yet; its API is under /api."""
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    variables = {"PREFECT_HOME": str(home)} | quiet | environment
    command = ["prefect", "server", "start", "--no-ui"]
    return Server(command, free_port(), home / "server.log", variables)


def mlflow_server(home: Path, database: str, *options: str, **environment: str) -> Server:
    """An MLflow server, not started yet; it proxies artifacts to a directory of its own."""
    files = (home / "files").as_uri()
    stores = ["--backend-store-uri", database, "--artifacts-destination", files]
    command = ["mlflow", "server", "--workers", "1", *stores, *options]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Server(command, free_port(), home / "server.log", quiet | environment)


def task_states(
    api: str, flow_run_id: str | None = None, login: tuple[str, str] | None = None
) -> dict[str, str]:
    """State of each task's newest run.

    api          a Prefect API's address
    flow_run_id  the flow run whose tasks count; None for all
    login        user and password
    """
    query: dict[str, Any] = {"sort": "EXPECTED_START_TIME_ASC"}
    if flow_run_id is not None:
        query["flow_runs"] = {"id": {"any_": [flow_run_id]}}
    runs = httpx.post(f"{api}/task_runs/filter", json=query, auth=login).json()
    return {run["name"].rsplit("-", 1)[0]: run["state"]["name"] for run in runs}


@contextmanager
def webhook(*answers: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address of an HTTP server, JSON posted to it).

    answers  the status codes that it answers in turn; 200 after them
    """
    posted: list[dict[str, Any]] = []
    waiting = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(waiting.pop(0) if waiting else 200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with http_server(Handler) as url:
        yield f"{url}/hook/secret-token", posted


@contextmanager
def http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Address of an HTTP server on a thread of this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
