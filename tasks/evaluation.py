"""Evaluate the checkpoint on the test split.

Metrics with intervals, metrics by slice, behavioural tests (small changes of the text), and a
comparison with a baseline.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from tasks.core.errors import ParamsError, did_you_mean
from tasks.core.files import read_table
from tasks.core.progress import Report
from tasks.core.seeds import seed_everything
from tasks.data.sources.fetching import resolve_model
from tasks.inference.calibration import Calibration
from tasks.lifecycle.behaviour_gates import judge_behaviour, row_sets
from tasks.params.schema import BaseModelParams, EvaluateParams
from tasks.problems import load_problem
from tasks.reports.stage_reports import (
    BaselineReport,
    BehaviourReport,
    EvaluationReport,
    Interval,
    MetricDifference,
    SliceReport,
)
from tasks.scoring.calibration_notes import calibration_notes
from tasks.scoring.model_notes import model_notes
from tasks.scoring.slices import Slice, slice_rows
from tasks.scoring.statistics.bootstrap import Resampling, difference_interval, metric_intervals
from tasks.scoring.statistics.chance import only_answer
from tasks.scoring.worst_errors import worst_errors
from tasks.training.methods.checkpoints import load_checkpoint
from tasks.training.networks.checkpoint_outputs import SplitOutputs, TorchPredictor
from tasks.training.networks.device import pick_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.core.arrays import Array, Columns, Floats
    from tasks.problems import Problem

LENGTH = "length (tokens)"


@dataclass(frozen=True)
class ScoredTest:
    """A model on the test rows: its calibrated outputs, and what scoring them takes.

    rows        the test split's columns
    validation  what calibration was fitted on
    """

    problem: Problem
    labels: Sequence[str]
    out_of_scope: str | None
    resampling: Resampling
    rows: Columns
    validation: SplitOutputs
    test: SplitOutputs
    calibration: Calibration

    @cached_property
    def outputs(self) -> Floats:
        """Outputs after tuned thresholds have decided the labels."""
        return self.calibration.decide(self.test.outputs)

    def intervals(
        self, rows: Array | None = None, outputs: Floats | None = None
    ) -> dict[str, Interval]:
        """Metrics on some rows (default: all), or of another method's outputs."""
        outputs = self.outputs if outputs is None else outputs
        references = self.test.references
        if rows is not None:
            outputs, references = outputs[rows], references[rows]
        return metric_intervals(
            self.problem.scoring, outputs, references, self.labels, self.resampling
        )

    def report(
        self,
        evaluate: EvaluateParams,
        behaviour: list[BehaviourReport],
        baseline: BaselineReport | None,
        answers: dict[str, Any] | None,
    ) -> EvaluationReport:
        """The report: what is given, and every metric of the test rows."""
        scorer, labels, validation = self.problem.scoring, self.labels, self.validation
        metrics = self.intervals()
        answer = only_answer(scorer, self.problem.decoding, self.outputs, self.rows, labels)
        return EvaluationReport(
            split="test",
            rows=len(self.outputs),
            metric=scorer.metric,
            confidence=self.resampling.confidence,
            metrics=metrics,
            validation_metrics=scorer.metrics(
                self.calibration.decide(validation.outputs), validation.references, labels
            ),
            **asdict(self.calibration),
            **_details(self),
            calibration_notes=calibration_notes(
                scorer, self.test.outputs, self.test.references, self.calibration
            ),
            slices=judge_slices(self, evaluate.slices, evaluate.min_slice_rows),
            behaviour=behaviour,
            baseline=baseline,
            notes=model_notes(scorer.metric, metrics, len(self.outputs), baseline, answer),
            errors=worst_errors(self, evaluate.slices),
            answers=answers,
        )


def evaluate_checkpoint(
    splits: Path,
    tokens: Path,
    checkpoint: Path,
    evaluation_report: Path,
    *,
    problem: str,
    labels: Sequence[str],
    out_of_scope: str | None,
    base_model: BaseModelParams,
    evaluate: EvaluateParams,
    seed: int,
    device: str,
    root: Path,
    cache: Path,
    report: Report,
) -> None:
    """Write an EvaluationReport of the checkpoint on the test split.

    Raises ParamsError for a missing slice column, TrainingError if outputs are not finite.
    """
    problem_type = load_problem(problem)
    scorer = problem_type.scoring
    check_slice_columns(splits / "test.parquet", evaluate.slices)
    rows = read_table(splits / "test.parquet").to_pydict()
    # before the model runs, so that mistakes in params.yaml surface early
    tests = scorer.behaviour_tests(rows, labels, evaluate, seed)
    predictor_of = partial(
        TorchPredictor, problem_type.encoding, labels, tokens, pick_device(device)
    )
    predictor = predictor_of(load_checkpoint(problem_type.objective, checkpoint, labels))
    base = None
    if evaluate.baseline and scorer.baseline_is_base:
        base_dir = resolve_model(base_model, root, cache)
        base = predictor_of(_load_base(problem_type, labels, base_dir, seed))

    validation = predictor.outputs_of_split("validation", report, (0.0, 0.35))
    test = predictor.outputs_of_split("test", report, (0.35, 0.7))
    altered = predictor.outputs_of_rows(
        [changed for one in tests for changed in row_sets(one)], report, (0.7, 0.85)
    )
    calibration = scorer.fit_calibration(
        validation.outputs, validation.references, labels, out_of_scope
    )
    resampling = Resampling(evaluate.bootstrap_resamples, evaluate.confidence, seed)
    scored = ScoredTest(
        problem_type, labels, out_of_scope, resampling, rows, validation, test, calibration
    )
    decode = partial(problem_type.decoding.decode, labels=labels, calibration=calibration)
    behaviour = judge_behaviour(scorer, problem_type.decoding, decode, tests, altered, calibration)
    report(2, {"progress": 0.87})
    plain = None
    if base is not None:
        plain = base.outputs(test.features, report, (0.87, 0.93))
    elif evaluate.baseline:
        plain = plain_outputs(problem_type, splits / "train.parquet", rows, labels, seed)
    models = {**({"before": base.model} if base else {}), "after": predictor.model}
    scored.report(
        evaluate,
        behaviour,
        baseline=None if plain is None else compare_baseline(scored, plain),
        answers=scorer.compare_answers(models, predictor.tokenizer, rows, evaluate),
    ).write(evaluation_report)
    report(3, {"progress": 1.0})


