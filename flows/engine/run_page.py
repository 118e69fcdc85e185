"""A run's page in Prefect: its name, log lines, progress and links."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import quote
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flows.engine.progress import listener, plain_lines, prefect_prints
from tasks.core.addresses import public_address
from tasks.core.errors import PipelineError
from tasks.core.progress import LINES, Report
from tasks.params.workspace import Workspace

UPDATE_SECONDS = 2.0  # a stage that ends sooner has no progress artifact
JOIN_SECONDS = 5.0

for _name in ("prefect.flow_runs", "prefect.task_runs"):
    # the server receives all logs; the terminal shows the stages' own lines
    logging.getLogger(_name).propagate = prefect_prints()


def run_name(template: str) -> Callable[[], str]:
    """A flow's `flow_run_name`: `template` filled with the run's parameters.

    `{model}` is the workspace's model name, and `{version}` of 3 becomes v3.
    """

    def name() -> str:
        parameters: dict[str, Any] = flow_run.get_parameters()
        version = str(parameters.get("version", ""))
        shown = f"v{version}" if version.isdigit() else version
        return template.format_map(
            {**parameters, "model": _model_name(parameters), "version": shown}
        )

    return name


def _model_name(parameters: Mapping[str, Any]) -> str:
    path = Path(parameters["workspace"])
    try:
        return Workspace.find(path).params(parameters.get("overrides", ())).model_name
    except PipelineError:  # the run itself is about to raise it
        return path.name


def rename_run(name: str) -> None:
    """Rename the current flow run, once more is known about it."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(flow_run.get_id()), name=name)


@contextmanager
def report_to_prefect() -> Iterator[None]:
    """Send a stage's lines to the task run's logs, and its progress to an artifact of the run."""
    log = get_run_logger()
    handler, outer = _RunLogHandler(log), listener.get()
    with ExitStack() as artifacts:

        def listen(stage: str) -> Report:
            receivers = (
                outer(stage),
                plain_lines(stage, log.info),
                artifacts.enter_context(_progress_artifact(stage)),
            )

            def report(step: int, metrics: Mapping[str, float]) -> None:
                for receive in receivers:
                    receive(step, metrics)

            return report

        token = listener.set(listen)
        LINES.addHandler(handler)
        try:
            yield
        finally:
            LINES.removeHandler(handler)
            listener.reset(token)


class _RunLogHandler(logging.Handler):
    def __init__(self, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, record.getMessage())


@contextmanager
def _progress_artifact(stage: str) -> Iterator[Report]:
    """Yield a Report; a thread posts it, so that a slow or absent server never delays the stage."""
    share, ended = 0.0, Event()

    def post() -> None:
        artifact: UUID | None = None
        going = True
        while going:
            going = not ended.wait(UPDATE_SECONDS)
            if going or artifact:
                artifact = _post_progress(artifact, stage, 100 * share)

    def report(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal share
        share = metrics.get("progress", share)

    thread = Thread(target=copy_context().run, args=(post,), daemon=True)
    thread.start()
    try:
        yield report
        share = 1.0
    finally:
        ended.set()
        thread.join(JOIN_SECONDS)


def _post_progress(artifact: UUID | None, stage: str, percent: float) -> UUID | None:
    try:
        if artifact is None:
            return create_progress_artifact(
                percent, key=f"progress-{stage}", description=f"Progress of {stage}"
            )  # type: ignore[return-value]  # async only in an event loop
        update_progress_artifact(artifact, percent)
    except Exception:  # the stage must go on, and the next post may succeed
        logging.getLogger(__name__).debug("progress was not posted", exc_info=True)
    return artifact


def version_link(uri: str, model: str, version: int, mlflow_run_id: str) -> str:
    """Markdown links to a version and its run in MLflow's UI; empty if no server serves it."""
    if not uri.startswith(("http://", "https://")):
        return ""
    pages = f"{public_address(uri).rstrip('/')}/#"
    version_page = f"{pages}/models/{quote(model, safe='')}/versions/{version}"
    return f"[Version {version}]({version_page}) and [its run]({pages}/runs/{mlflow_run_id})"
