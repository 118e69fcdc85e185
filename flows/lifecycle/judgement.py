"""Judges a version: scores it with the current and the best champion, then runs the gates."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.engine.progress import listener
from flows.lifecycle.comparing import describe_pair, describe_rows, log_comparison, score
from tasks.core.errors import BundleError, DataError
from tasks.core.files import sha256_file
from tasks.inference.bundle import MANIFEST
from tasks.lifecycle.model_registry import Contestant, ModelRegistry
from tasks.lifecycle.registry import BUNDLE_SHA256
from tasks.params.workspace import Workspace
from tasks.problems import problem_names
from tasks.scoring.metric_names import promotion_metric
from tasks.scoring.statistics.bootstrap import Resampling

if TYPE_CHECKING:
    from tasks.comparison import Scored, TestRows
    from tasks.lifecycle.decisions import Decision
    from tasks.lifecycle.evidence import Gate, ModelEvidence
    from tasks.scoring.statistics.paired import PairedDifference


@dataclass(frozen=True)
class Judgement:
    """The gates' verdict on a version.

    champion    the version it was compared with
    test        the test rows, from flows.lifecycle.comparing.describe_rows
    high_water  the best champion so far, if this version is promoted
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


@dataclass(frozen=True)
class Contest:
    """Versions scored on the same test rows, by role: challenger, champion, mark.

    The mark is the best champion so far, unless that is the present one.
    mark_gone  why it cannot be scored; empty: it can, or there is none
    """

    contestants: dict[str, Contestant]
    mark_gone: str
    rows: TestRows
    scored: dict[str, Scored]
    metric: str

    def best(self, high_water: int | None) -> int:
        """Number of the best champion so far, if the challenger becomes champion."""
        if self.mark_gone and high_water:
            return high_water
        rows, scoring = self.rows, self.rows.problem.scoring

        def value(number: int) -> float:
            model = known[number]
            metrics = scoring.metrics(model.outputs, model.references, rows.labels)
            return metrics[self.metric]

        known = {
            contestant.number: self.scored[role]
            for role, contestant in self.contestants.items()
            if contestant.number
        }
        return max(known, key=value)

    def only_answer(self) -> str:
        """The challenger's answer to all rows; empty if it gives several."""
        from tasks.scoring.statistics.chance import only_answer

        problem, rows = self.rows.problem, self.rows
        if problem.scoring.baseline_is_base:
            return ""
        outputs = self.scored["challenger"].outputs
        return only_answer(problem.scoring, problem.decoding, outputs, rows.columns, rows.labels)


def judge_version(
    workspace: Workspace,
    registry: ModelRegistry,
    challenger: Contestant,
    champion: Contestant | None,
    decisions: list[Decision],
) -> Judgement:
    """Run every gate on a registered version; only the comparison is logged to MLflow."""
    from tasks.lifecycle.evidence import Evidence
    from tasks.lifecycle.gates import judge
    from tasks.lifecycle.ledger import champion_history, looks
    from tasks.scoring.statistics.alpha_spending import next_look

    assert challenger.number is not None
    params, ledger = workspace.params(), champion_history(decisions)
    contest = _score_all(workspace, registry, challenger, champion, ledger.high_water)
    rows, scored, metric = contest.rows, contest.scored, contest.metric
    comparison = None
    if champion:
        pair = {challenger: scored["challenger"], champion: scored["champion"]}
        comparison = describe_pair(workspace, registry, rows, pair)
        log_comparison(registry, comparison, [challenger, champion])
    models = _evidence_of(contest, registry, comparison, params.seed)
    resampling = Resampling(params.promotion.resamples, seed=params.seed)
    mark = contest.contestants.get("mark")
    evidence = Evidence(
        metric=metric,
        challenger=models[0],
        champion=models[1] if champion else None,
        comparison=comparison,
        chance=(
            None if champion else _against_chance(scored["challenger"], rows, metric, resampling)
        ),
        only_answer=contest.only_answer(),
        high_water=_against_mark(mark.title, scored, rows, metric, resampling) if mark else None,
        mark_gone=contest.mark_gone,
        rows=rows.count,
        look=next_look(rows.sketch, looks(decisions)),
        lineage=lineage_gaps(workspace, challenger),
        rolled_back=challenger.number in ledger.rolled_back,
    )
    return Judgement(
        challenger.number,
        champion.number if champion else None,
        judge(evidence, params.promotion),
        evidence.look,
        describe_rows(rows),
        contest.best(ledger.high_water),
    )


