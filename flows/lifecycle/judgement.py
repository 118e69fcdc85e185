"""Judges a version: scores it beside the champion and the best champion so far, gathers the evidence, asks the gates."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.engine.progress import listener
from flows.lifecycle.comparing import describe_pair, describe_rows, log_comparison, score
from flows.lifecycle.contestants import Contestant, Registry
from tasks.core.errors import BundleError, DataError, ParamsError, did_you_mean
from tasks.core.files import sha256_file
from tasks.inference.bundle import MANIFEST
from tasks.lifecycle.registry import BUNDLE_SHA256
from tasks.params.workspace import Workspace
from tasks.scoring.statistics.bootstrap import Resampling

if TYPE_CHECKING:
    from tasks.comparison import Scored, TestRows
    from tasks.lifecycle.decisions import Decision
    from tasks.lifecycle.evidence import Gate
    from tasks.scoring.statistics.paired import PairedDifference


@dataclass(frozen=True)
class Judgement:
    """What the gates said of a version.

    champion    the version it was judged against
    test        of flows.lifecycle.comparing.describe_rows
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
    workspace: Workspace,
    registry: Registry,
    challenger: Contestant,
    champion: Contestant | None,
    decisions: list[Decision],
) -> Judgement:
    """Every gate's verdict on a registered version; the comparison is logged, nothing else outside is changed."""
    from tasks.comparison import describe_model
    from tasks.lifecycle.evidence import Evidence, ModelEvidence
    from tasks.lifecycle.gates import judge
    from tasks.lifecycle.ledger import looks, standing
    from tasks.scoring.statistics.alpha_spending import next_look
    from tasks.scoring.statistics.chance import only_answer

    assert challenger.version is not None
    assert challenger.number is not None
    params, stands = workspace.params(), standing(decisions)
    mark, gone = _find_mark(registry, stands.high_water, champion)
    contestants = {"challenger": challenger, "champion": champion, "mark": mark}
    rows, scored = score(
        workspace, {place: contestant for place, contestant in contestants.items() if contestant}
    )
    metric = _metric(rows, params.promotion.metric)
    _require_labels(challenger, scored, rows)
    comparison = None
    if champion:
        comparison = describe_pair(
            workspace,
            registry,
            rows,
            {challenger: scored["challenger"], champion: scored["champion"]},
        )
        log_comparison(registry, comparison, [challenger, champion])
    resampling = Resampling(params.promotion.resamples, seed=params.seed)
    measured = (
        comparison["models"]
        if comparison
        else [describe_model(scored["challenger"], rows, Resampling(seed=params.seed))]
    )
    models = [
        ModelEvidence(found, registry.reports(contestant.version))
        for found, contestant in zip(measured, (challenger, champion), strict=False)
        if contestant and contestant.version
    ]
    evidence = Evidence(
        metric=metric,
        challenger=models[0],
        champion=models[1] if champion else None,
        comparison=comparison,
        chance=None
        if champion
        else _against_chance(scored["challenger"], rows, metric, resampling),
        only_answer=""
        if rows.problem.baseline_is_base
        else only_answer(rows.problem, scored["challenger"].outputs, rows.columns, rows.labels),
        high_water=_against_mark(mark.title, scored, rows, metric, resampling) if mark else None,
        mark_gone=gone,
        rows=rows.count,
        look=next_look(rows.sketch, looks(decisions)),
        lineage=lineage_gaps(workspace, challenger),
        rolled_back=challenger.number in stands.rolled_back,
    )
    gates = judge(evidence, params.promotion)
    known = {
        contestant.number: scored[place]
        for place, contestant in contestants.items()
        if contestant and contestant.number
    }
    best = stands.high_water if gone and stands.high_water else _best(rows, metric, known)
    return Judgement(
        challenger.number,
        champion.number if champion else None,
        gates,
        evidence.look,
        describe_rows(rows),
        best,
    )


