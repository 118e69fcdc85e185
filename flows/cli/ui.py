"""`ratchet ui`: serve MLflow's web UI."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Annotated

import typer

from flows.cli.console import Directory, app, open_workspace
from tasks.core.addresses import public_address, scheme_of

GRACE = 10.0  # seconds


@app.command()
def ui(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: open to everyone, no login.")
    ] = "127.0.0.1",
    directory: Directory = None,
) -> None:
    """Serve the MLflow UI until Ctrl-C; if MLFLOW_TRACKING_URI is a server, print its address."""
    workspace = open_workspace(context, directory)
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if scheme_of(uri) in ("http", "https"):
        print(f"MLflow UI: {public_address(uri)}")
        return
    print(f"MLflow UI: http://{host}:{port}  (Ctrl-C stops it)", file=sys.stderr, flush=True)
    address = ["--host", host, "--port", str(port)]
    command = [sys.executable, "-m", "mlflow", "ui", *address, "--workers", "1"]
    # the store in the environment: it may hold a password, and command lines are public
    own_environment = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": (workspace.store / "mlartifacts").as_uri(),
    }
    # its own session: Ctrl-C reaches only this process, MLflow would print a traceback
    environment = os.environ | own_environment
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        raise typer.Exit(server.wait())
    finally:
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """Stop the server and its children; an open page can keep MLflow from exiting by itself."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(GRACE)
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
