"""Challenger against champion: the gates' verdict, a person's word where one is asked for, then the alias moves. A Prefect flow."""

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

from flows.engine.run_page import run_name, shown_in_prefect
from flows.launch import workspace_lock
from flows.lifecycle.contestants import Contestant, Registry, rollback_target
from flows.lifecycle.judgement import Judgement, judge_version
from tasks.core.errors import BundleError, GateError, RegistryError
from tasks.core.progress import LINES
from tasks.lifecycle.decisions import MAX_REASON, Decision
from tasks.lifecycle.ledger import standing
from tasks.params.workspace import Workspace


class Approval(RunInput):
    """A person's answer to a paused promotion."""

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
    """Make a version champion if every gate lets it through; the decision is written down either way.

    workspace     its directory
    version       number or alias
    force_reason  why it is to be promoted whatever the gates say; empty: they decide
    trigger       what called for the training, for the ledger
    key           the decision's id; empty: a new one
    """
    place = Workspace.find(Path(workspace))
    registry = Registry(place)
    decisions = registry.decisions()  # completes what a crash cut short
    challenger, champion = registry.find(version), registry.find_champion()
    if challenger.version is None:
        raise RegistryError(
            f"{version}: a bundle that is not registered cannot be promoted.",
            "Register it with `ratchet train`.",
        )
    if champion and champion.number == challenger.number:
        return {
            "state": "unchanged",
            "model": registry.name,
            "version": challenger.number,
            "champion": champion.number,
            "decision": None,
        }
    _require_known_champion(registry, champion, standing(decisions).champions)
    judgement = judge_candidate(place, registry, challenger, champion, decisions)
    decision = _with_key(_decide(place, registry, judgement, force_reason, trigger), key)
    try:
        decision = carry_out(registry, challenger, decision)
    except (BundleError, GateError) as error:
        # the rows have judged all the same
        carry_out(
            registry,
            challenger,
            replace(
                decision, outcome="refused", reason=error.message.splitlines()[0], high_water=None
            ),
        )
        raise
    create_markdown_artifact(
        _summary(registry.name, decision), key="promote", description=decision.reason[:200]
    )
    return {
        "state": decision.outcome, "model": registry.name, "version": decision.version,
        "champion": decision.version if decision.move else decision.previous, "decision": asdict(decision),
    }  # fmt: skip


@flow(name="rollback", flow_run_name=run_name("rollback {model} to v{to}"), persist_result=False)
def rolling_back(
    workspace: str, to: int, previous: int | None, reason: str = "", key: str = ""
) -> dict[str, Any]:
    """Make an earlier champion champion again.

    workspace  its directory
    to         its number
    previous   the present champion's, which it replaces and no other
    key        the decision's id; empty: a new one
    """
    place = Workspace.find(Path(workspace))
    registry = Registry(place)
    target = rollback_target(registry, registry.decisions(), to)
    decision = Decision(
        "rolled back",
        target,
        previous,
        reason or f"back from version {previous or 'none'} to version {target}",
    )
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
    place: Workspace,
    registry: Registry,
    challenger: Contestant,
    champion: Contestant | None,
    decisions: list[Decision],
) -> Judgement:
    """Score and judge, alone in the workspace: a training must not change the test rows meanwhile."""
    # nobody is there to start a scheduled run again: it waits
    with workspace_lock(place, wait=deployment.get_id() is not None), shown_in_prefect():
        return judge_version(place, registry, challenger, champion, decisions)


@task(name="carry out", task_run_name="carry out", cache_policy=NO_CACHE)
def carry_out(registry: Registry, target: Contestant, decision: Decision) -> Decision:
    """Write the decision down; where it moves the alias, the target is tried first.

    The ledger guards its moves itself, on whatever machine: a training in the workspace, which may take hours, holds none of them up.
    """
    from tasks.lifecycle.registry import mlflow_errors

    if decision.outcome == "refused":
        with mlflow_errors(registry.uri):
            return registry.ledger.record(decision)
    try_bundle(target)
    with mlflow_errors(registry.uri):
        return registry.ledger.move(decision)


def try_bundle(target: Contestant) -> None:
    """BundleError unless the version's files are those that were registered, load, and predict."""
    from tasks.inference.predictor import Predictor
    from tasks.problems import load_problem

    info = target.open()
    kind = load_problem(info.problem)
    example = kind.example()
    predictions = Predictor(info, kind).predict(example)
    if len(predictions) != len(next(iter(example.values()))):
        raise BundleError(
            f"{target.directory}: it loads but gives {len(predictions)} predictions.",
            "Promote another version.",
        )


def _with_key(decision: Decision, key: str) -> Decision:
    return replace(decision, id=key) if key else decision


def _require_known_champion(
    registry: Registry, champion: Contestant | None, past: list[int]
) -> None:
    """GateError where the alias is gone though the ledger knows a champion: nothing could be held against it."""
    if champion is None and past:
        raise GateError(
            f"{registry.name}: no version has the alias `champion`; by the ledger it is version {past[-1]}.",
            "`ratchet rollback` gives it back to the newest champion that is left; then promote.",
        )


def _decide(
    place: Workspace, registry: Registry, judgement: Judgement, force_reason: str, trigger: str
) -> Decision:
    refused = Decision(
        "refused", judgement.version, judgement.champion, f"failed: {', '.join(judgement.failed)}",
        gates=[asdict(gate) for gate in judgement.gates], look=judgement.look, test=judgement.test, trigger=trigger,
    )  # fmt: skip
    if judgement.failed and not force_reason:
        return refused
    promoted = replace(refused, outcome="promoted", high_water=judgement.high_water)
    if force_reason:
        return replace(promoted, reason=f"forced: {force_reason}", forced=bool(judgement.failed))
    passed = f"{sum(gate.status == 'passed' for gate in judgement.gates)} gates passed, none failed"
    promotion = place.params().promotion
    if promotion.approval == "auto":
        return replace(promoted, reason=passed)
    answer = _ask_person(registry, judgement, promotion.approval_hours)
    who = answer.who or refused.who
    if not answer.approve:
        return replace(
            refused, reason=f"not approved: {answer.reason or 'no reason given'}", who=who
        )
    return replace(
        promoted,
        reason=f"{passed}; approved{': ' + answer.reason if answer.reason else ''}",
        who=who,
    )


def _ask_person(registry: Registry, judgement: Judgement, hours: float) -> Approval:
    """Pause the flow until somebody answers, at most `hours`."""
    asked = f"Make version {judgement.version} of {registry.name} champion in place of {judgement.champion or 'none'}? All gates passed."
    waits = f"Waiting at most {hours:g} h for a person's word: `ratchet approve`, or `ratchet approve --no`."
    LINES.info(waits)
    get_run_logger().info(waits)
    try:
        return pause_flow_run(
            wait_for_input=Approval.with_initial_data(description=asked),
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