def plain_outputs(
    problem: Problem, train: Path, test: Columns, labels: Sequence[str], seed: int
) -> Floats | None:
    """Outputs for the test rows of the problem's plain method, trained on the training rows.

    None  the problem has no such method, or these rows do not suit it
    """
    columns = [*problem.rows.columns, *problem.rows.derived]
    rows = read_table(train, columns).to_pydict()
    return problem.scoring.baseline(rows, test, labels, seed)


def _details(scored: ScoredTest) -> dict[str, Any]:
    """`details`, `validation_thresholds` and `calibrated` of the report."""
    scorer, labels = scored.problem.scoring, scored.labels
    thresholds, validation_thresholds = (
        scorer.threshold_details(
            split.outputs, split.references, labels, scored.calibration, scored.out_of_scope
        )
        for split in (scored.test, scored.validation)
    )
    details = scorer.details(scored.outputs, scored.test.references, labels) | thresholds
    return {
        "details": details,
        "validation_thresholds": validation_thresholds,
        "calibrated": calibrate_outputs(scored, details, set(thresholds)),
    }


def _load_base(
    problem: Problem, labels: Sequence[str], directory: Path, seed: int
) -> PreTrainedModel:
    """Load the base model as training starts from it; a missing head is drawn at random."""
    seed_everything(seed)
    return problem.objective.load_model(directory, labels)


def check_slice_columns(table: Path, columns: Sequence[str]) -> None:
    """Raise ParamsError naming every slice column that the rows lack."""
    present = pq.read_schema(table).names
    unknown = [
        f"no column '{name}'.{did_you_mean(name, present)}"
        for name in columns
        if name not in present
    ]
    if unknown:
        raise ParamsError(
            f"evaluate.slices: {' '.join(unknown)}",
            f"Columns: {', '.join(present)}. Keep more of the sources' columns with `ingest.keep`.",
        )


def calibrate_outputs(
    scored: ScoredTest, details: Mapping[str, Any], settled: Collection[str]
) -> dict[str, Any]:
    """What calibration changes: metrics that move or where lower is better, details that differ.

    settled  names of details computed from calibrated outputs already
    """
    scorer, labels = scored.problem.scoring, scored.labels
    outputs, references = scored.test.outputs, scored.test.references
    scaled = scored.calibration.apply(outputs)
    before = scorer.metrics(outputs, references, labels)
    after = scorer.metrics(scaled, references, labels)
    moved = [
        name for name in before if scorer.metric_signs[name] < 0 or before[name] != after[name]
    ]
    changed = {
        name: value
        for name, value in scorer.details(scaled, references, labels).items()
        if name not in settled and value != details[name]
    }
    return {
        **{name: {"before": before[name], "after": after[name]} for name in moved},
        "details": changed,
    }


def judge_slices(scored: ScoredTest, columns: Sequence[str], min_rows: int) -> list[SliceReport]:
    """Metrics by the columns' values, by label and by length."""
    label, rows = scored.problem.rows.label_column, scored.rows
    names = [name for name in dict.fromkeys(columns) if name != label]
    slices = [group for name in names for group in slice_rows(name, rows[name])]
    if label:
        slices += slice_rows(label, rows[label], scored.labels)
    slices += slice_rows(LENGTH, list(map(len, scored.test.features["input_ids"])))
    return [_judge_slice(scored, group, min_rows) for group in slices]


def _judge_slice(scored: ScoredTest, group: Slice, min_rows: int) -> SliceReport:
    """Metrics of one slice; a slice of fewer than `min_rows` rows is only counted."""
    judged, metrics = len(group.rows) >= min_rows, {}
    if judged:
        by_label = group.column == scored.problem.rows.label_column
        names = scored.problem.scoring.label_metrics if by_label else None
        metrics = {
            name: interval
            for name, interval in scored.intervals(group.rows).items()
            if names is None or name in names
        }
    return SliceReport(
        column=group.column,
        value=group.value,
        rows=len(group.rows),
        metrics=metrics,
        judged=judged,
    )


def compare_baseline(scored: ScoredTest, outputs: Floats) -> BaselineReport:
    """Metrics of the baseline's outputs, and the model's lead over it."""
    scorer = scored.problem.scoring
    difference = difference_interval(
        scorer,
        (scored.outputs, outputs),
        scored.test.references,
        scored.labels,
        scored.resampling,
    )
    return BaselineReport(
        name=scorer.baseline_name,
        metrics=scored.intervals(outputs=outputs),
        difference=MetricDifference(metric=scorer.metric, **difference),
    )
