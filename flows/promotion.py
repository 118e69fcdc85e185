"""The promotion and rollback flows: gate verdicts, optional manual approval, alias move."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prefect import flow, pause_flow_run, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import deployment
from pydantic import Field

from flows.engine.run_page import report_to_prefect, run_name
from flows.launch import workspace_lock
from flows.lifecycle.judgement import Judgement, judge_version
from tasks.core.errors import BundleError, GateError
from tasks.core.progress import LINES
from tasks.lifecycle.decisions import MAX_REASON, Decision
from tasks.lifecycle.ledger import champion_history
from tasks.lifecycle.model_registry import Contestant, ModelRegistry
from tasks.params.workspace import Workspace


class Approval(RunInput):
    """Manual approval or refusal of a paused promotion."""

    approve: bool
    reason: str = Field("", max_length=MAX_REASON)
    who: str = ""


@flow(name="promote", flow_run_name=run_name("promote {model} {version}"), persist_result=False)
def promotion(
    workspace: str,
    version: str = "challenger",
    force_reason: str = "",
    trigger: str = "",
    key: str = "",
) -> dict[str, Any]:
    """Make a version champion if no gate fails; the decision is recorded either way.

    workspace     its directory
    version       number or alias
    force_reason  why to promote it even if gates fail; empty: the gates decide
    trigger       what triggered the training, for the ledger
    key           the decision's id; empty: a new one
    """
    opened = Workspace.find(Path(workspace))
    registry = ModelRegistry(opened)
    decisions = registry.decisions()  # completes a move that a crash interrupted
    challenger, champion = registry.registered(version), registry.find_champion()
    if champion and champion.number == challenger.number:
        return {
            "state": "unchanged",
            "model": registry.name,
            "version": challenger.number,
            "champion": champion.number,
            "decision": None,
        }
    _require_known_champion(registry, champion, champion_history(decisions).champions)
    judgement = judge_candidate(opened, registry, challenger, champion, decisions)
    decision = _with_key(_decide(opened, registry, judgement, force_reason, trigger), key)
    try:
        decision = carry_out(registry, challenger, decision)
    except (BundleError, GateError) as error:
        # recorded because the test rows have been used: this look counts
        reason = error.message.splitlines()[0]
        refused = replace(decision, outcome="refused", reason=reason, high_water=None)
        carry_out(registry, challenger, refused)
        raise
    create_markdown_artifact(
        _summary(registry.name, decision), key="promote", description=decision.reason[:200]
    )
    return {
        "state": decision.outcome,
        "model": registry.name,
        "version": decision.version,
        "champion": decision.version if decision.move else decision.previous,
        "decision": asdict(decision),
    }


@flow(name="rollback", flow_run_name=run_name("rollback {model} to v{to}"), persist_result=False)
def rollback_flow(
    workspace: str, to: int, previous: int | None, reason: str = "", key: str = ""
) -> dict[str, Any]:
    """Make an earlier champion champion again.

    workspace  its directory
    to         version number of the earlier champion
    previous   version number of the current champion; it replaces only this one
    key        the decision's id; empty: a new one
    """
    opened = Workspace.find(Path(workspace))
    registry = ModelRegistry(opened)
    target = registry.rollback_target(to)
    reason = reason or f"back from version {previous or 'none'} to version {target}"
    decision = Decision("rolled back", target, previous, reason)
    decision = carry_out(registry, registry.find(str(target)), _with_key(decision, key))
    create_markdown_artifact(
        _summary(registry.name, decision), key="rollback", description=decision.reason[:200]
    )
    return {
        "state": "rolled back",
        "model": registry.name,
        "version": target,
        "champion": target,
        "decision": asdict(decision),
    }


@task(name="judge", task_run_name="judge", cache_policy=NO_CACHE)
def judge_candidate(
    workspace: Workspace,
    registry: ModelRegistry,
    challenger: Contestant,
    champion: Contestant | None,
    decisions: list[Decision],
) -> Judgement:
    """Score and judge under the workspace lock, so that no training changes the test rows."""
    # a scheduled run waits: nobody is there to start it again
    with workspace_lock(workspace, wait=deployment.get_id() is not None), report_to_prefect():
        return judge_version(workspace, registry, challenger, champion, decisions)


@task(name="carry out", task_run_name="carry out", cache_policy=NO_CACHE)
def carry_out(registry: ModelRegistry, target: Contestant, decision: Decision) -> Decision:
    """Record the decision; if it moves the alias, try the target bundle first.

    No workspace lock: the ledger guards its own moves across machines, and a training in this
    workspace, which may take hours, must not delay one.
    """
    from tasks.lifecycle.descriptions import add_verdict
    from tasks.lifecycle.registry import mlflow_errors

    assert target.version is not None
    if decision.outcome != "refused":
        try_bundle(target)
    with mlflow_errors(registry.uri):
        ledger = registry.ledger
        write = ledger.record if decision.outcome == "refused" else ledger.move
        carried_out = write(decision)
        add_verdict(registry.client, target.version, carried_out)
    return carried_out


def try_bundle(target: Contestant) -> None:
    """Raise BundleError unless the version's files match the registered ones, load and predict."""
    from tasks.inference.predictor import Predictor
    from tasks.problems import load_problem, problem_names

    info = target.open(problem_names())
    problem = load_problem(info.problem)
    Predictor(info, problem).predict(problem.decoding.example())


