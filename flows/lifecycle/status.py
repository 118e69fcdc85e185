"""`ratchet status`: a workspace's stages, rows and registered versions."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from typing import TYPE_CHECKING, Any

from flows.engine.progress import listener
from flows.engine.stage_runner import StageRunner
from flows.engine.training_run import last_training
from tasks.core.files import read_kept
from tasks.core.memory import TO_TRAIN, require_address_space
from tasks.data.quality.row_account import FILE_NAME, STAGE_ROWS, Account
from tasks.params.workspace import Workspace
from tasks.pipeline import staging_dir

if TYPE_CHECKING:
    from tasks.lifecycle.decisions import Decision
    from tasks.lifecycle.model_registry import ModelRegistry


def workspace_status(workspace: Workspace) -> dict[str, Any]:
    """Status as JSON values."""
    from tasks.lifecycle.ledger import champion_history
    from tasks.lifecycle.model_registry import ModelRegistry

    require_address_space(TO_TRAIN)
    with closing(StageRunner(workspace, (), listener.get(), reading=True)) as runner:
        stages = [{"name": name, "state": state} for name, state in runner.statuses().items()]
    params = workspace.params()
    registry = ModelRegistry(workspace)
    model = {"name": params.model_name, "versions": _versions(registry)}
    decisions = registry.decisions() if model["versions"] else []
    by_ledger = next(iter(champion_history(decisions).champions[-1:]), None) if decisions else None
    outside = registry.outside_the_gates(decisions) if model["versions"] else ""
    tests = _test_rows(workspace, decisions) if model["versions"] else None
    clean = {stage["name"] for stage in stages if stage["state"] == "clean"}
    return {
        "workspace": str(workspace.root),
        "problem": params.problem,
        "stages": stages,
        "rows": _rows(workspace, clean),
        "model": model,
        "test_rows": tests,
        "ledger_champion": by_ledger,
        "outside_the_gates": outside,
        "last_training": read_kept(last_training(workspace), "version", "overrides"),
    }


def _rows(workspace: Workspace, clean: Collection[str]) -> dict[str, Any] | None:
    """The row account of the stage that stopped the last run, else of the last that completed.

    None if there is none yet. Its `files`, relative to the workspace, hold the quarantined rows.
    """
    stopped = {
        stage: staging_dir(workspace, stage) / directory
        for stage, directory in STAGE_ROWS.items()
        if stage not in clean
    }
    completed = {stage: workspace.root / directory for stage, directory in STAGE_ROWS.items()}
    candidates = [*stopped.values(), *reversed(completed.values())]
    latest = next((path for path in candidates if (path / FILE_NAME).is_file()), None)
    if latest is None:
        return None
    account = Account.read(latest)
    directories = {
        stage: latest if stopped.get(stage) == latest else directory
        for stage, directory in completed.items()
    }
    return account.plain() | {
        "files": [
            f"{directories[stage].relative_to(workspace.root)}/quarantine.jsonl"
            for stage in account.stages
        ]
    }


def _test_rows(workspace: Workspace, decisions: list[Decision]) -> dict[str, Any] | None:
    """How often the current test rows were used to judge, and whether fresh ones are due.

    None if there are no test rows yet.
    """
    from tasks.comparison import read_test_rows
    from tasks.lifecycle.ledger import looks
    from tasks.scoring.statistics.alpha_spending import level_of_look, next_look

    file = workspace.root / "data" / "splits" / "test.parquet"
    if not file.is_file():
        return None
    params = workspace.params()
    rows = read_test_rows(file, params.problem, params.labels, ())
    look = next_look(rows.sketch, looks(decisions))
    return {
        "rows": rows.count,
        "looks": look - 1,
        "next_level": level_of_look(params.promotion.significance, look),
        "fresh_rows_due": look > params.promotion.max_looks,
    }


def _versions(registry: ModelRegistry) -> list[dict[str, Any]]:
    from tasks.lifecycle.registry import CONTENT_KEY

    if not registry.is_made:
        return []
    return [
        {
            "version": int(version.version),
            "aliases": list(version.aliases),
            "metrics": registry.metrics(version),
            "content_key": version.tags.get(CONTENT_KEY),
            "recipe": version.tags.get("ratchet.recipe"),
        }
        for version in registry.versions()
    ]
