"""A workspace: a directory with params.yaml, and where its stores are kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import WorkspaceError
from tasks.params.schema import Params, apply_overrides, parse, read_yaml


@dataclass(frozen=True)
class Workspace:
    """Paths of one workspace; `root` is absolute."""

    root: Path

    @classmethod
    def find(cls, directory: Path | None = None) -> Workspace:
        """The workspace that `directory` (default: the working directory) is in: it or the nearest parent with a params.yaml."""
        start = (directory or Path.cwd()).resolve()
        for place in [start] if directory else [start, *start.parents]:
            if (place / "params.yaml").is_file():
                return cls(place)
        raise WorkspaceError(
            f"{start}: no workspace here (there is no params.yaml).",
            "Make one with `ratchet init DIR`, or name one with `-C DIR`.",
        )

    @property
    def params_file(self) -> Path:
        """What decides what the workspace makes."""
        return self.root / "params.yaml"

    @property
    def store(self) -> Path:
        """What is neither source nor out: databases, locks, scratch; git-ignored."""
        return self.root / ".ratchet"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's database, unless MLFLOW_TRACKING_URI names another."""
        return self.store / "mlflow.db"

    @property
    def default_tracking_uri(self) -> str:
        """MLflow's address unless MLFLOW_TRACKING_URI names another."""
        return f"sqlite:///{self.mlflow_database}"

    def values(self, overrides: Sequence[str] = ()) -> dict[str, Any]:
        """params.yaml as plain values, with overrides."""
        return apply_overrides(read_yaml(self.params_file), overrides)

    def params(self, overrides: Sequence[str] = ()) -> Params:
        """params.yaml checked, with overrides."""
        return parse(self.values(overrides), str(self.params_file))


def cache_dir() -> Path:
    """Where downloads are kept between workspaces: RATCHET_CACHE, or the user's cache directory."""
    from platformdirs import user_cache_path

    given = os.environ.get("RATCHET_CACHE")
    return Path(given).expanduser().resolve() if given else user_cache_path("ratchet")
