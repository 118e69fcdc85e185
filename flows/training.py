"""The training flow: every stage in order, then registration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.engine.run_page import rename_run, report_to_prefect, run_name, version_link
from flows.engine.stage_notes import stage_notes
from flows.engine.stage_runner import StageOutcome
from flows.engine.training_run import ALL, TrainingRun, TrainResult, is_transient
from tasks.params.workspace import Workspace
from tasks.pipeline import STAGES
from tasks.registration import Registered


def _is_transient(task: Any, run: Any, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, Exception) and is_transient(error)


@task(
    retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=_is_transient, cache_policy=NO_CACHE
)
def stage_task(run: TrainingRun, name: str) -> State[StageOutcome]:
    """Run or restore one stage; the state's name says which: Ran, Cached or Restored."""
    log = get_run_logger()
    log.info("%s starts", name)
    with report_to_prefect():
        outcome = run.stage(name)
    for note in stage_notes(run.workspace, name):
        log.warning(note)
    return Completed(name=outcome.state.capitalize(), message=f"{outcome.seconds} s", data=outcome)


@task(
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=_is_transient,
    cache_policy=NO_CACHE,
    task_run_name="register",
)
def register(run: TrainingRun) -> Registered:
    """Register the model; one version for each content key."""
    registered = run.register(str(flow_run.get_id()))
    outcome = "registered" if registered.created else "was already registered"
    version = f"{registered.name} version {registered.version}"
    get_run_logger().info("%s %s, MLflow run %s", version, outcome, registered.mlflow_run_id)
    return registered


@flow(name="train", flow_run_name=run_name("train {model}"), persist_result=False)
def training(
    workspace: str,
    overrides: Sequence[str] = (),
    force: bool = False,
    rerun: Sequence[str] = (),
    trigger: str = "",
) -> TrainResult:
    """Train and register the model of a workspace.

    workspace   its directory
    overrides   such as 'finetune.learning_rate=3e-5'
    force       run every stage, clean ones too
    rerun       stages to run even if they are clean
    trigger     what triggered this training, for the version's tags
    """
    with TrainingRun.open(
        Workspace.find(Path(workspace)), overrides, rerun=ALL if force else rerun, trigger=trigger
    ) as run:
        run.open_mlflow()
        for stage in STAGES:
            stage_task.with_options(name=stage.name, task_run_name=stage.name)(run, stage.name)
        result = run.result(register(run))
        rename_run(f"train {result.model} v{result.version}")
        create_markdown_artifact(
            _summary(result, run.workspace.root),
            key="train",
            description=f"{result.model} version {result.version}",
        )
        return result


def _summary(result: TrainResult, root: Path) -> str:
    link = version_link(
        os.environ["MLFLOW_TRACKING_URI"], result.model, result.version, result.mlflow_run_id
    )
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in result.metrics.items())
    report = f"Report: `{root / 'reports' / 'report.html'}`{f'. In MLflow: {link}' if link else ''}"
    head = f"# {result.model} version {result.version}\n\nShips as `{result.recipe}`.\n\n"
    return f"{head}{report}\n\n| metric | value |\n|---|---|\n{rows}\n"
