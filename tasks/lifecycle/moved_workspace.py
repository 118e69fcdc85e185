"""Update MLflow's database after a workspace was moved or copied: it stores absolute addresses."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tasks.core.errors import RegistryError

ARTIFACTS = "mlartifacts"  # directory in a workspace's store with its own database's artifacts
_ADDRESSES = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"), ("model_versions", "storage_location"),
)  # fmt: skip


def follow_move(database: Path, store: Path, experiment: str) -> None:
    """Rewrite addresses of the workspace's old store in its own database to the present store.

    database    MLflow's, in the workspace's store
    experiment  an experiment with artifacts in the store: its address tells where the store was
    All addresses in the old store change in one transaction; addresses elsewhere stay.
    Raises RegistryError if the database cannot be read or written.
    """
    new = f"{store.as_uri()}/"
    try:
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            row = connection.execute(
                "SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)
            ).fetchone()
            old = str(row[0]).removesuffix(ARTIFACTS) if row else new
            if old == new or not old.endswith(f"/{store.name}/"):
                return
            connection.execute("BEGIN IMMEDIATE")
            for table, column in _ADDRESSES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ?1 || substr({column}, length(?2) + 1) "
                    f"WHERE substr({column}, 1, length(?2)) = ?2",
                    (new, old),
                )
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise RegistryError(
            f"{database}: {error}.",
            "Check that the file is MLflow's database and that you may write to it.",
        ) from error
