"""A workspace (a directory with a params.yaml) and the paths of its stores."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import WorkspaceError
from tasks.params.schema import Params, apply_overrides, parse, read_yaml

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """Paths of one workspace; `root` is absolute."""

    root: Path

    @classmethod
    def find(cls, directory: Path | None = None) -> Workspace:
        """The workspace at `directory`, or the one that contains the working directory.

        Parents are searched only if no directory is given. Raises WorkspaceError if there is none,
        or its path will not do.
        """
        start = (directory or Path.cwd()).resolve()
        for candidate in [start] if directory else [start, *start.parents]:
            if (candidate / "params.yaml").is_file():
                log.debug("workspace %s", candidate)
                require_usable(candidate)
                return cls(candidate)
        raise WorkspaceError(
            f"{start}: not a workspace (there is no params.yaml).",
            "Make one with `ratchet init DIR`, or name one with `-C DIR`.",
        )

    @property
    def params_file(self) -> Path:
        """The workspace's params.yaml."""
        return self.root / "params.yaml"

    @property
    def store(self) -> Path:
        """Directory of what is neither source nor out: databases, locks, scratch; git-ignored."""
        return self.root / ".ratchet"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's database, unless MLFLOW_TRACKING_URI points elsewhere."""
        return self.store / "mlflow.db"

    @property
    def default_tracking_uri(self) -> str:
        """MLflow's tracking URI, unless MLFLOW_TRACKING_URI is set."""
        return f"sqlite:///{self.mlflow_database}"

    def values(self, overrides: Sequence[str] = ()) -> dict[str, Any]:
        """params.yaml as plain values, with the overrides applied."""
        return apply_overrides(read_yaml(self.params_file), overrides)

    def params(self, overrides: Sequence[str] = ()) -> Params:
        """params.yaml with the overrides applied, validated."""
        return parse(self.values(overrides), str(self.params_file), overrides)


def require_usable(root: Path) -> None:
    """Raise WorkspaceError if databases below `root` have no address."""
    if "?" in str(root):
        raise WorkspaceError(
            f"{root}: a workspace's path cannot hold a '?': it ends the addresses of databases.",
            "Rename the directory.",
        )


def cache_dir() -> Path:
    """Cache of downloads shared by all workspaces: RATCHET_CACHE, or the user's cache directory."""
    from platformdirs import user_cache_path

    override = os.environ.get("RATCHET_CACHE")
    return Path(override).expanduser().resolve() if override else user_cache_path("ratchet")
