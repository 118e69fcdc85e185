"""Notify of a failed run: Prefect blocks named in params.yaml, a webhook in the environment."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.addresses import redact
from tasks.core.errors import PipelineError
from tasks.core.retries import call_with_retries
from tasks.params.workspace import Workspace

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

WEBHOOK = "RATCHET_WEBHOOK"  # holds a secret address: anyone who knows it can post there
ATTEMPTS = 3
TIMEOUT_S = 10.0


def notify_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Prefect's on_failure and on_crashed hook.

    Errors are logged and not raised, lest they hide the failure itself.
    Posts JSON to the webhook: text, workspace, flow_run, url (of the run in Prefect's UI; null
    without a server), cause, id. A post is repeated if its answer was lost: `id`, also sent as the
    header Idempotency-Key, is the same in all attempts.
    """
    from prefect.logging.loggers import flow_run_logger
    from prefect.utilities.urls import url_for

    log = flow_run_logger(flow_run, flow)
    workspace = str(flow_run.parameters.get("workspace", ""))
    cause, url = failure_cause(state), url_for("flow-run", obj_id=flow_run.id)
    subject = f"Ratchet: {flow.name} of {Path(workspace).name} {(state.name or 'failed').lower()}"
    text = "\n".join(line for line in (subject, cause, url) if line)
    for block in _blocks(workspace, log):
        try:
            _tell_block(block, text, subject)
        except Exception as error:
            why = _describe_error(error)
            log.warning("notify.blocks: the failure could not be reported to %s: %s", block, why)
    if address := os.environ.get(WEBHOOK):
        try:
            name = _current_name(flow_run)
            _post(address, {
                "text": text, "workspace": workspace, "flow_run": name,
                "url": url, "cause": cause, "id": str(state.id),
            })  # fmt: skip
        except Exception as error:
            log.warning(
                "The failure could not be reported to %s: %s", WEBHOOK, _describe_error(error)
            )


def _current_name(flow_run: FlowRun) -> str:
    """Ask the server: after a kill, `flow_run` still has the name from before the run started."""
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run.id).name
    except httpx.HTTPError:
        return flow_run.name


def failure_cause(state: State[Any]) -> str:
    """One line: our errors by message, others also by type; without the credentials in URLs."""
    # a killed process leaves no exception
    error = state.result(raise_on_failure=False) if state.data is not None else None
    if isinstance(error, PipelineError):
        cause = error.message
    elif isinstance(error, BaseException):
        cause = f"{type(error).__name__}: {error}"
    else:
        cause = state.message or str(state.name)
    return redact(" ".join(cause.split()))


def _blocks(workspace: str, log: logging.LoggerAdapter[Any]) -> tuple[str, ...]:
    try:
        return Workspace(Path(workspace)).params().notify.blocks
    except PipelineError as error:  # possibly the very failure to report
        log.warning("notify.blocks could not be read: %s", error.message)
        return ()


def _tell_block(name: str, text: str, subject: str) -> None:
    from prefect.blocks import notifications  # noqa: F401  # registers the block types
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    block: Any = Block.load(name)
    if not isinstance(block, NotificationBlock):
        raise TypeError("not a notification block")
    with block.raise_on_failure():
        block.notify(text, subject)  # type: ignore[unused-coroutine]  # async only in an event loop


def _post(address: str, message: dict[str, Any]) -> None:
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs the address

    def post() -> None:
        httpx.post(
            address, json=message, headers={"Idempotency-Key": message["id"]}, timeout=TIMEOUT_S
        ).raise_for_status()

    call_with_retries(post, _may_pass, ATTEMPTS)


def _may_pass(error: BaseException) -> bool:
    """Whether a retry may help: not if the address is wrong or the server refuses."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 425, 429)
    return isinstance(error, httpx.TransportError) and not isinstance(
        error, httpx.UnsupportedProtocol
    )


def _describe_error(error: Exception) -> str:
    """Type and HTTP status only: the message may contain the secret address."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"{type(error).__name__}{f' {status}' if status else ''}"
