"""Quiet, offline defaults for the libraries, set before any of them is imported. What the user has set stands."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from tasks.core.workspace import Workspace

QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # errors reach the user as one message of ours, not as Prefect's traceback
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def prepare(workspace: Workspace) -> None:
    """Set the defaults: quiet libraries, and stores under the workspace."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not has_prefect_server():
        os.environ.setdefault("PREFECT_HOME", str(workspace.store / "prefect"))
    os.environ.setdefault("MLFLOW_TRACKING_URI", workspace.default_tracking_uri)


def has_prefect_server() -> bool:
    """Whether the environment or the active Prefect profile names a server."""
    return "PREFECT_API_URL" in os.environ or _profile_has_server()


def _profile_has_server() -> bool:
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH", "~/.prefect/profiles.toml")).expanduser()
    if "PREFECT_HOME" in os.environ:
        profiles = Path(os.environ["PREFECT_HOME"]) / "profiles.toml"
    if not profiles.is_file():
        return False
    known = tomllib.loads(profiles.read_text(encoding="utf-8"))
    active = os.environ.get("PREFECT_PROFILE", known.get("active", ""))
    return "PREFECT_API_URL" in known.get("profiles", {}).get(active, {})
