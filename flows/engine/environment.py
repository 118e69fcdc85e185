"""Default locations of the stores; environment variables take precedence."""

from __future__ import annotations

import logging
import os
import tomllib
from pathlib import Path

from flows.engine.progress import show_lines
from tasks.core.errors import DamagedError, WorkspaceError
from tasks.core.logs import REDACTED
from tasks.core.quiet import quiet_libraries
from tasks.params.workspace import Workspace

# what they log goes to Prefect's server
PREFECT_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def prepare(workspace: Workspace) -> None:
    """Quiet the libraries, print the stages' lines and put the stores under the workspace.

    Prefect's logs show no credentials from now on.

    Call it before Prefect or MLflow is imported.
    """
    if workspace.store.exists() and not workspace.store.is_dir():
        raise WorkspaceError(
            f"{workspace.store}: a file, wanted the directory of the workspace's stores.",
            "Move it away.",
        )
    quiet_libraries()
    show_lines()
    for name in PREFECT_LOGGERS:
        logging.getLogger(name).addFilter(REDACTED)
    if not has_prefect_server():
        os.environ.setdefault("PREFECT_HOME", str(workspace.store / "prefect"))
    os.environ.setdefault("MLFLOW_TRACKING_URI", workspace.default_tracking_uri)


def has_prefect_server() -> bool:
    """Whether the environment or the active Prefect profile names a server."""
    if "PREFECT_API_URL" in os.environ:
        return True
    profiles = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser() / "profiles.toml"
    if not profiles.is_file():
        return False
    try:
        known = tomllib.loads(profiles.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(profiles, f"not valid TOML: {error}") from None
    active = os.environ.get("PREFECT_PROFILE", known.get("active", ""))
    return "PREFECT_API_URL" in known.get("profiles", {}).get(active, {})