def _score_all(
    workspace: Workspace,
    registry: ModelRegistry,
    challenger: Contestant,
    champion: Contestant | None,
    high_water: int | None,
) -> Contest:
    """Score the versions; DataError or ParamsError if they cannot be compared."""
    mark, mark_gone = _find_mark(registry, high_water, champion)
    roles = {"challenger": challenger, "champion": champion, "mark": mark}
    contestants = {role: contestant for role, contestant in roles.items() if contestant}
    rows, scored = score(workspace, contestants)
    metric = promotion_metric(rows.problem.scoring, workspace.params().promotion.metric)
    _require_labels(challenger, scored, rows)
    return Contest(contestants, mark_gone, rows, scored, metric)


def _evidence_of(
    contest: Contest, registry: ModelRegistry, comparison: dict[str, Any] | None, seed: int
) -> list[ModelEvidence]:
    """What is known of the challenger and, if there is one, the champion."""
    from tasks.comparison import describe_model
    from tasks.lifecycle.evidence import ModelEvidence

    measured = (
        comparison["models"]
        if comparison
        else [describe_model(contest.scored["challenger"], contest.rows, Resampling(seed=seed))]
    )
    known = (contest.contestants.get(role) for role in ("challenger", "champion"))
    return [
        ModelEvidence(model, registry.reports(contestant.version))
        for model, contestant in zip(measured, known, strict=False)
        if contestant and contestant.version
    ]


def lineage_gaps(workspace: Workspace, contestant: Contestant) -> list[str]:
    """What somebody else would lack to reproduce this version, in words."""
    from flows.engine.stage_runner import StageRunner

    tags = contestant.version.tags if contestant.version else {}
    gaps = []
    if tags.get("ratchet.git_commit", "none") == "none":
        gaps.append("it was trained outside git: no commit names its code")
    elif tags.get("ratchet.git_dirty") == "true":
        gaps.append("it was trained with uncommitted changes to code or params")
    with closing(StageRunner(workspace, (), listener.get(), reading=True)) as runner:
        # compare files: after a training with `-S`, the content key of params.yaml differs
        manifest = workspace.root / "models" / "bundle" / MANIFEST
        is_same = manifest.is_file() and sha256_file(manifest) == tags.get(BUNDLE_SHA256)
        if not is_same or runner.lineage().data_hash != tags.get("ratchet.data_hash"):
            gap = "this workspace holds another model now: a remote may or may not have the data"
            return [*gaps, gap]
        missing = runner.unpushed()
    return [*gaps, "its inputs are on no DVC remote yet (`dvc push`)"] if missing else gaps


def _find_mark(
    registry: ModelRegistry, version: int | None, champion: Contestant | None
) -> tuple[Contestant | None, str]:
    """The best champion so far, unless it is the current one; or why it cannot be scored."""
    if version is None or (champion and champion.number == version):
        return None, ""
    best = f"version {version}, the best champion so far"
    entry = next((known for known in registry.versions() if int(known.version) == version), None)
    if entry is None:
        return None, f"{best}, was deleted: small losses since then cannot be measured"
    try:
        mark = registry.contestant(entry)
        mark.open(problem_names())
    except BundleError as error:
        return None, f"{best}, cannot be scored: {error.message.splitlines()[0]}"
    return mark, ""


def _require_labels(challenger: Contestant, scored: dict[str, Scored], rows: TestRows) -> None:
    """Raise DataError if the challenger lacks a label of the test rows or the champion."""
    from tasks.comparison import known_labels

    known = known_labels(scored["challenger"].info)
    missing = [label for label in rows.labels if label not in known]
    if missing:
        raise DataError(
            f"{challenger.title} does not know the label(s) {', '.join(missing)}, "
            "which the test rows or the champion have.",
            "Train a version that knows them: add them to `labels` in params.yaml, "
            "then run `ratchet train`.",
        )


def _against_mark(
    title: str, scored: dict[str, Scored], rows: TestRows, metric: str, resampling: Resampling
) -> PairedDifference:
    from tasks.scoring.statistics.paired import PairedDifference, discordant, metric_differences

    problem, references = rows.problem, scored["challenger"].references
    outputs = (scored["challenger"].outputs, scored["mark"].outputs)
    differences = metric_differences(problem.scoring, outputs, references, rows.labels, resampling)
    right = (problem.scoring.correct(output, references) for output in outputs)
    return PairedDifference(title, differences[metric], sum(discordant(*right)))


def _against_chance(
    scored: Scored, rows: TestRows, metric: str, resampling: Resampling
) -> PairedDifference | None:
    """The difference to chance; None if the problem's baseline is its base model, not chance."""
    from tasks.scoring.statistics.chance import difference_to_chance

    if rows.problem.scoring.baseline_is_base:
        return None
    return difference_to_chance(
        rows.problem.scoring, metric, scored.outputs, scored.references, rows.labels, resampling
    )
