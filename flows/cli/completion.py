"""What the shell offers after Tab: problem types, keys of params.yaml, versions and aliases.

Offers nothing where it cannot know quickly: a registry on a server is not asked.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import typer

from tasks.core.errors import PipelineError


def problem_types(incomplete: str) -> list[str]:
    """Names of problem types."""
    from tasks.problems import problem_names

    return [name for name in problem_names() if name.startswith(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Recipes of `ratchet init`."""
    from flows.workspaces.defaults import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete)]


def params_keys(incomplete: str) -> list[str]:
    """Keys of params.yaml that hold a value, each with `=`."""
    from pydantic import BaseModel

    from tasks.params.schema import Params

    def keys(section: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in section.model_fields.items():
            key = f"{prefix}{field.alias or name}"
            nested = field.annotation
            if isinstance(nested, type) and issubclass(nested, BaseModel):
                yield from keys(nested, f"{key}.")
            else:
                yield f"{key}="

    return [key for key in keys(Params, "") if key.startswith(incomplete)]


def alias_names(context: typer.Context, incomplete: str) -> list[str]:
    """Aliases of the workspace's model."""
    return _ask(context, "SELECT alias FROM registered_model_aliases WHERE name = ?", incomplete)


def version_numbers(context: typer.Context, incomplete: str) -> list[str]:
    """Numbers of the workspace's versions, the newest first."""
    query = (
        "SELECT version FROM model_versions WHERE name = ? "
        "AND current_stage != 'Deleted_Internal' ORDER BY version DESC"
    )
    return _ask(context, query, incomplete)


def versions_and_aliases(context: typer.Context, incomplete: str) -> list[str]:
    """What names a version: an alias or a number."""
    return [*alias_names(context, incomplete), *version_numbers(context, incomplete)]


def _ask(context: typer.Context, query: str, incomplete: str) -> list[str]:
    """The answers of MLflow's database that start as typed; none if the registry is elsewhere."""
    from tasks.params.workspace import Workspace

    directory = context.params.get("directory") or context.obj
    if directory is None and context.parent is not None:
        directory = context.parent.params.get("directory")
    try:
        workspace = Workspace.find(Path(directory) if directory else None)
        name = workspace.params().model_name
        file = workspace.mlflow_database
        if os.environ.get("MLFLOW_TRACKING_URI", workspace.default_tracking_uri) != (
            workspace.default_tracking_uri
        ):
            return []
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            answers = [str(value) for (value,) in connection.execute(query, (name,))]
    except (PipelineError, sqlite3.Error):
        return []
    return [answer for answer in answers if answer.startswith(incomplete)]
