"""Judges a version: scores it beside the champion and the best champion so far, gathers the evidence, asks the gates."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.comparing import describe_pair, describe_rows, log_comparison, score
from flows.contestants import Contestant, Registry
from flows.progress import listener
from tasks.core.bootstrap import Resampling
from tasks.core.errors import DataError, PipelineError
from tasks.core.workspace import Workspace

if TYPE_CHECKING:
    from tasks.comparison import Scored, TestRows
    from tasks.core.gates import Gate
    from tasks.core.ledger import Decision
    from tasks.core.paired import Difference


@dataclass(frozen=True)
class Judgement:
    """What the gates said of a version.

    champion    the version it was judged against
    test        of flows.comparing.describe_rows
    high_water  the best champion so far, should it be promoted
    """

    version: int
    champion: int | None
    gates: list[Gate]
    look: int
    test: dict[str, Any]
    high_water: int

    @property
    def failed(self) -> list[str]:
        """Names of the gates that failed."""
        return [gate.name for gate in self.gates if gate.status == "failed"]


def judge_version(
    workspace: Workspace, registry: Registry, challenger: Contestant, champion: Contestant | None, decisions: list[Decision]
) -> Judgement:
    """Every gate's verdict on a registered version; the comparison is logged, nothing else outside is changed."""
    from tasks.comparison import describe_model
    from tasks.core.gates import Evidence, judge
    from tasks.core.ledger import looks, standing
    from tasks.core.looks import next_look

    assert challenger.version is not None
    assert challenger.number is not None
    params, stands = workspace.params(), standing(decisions)
    mark = _mark(registry, stands.high_water)
    contestants = {"challenger": challenger, "champion": champion, "mark": mark}
    rows, scored = score(workspace, {place: contestant for place, contestant in contestants.items() if contestant})
    _require_labels(challenger, scored, rows)
    comparison = None
    if champion:
        comparison = describe_pair(workspace, registry, rows, {challenger: scored["challenger"], champion: scored["champion"]})
        log_comparison(registry, comparison, [challenger, champion])
    evidence = Evidence(
        metric=rows.problem.metric,
        challenger=describe_model(scored["challenger"], rows, Resampling(seed=params.seed)),
        comparison=comparison,
        high_water=(mark.title, _difference_to_mark(scored, rows, Resampling(params.promotion.resamples, seed=params.seed)))
        if mark
        else None,
        look=next_look(rows.sketch, looks(decisions)),
        reports=registry.reports(challenger.version),
        lineage=lineage_gaps(workspace, challenger),
        rolled_back=challenger.number in stands.rolled_back,
    )
    gates = judge(evidence, params.promotion)
    best = _best(rows, {contestant.number: scored[place] for place, contestant in contestants.items() if contestant and contestant.number})
    return Judgement(challenger.number, champion.number if champion else None, gates, evidence.look, describe_rows(rows), best)


def lineage_gaps(workspace: Workspace, contestant: Contestant) -> list[str]:
    """What is missing for somebody else to make this version again, in words."""
    from flows.stage_runner import StageRunner

    tags = contestant.version.tags if contestant.version else {}
    gaps = []
    if tags.get("ratchet.git_commit", "none") == "none":
        gaps.append("it was trained outside git: no commit names its code")
    elif tags.get("ratchet.git_dirty") == "true":
        gaps.append("code or params differed from the commit when it was trained")
    with closing(StageRunner(workspace, (), listener.get())) as runner:
        if runner.lineage().content_key != tags.get("ratchet.content_key"):
            return [*gaps, "this workspace holds another model's data now: whether a remote has this one's is not known"]
        missing = runner.unpushed()
    return [*gaps, "what it was made from is on no DVC remote yet (`dvc push`)"] if missing else gaps


def _mark(registry: Registry, version: int | None) -> Contestant | None:
    """The best champion so far; None where there is none, or its bundle is gone or altered: it cannot be scored then."""
    from tasks.core.bundle import open_bundle

    if version is None:
        return None
    try:
        mark = registry.find(str(version))
        open_bundle(mark.directory)
    except PipelineError:
        return None
    return mark


def _require_labels(challenger: Contestant, scored: dict[str, Scored], rows: TestRows) -> None:
    """DataError where the challenger does not know a label that the workspace or the champion has."""
    known = set(scored["challenger"].info.labels)
    lost = [label for label in rows.labels if label not in known]
    if lost:
        raise DataError(
            f"{challenger.title} does not know the label(s) {', '.join(lost)}, which the test rows or the champion have.",
            "Train a version that knows them: `labels` in params.yaml, then `ratchet train`.",
        )


def _difference_to_mark(scored: dict[str, Scored], rows: TestRows, resampling: Resampling) -> Difference:
    from tasks.core.paired import metric_differences

    pair = (scored["challenger"].outputs, scored["mark"].outputs)
    return metric_differences(rows.problem, pair, scored["challenger"].references, rows.labels, resampling)[rows.problem.metric]


def _best(rows: TestRows, scored: dict[int, Scored]) -> int:
    """The version with the best metric on these rows."""
    kind = rows.problem
    values = {number: kind.metrics(found.outputs, found.references, rows.labels)[kind.metric] for number, found in scored.items()}
    return max(values, key=lambda number: kind.metric_signs[kind.metric] * values[number])
