"""A workspace that was moved or copied: MLflow writes whole addresses into its database, and they move with it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tasks.core.errors import RegistryError

ARTIFACTS = "mlartifacts"  # in a workspace's store: what its own database's experiments hold
_ADDRESSES = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)  # fmt: skip


def follow_move(database: Path, store: Path, experiment: str) -> None:
    """Point the workspace's own database at the artifacts beside it, where it still names the place that it was made in.

    database    MLflow's, in the workspace's store
    experiment  whose artifacts the workspace keeps in its store: its address tells where that was
    All of what lay in the old store is changed at once, or nothing; addresses elsewhere stay.
    Raises RegistryError where the database cannot be read or written.
    """
    here = f"{store.as_uri()}/"
    try:
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            found = connection.execute(
                "SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)
            ).fetchone()
            there = str(found[0]).removesuffix(ARTIFACTS) if found else here
            if there == here or not there.endswith(f"/{store.name}/"):
                return
            connection.execute("BEGIN IMMEDIATE")
            for table, column in _ADDRESSES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ?1 || substr({column}, length(?2) + 1) WHERE substr({column}, 1, length(?2)) = ?2",
                    (here, there),
                )
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise RegistryError(
            f"{database}: {error}.",
            "Check that the file is MLflow's database and that you may write to it.",
        ) from error
