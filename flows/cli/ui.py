"""The command that opens MLflow's pages: ui."""

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
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 5000,
    host: Annotated[
        str, typer.Option(help="Whom to answer: 0.0.0.0 is everyone, unasked.")
    ] = "127.0.0.1",
    directory: Directory = None,
) -> None:
    """Serve MLflow's pages of the workspace's registry until Ctrl-C; where MLFLOW_TRACKING_URI names a server, say its address."""
    workspace = open_workspace(context, directory)
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if scheme_of(uri) in ("http", "https"):
        print(f"MLflow's pages: {public_address(uri)}")
        return
    print(f"MLflow's pages: http://{host}:{port}  (Ctrl-C ends them)", file=sys.stderr, flush=True)
    # the store in the environment: it may hold a password, and command lines are for all to read
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    own = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": (workspace.store / "mlartifacts").as_uri(),
    }
    # in a session of its own: Ctrl-C is ours, MLflow would answer it with a traceback
    server = subprocess.Popen(command, env=os.environ | own, start_new_session=True)
    try:
        raise typer.Exit(server.wait())
    finally:
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End it and what it started; a page that is still open can keep MLflow from ending by itself."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(GRACE)
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