def lineage_gaps(workspace: Workspace, contestant: Contestant) -> list[str]:
    """What is missing for somebody else to make this version again, in words."""
    from flows.engine.stage_runner import StageRunner

    tags = contestant.version.tags if contestant.version else {}
    gaps = []
    if tags.get("ratchet.git_commit", "none") == "none":
        gaps.append("it was trained outside git: no commit names its code")
    elif tags.get("ratchet.git_dirty") == "true":
        gaps.append("code or params differed from the commit when it was trained")
    with closing(StageRunner(workspace, (), listener.get(), reading=True)) as runner:
        # by what lies here, not by the content key: that of params.yaml is another where it was trained with `-S`
        bundle = workspace.root / "models" / "bundle" / MANIFEST
        here = bundle.is_file() and sha256_file(bundle) == tags.get(BUNDLE_SHA256)
        if not here or runner.lineage().data_hash != tags.get("ratchet.data_hash"):
            return [
                *gaps,
                "this workspace holds another model now: whether a remote has this one's data is not known",
            ]
        missing = runner.unpushed()
    return (
        [*gaps, "what it was made from is on no DVC remote yet (`dvc push`)"] if missing else gaps
    )


def _find_mark(
    registry: Registry, version: int | None, champion: Contestant | None
) -> tuple[Contestant | None, str]:
    """The best champion so far, if it is not the present one, or why it cannot be scored any more."""
    if version is None or (champion and champion.number == version):
        return None, ""
    found = next((known for known in registry.versions() if int(known.version) == version), None)
    if found is None:
        return (
            None,
            f"version {version}, the best champion so far, was deleted: small losses since cannot be told",
        )
    try:
        mark = registry.contestant(found)
        mark.open()
    except BundleError as error:
        return (
            None,
            f"version {version}, the best champion so far, cannot be scored: {error.message.splitlines()[0]}",
        )
    return mark, ""


def _metric(rows: TestRows, wanted: str | None) -> str:
    kind = rows.problem
    if wanted is None:
        return kind.metric
    known = [name for name, sign in kind.metric_signs.items() if sign > 0]
    if wanted not in known:
        raise ParamsError(
            f"promotion.metric: '{wanted}' is no metric to promote by.{did_you_mean(wanted, known)}",
            f"Metrics where more is better: {', '.join(known)}.",
        )
    return wanted


def _require_labels(challenger: Contestant, scored: dict[str, Scored], rows: TestRows) -> None:
    """DataError where the challenger does not know a label that the workspace or the champion has."""
    from tasks.comparison import known_labels

    known = known_labels(scored["challenger"].info)
    lost = [label for label in rows.labels if label not in known]
    if lost:
        raise DataError(
            f"{challenger.title} does not know the label(s) {', '.join(lost)}, which the test rows or the champion have.",
            "Train a version that knows them: `labels` in params.yaml, then `ratchet train`.",
        )


def _against_mark(
    title: str, scored: dict[str, Scored], rows: TestRows, metric: str, resampling: Resampling
) -> PairedDifference:
    from tasks.scoring.statistics.paired import PairedDifference, discordant, metric_differences

    ours, theirs = scored["challenger"], scored["mark"]
    found = metric_differences(
        rows.problem, (ours.outputs, theirs.outputs), ours.references, rows.labels, resampling
    )
    right = (rows.problem.right(model.outputs, ours.references) for model in (ours, theirs))
    return PairedDifference(title, found[metric], sum(discordant(*right)))


def _against_chance(
    scored: Scored, rows: TestRows, metric: str, resampling: Resampling
) -> PairedDifference | None:
    """None for a problem whose plain method is its base model, which already knows something."""
    from tasks.scoring.statistics.chance import difference_to_chance

    if rows.problem.baseline_is_base:
        return None
    return difference_to_chance(
        rows.problem, metric, scored.outputs, scored.references, rows.labels, resampling
    )


def _best(rows: TestRows, metric: str, scored: dict[int, Scored]) -> int:
    """The version with the best metric on these rows."""
    kind = rows.problem
    return max(
        scored,
        key=lambda number: kind.metrics(
            scored[number].outputs, scored[number].references, rows.labels
        )[metric],
    )
