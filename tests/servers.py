"""Real servers for tests: started on a free port of this machine, waited for, stopped with all they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx
from workspaces import clean_environment


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process and its children; `url` is its address. Started anew, it is at the same address."""

    def __init__(self, command: list[str], port: int, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command, self._log = [*command, "--host", "127.0.0.1", "--port", str(port)], log
        self._environment = clean_environment() | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; the caller waits."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True)

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

    def kill(self) -> None:
        """Kill it and what it started: tests keep nothing of it, and a crash is what a server must stand anyway."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=20)


def prefect_server(home: Path, **environment: str) -> Server:
    """A Prefect server, not started; its API is under /api."""
    quiet = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return Server(["prefect", "server", "start", "--no-ui"], free_port(), home / "server.log", quiet | environment)


def mlflow_server(home: Path, database: str) -> Server:
    """An MLflow server, not started; artifacts go through it to a directory of its own."""
    command = ["mlflow", "server", "--workers", "1", "--backend-store-uri", database, "--artifacts-destination", (home / "files").as_uri()]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Server(command, free_port(), home / "server.log", quiet)


def task_states(api: str, flow_run_id: str | None = None) -> dict[str, str]:
    """State of the newest run of each task, of that flow run or of any, by a Prefect API's address."""
    wanted = {} if flow_run_id is None else {"flow_runs": {"id": {"any_": [flow_run_id]}}}
    found = httpx.post(f"{api}/task_runs/filter", json={"sort": "EXPECTED_START_TIME_ASC", **wanted}).json()
    return {run["name"].rsplit("-", 1)[0]: run["state"]["name"] for run in found}