def _with_key(decision: Decision, key: str) -> Decision:
    return replace(decision, id=key) if key else decision


def _require_known_champion(
    registry: ModelRegistry, champion: Contestant | None, past: list[int]
) -> None:
    """Raise GateError if the ledger has a champion but the alias is gone: nothing to compare with.

    past  version numbers of the ledger's champions, oldest first
    """
    if champion is None and past:
        raise GateError(
            f"{registry.name}: no version has the alias `champion`; "
            f"according to the ledger it is version {past[-1]}.",
            "Run `ratchet rollback` to restore the alias to the newest remaining champion; "
            "then promote.",
        )


def _decide(
    workspace: Workspace,
    registry: ModelRegistry,
    judgement: Judgement,
    force_reason: str,
    trigger: str,
) -> Decision:
    refused = Decision(
        "refused",
        judgement.version,
        judgement.champion,
        f"failed: {', '.join(judgement.failed)}",
        gates=[asdict(gate) for gate in judgement.gates],
        look=judgement.look,
        test=judgement.test,
        trigger=trigger,
    )
    if judgement.failed and not force_reason:
        return refused
    promoted = replace(refused, outcome="promoted", high_water=judgement.high_water)
    if force_reason:
        return replace(promoted, reason=f"forced: {force_reason}", forced=bool(judgement.failed))
    passed = f"{sum(gate.status == 'passed' for gate in judgement.gates)} gates passed, none failed"
    promotion = workspace.params().promotion
    if promotion.approval == "auto":
        return replace(promoted, reason=passed)
    answer = _ask_person(registry, judgement, promotion.approval_hours)
    who = answer.who or refused.who
    if not answer.approve:
        reason = f"not approved: {answer.reason or 'no reason given'}"
        return replace(refused, reason=reason, who=who)
    reason = f"{passed}; approved{': ' + answer.reason if answer.reason else ''}"
    return replace(promoted, reason=reason, who=who)


def _ask_person(registry: ModelRegistry, judgement: Judgement, hours: float) -> Approval:
    """Pause the flow until somebody answers; after `hours` the answer is no."""
    question = (
        f"Make version {judgement.version} of {registry.name} champion "
        f"in place of {judgement.champion or 'none'}? All gates passed."
    )
    notice = (
        f"Waiting up to {hours:g} h for manual approval: "
        "`ratchet approve`, or `ratchet approve --no`."
    )
    LINES.info(notice)
    get_run_logger().info(notice)
    try:
        return pause_flow_run(
            wait_for_input=Approval.with_initial_data(description=question),
            timeout=int(hours * 3600),
            poll_interval=2,
        )
    except FlowPauseTimeout:
        return Approval(approve=False, reason=f"nobody answered within {hours:g} h")


def _summary(name: str, decision: Decision) -> str:
    rows = "\n".join(
        f"| {gate['name']} | {gate['status']} | {gate['reason']} |" for gate in decision.gates
    )
    head = f"# {name} version {decision.version}: {decision.outcome}\n\n{decision.reason}\n\n"
    return f"{head}| gate | verdict | why |\n|---|---|---|\n{rows}\n" if rows else head
