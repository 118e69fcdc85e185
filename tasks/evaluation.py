"""Evaluate the checkpoint on the test split.

Metrics with intervals, metrics by slice, behavioural tests (small changes of the text), and a
comparison with a baseline.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from tasks.core.errors import ParamsError, TrainingError, did_you_mean
from tasks.core.files import read_table
from tasks.core.progress import Report
from tasks.core.ragged import is_finite, stack_rows
from tasks.core.seeds import seed_everything
from tasks.data.sources.fetching import resolve_model
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import TokensInfo, load_tokenizer, read_features
from tasks.inference.calibration import Calibration
from tasks.lifecycle.behaviour_gates import judge_behaviour, row_sets
from tasks.params.schema import BaseModelParams, EvaluateParams
from tasks.problems import load_problem
from tasks.reports.stage_reports import (
    BaselineReport,
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
from tasks.training.methods.checkpoints import load_checkpoint
from tasks.training.networks.device import pick_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.core.arrays import Array, Columns, Features, Floats
    from tasks.encoding.encoder import Encoder
    from tasks.problems import Problem

LENGTH = "length (tokens)"


@dataclass(frozen=True)
class SplitOutputs:
    """Raw outputs of a split's rows, their features, and what is right."""

    features: Features
    outputs: Floats
    references: Array


@dataclass(frozen=True)
class ScoredTest:
    """Test outputs after tuned thresholds have decided the labels, and what scoring them takes."""

    problem: Problem
    labels: Sequence[str]
    resampling: Resampling
    outputs: Floats
    references: Array

    def intervals(
        self, rows: Array | None = None, outputs: Floats | None = None
    ) -> dict[str, Interval]:
        """Metrics on some rows (default: all), or of another method's outputs."""
        outputs, references = self.outputs if outputs is None else outputs, self.references
        if rows is not None:
            outputs, references = outputs[rows], references[rows]
        return metric_intervals(
            self.problem.scoring, outputs, references, self.labels, self.resampling
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
    test = read_table(splits / "test.parquet").to_pydict()
    # before the model runs, so that mistakes in params.yaml surface early
    tests = scorer.behaviour_tests(test, labels, evaluate, seed)
    predictor_of = partial(
        TorchPredictor, problem_type.encoding, labels, tokens, pick_device(device)
    )
    predictor = predictor_of(load_checkpoint(problem_type.objective, checkpoint, labels))
    base = None
    if evaluate.baseline and scorer.baseline_is_base:
        base_dir = resolve_model(base_model, root, cache)
        base = predictor_of(_load_base(problem_type, labels, base_dir, seed))

    on_validation = predictor.outputs_of_split("validation", report, (0.0, 0.35))
    on_test = predictor.outputs_of_split("test", report, (0.35, 0.7))
    altered = predictor.outputs_of_rows(
        [rows for test in tests for rows in row_sets(test)], report, (0.7, 0.85)
    )
    calibration = scorer.fit_calibration(
        on_validation.outputs, on_validation.references, labels, out_of_scope
    )
    resampling = Resampling(evaluate.bootstrap_resamples, evaluate.confidence, seed)
    scored = ScoredTest(
        problem_type, labels, resampling, calibration.decide(on_test.outputs), on_test.references
    )
    metrics = scored.intervals()
    details = _details(scored, on_validation, on_test, calibration, out_of_scope)
    report(2, {"progress": 0.87})
    slices = _slices(problem_type, test, on_test.features, evaluate.slices, labels)
    judged_slices = [judge_slice(scored, group, evaluate.min_slice_rows) for group in slices]
    decode = partial(problem_type.decoding.decode, labels=labels, calibration=calibration)
    behaviour = judge_behaviour(scorer, problem_type.decoding, decode, tests, altered, calibration)
    report(3, {"progress": 0.93})
    baseline = None
    if base is not None:
        baseline = compare_baseline(scored, base.outputs(on_test.features, report, (0.93, 0.96)))
    elif evaluate.baseline:
        columns = [*problem_type.rows.columns, *problem_type.rows.derived]
        train = read_table(splits / "train.parquet", columns).to_pydict()
        outputs = scorer.baseline(train, test, labels, seed)
        baseline = None if outputs is None else compare_baseline(scored, outputs)
    answer = only_answer(scorer, problem_type.decoding, scored.outputs, test, labels)
    models = {**({"before": base.model} if base else {}), "after": predictor.model}
    EvaluationReport(
        split="test",
        rows=len(on_test.outputs),
        metric=scorer.metric,
        confidence=evaluate.confidence,
        metrics=metrics,
        validation_metrics=scorer.metrics(
            calibration.decide(on_validation.outputs), on_validation.references, labels
        ),
        **asdict(calibration),
        **details,
        calibration_notes=calibration_notes(
            scorer, on_test.outputs, on_test.references, calibration
        ),
        slices=judged_slices,
        behaviour=behaviour,
        baseline=baseline,
        notes=model_notes(scorer.metric, metrics, len(on_test.outputs), baseline, answer),
        answers=scorer.compare_answers(models, predictor.tokenizer, test, evaluate),
    ).write(evaluation_report)
    report(4, {"progress": 1.0})


def _details(
    scored: ScoredTest,
    validation: SplitOutputs,
    test: SplitOutputs,
    calibration: Calibration,
    out_of_scope: str | None,
) -> dict[str, Any]:
    """`details`, `validation_thresholds` and `calibrated` of the report."""
    scorer, labels = scored.problem.scoring, scored.labels
    thresholds, validation_thresholds = (
        scorer.threshold_details(split.outputs, split.references, labels, calibration, out_of_scope)
        for split in (test, validation)
    )
    details = scorer.details(scored.outputs, scored.references, labels) | thresholds
    return {
        "details": details,
        "validation_thresholds": validation_thresholds,
        "calibrated": calibrate_outputs(
            scored, test.outputs, calibration, details, set(thresholds)
        ),
    }


class TorchPredictor:
    """A loaded model that computes outputs of features or of rows."""

    def __init__(
        self,
        encoder: Encoder,
        labels: Sequence[str],
        tokens: Path,
        device: str,
        model: PreTrainedModel,
    ) -> None:
        info = TokensInfo.read(tokens)
        self.encoder, self.labels, self.tokens, self.device = encoder, labels, tokens, device
        self.pad_token_id = info.pad_token_id
        self.tokenizer = load_tokenizer(tokens / "tokenizer", info.max_length)
        self.model = model.to(device).eval()  # type: ignore[arg-type]  # decorator hides self
        # outputs by features: rows that tokenize alike are computed once
        self.known: dict[str, Array] = {}

    def outputs(self, features: Features, report: Report, progress: tuple[float, float]) -> Floats:
        """Outputs in the rows' order; progress goes from the first share to the second."""
        from tasks.training.networks.torch_outputs import predict_torch

        low, high = progress

        def scaled(step: int, metrics: Mapping[str, float]) -> None:
            report(1, {"progress": low + (high - low) * metrics["progress"]})

        outputs = predict_torch(
            self.model, self.encoder, features, self.pad_token_id, self.device, report=scaled
        )
        if not is_finite(outputs):
            raise TrainingError(
                "models/checkpoint: its outputs are not finite; the training must have diverged.",
                "Lower finetune.learning_rate or finetune.max_grad_norm, "
                "then run `ratchet train` again.",
            )
        self.known.update(zip(_keys(features), outputs, strict=True))
        return outputs

    def outputs_of_split(
        self, split: str, report: Report, progress: tuple[float, float]
    ) -> SplitOutputs:
        """Outputs of a tokenized split."""
        features = read_features(self.tokens / f"{split}.arrow")
        outputs = self.outputs(features, report, progress)
        return SplitOutputs(features, outputs, self.encoder.references(features))

    def outputs_of_rows(
        self, row_sets: Sequence[Columns], report: Report, progress: tuple[float, float]
    ) -> list[Floats]:
        """Outputs of each set of rows; rows already known are not computed again."""
        encoded = [
            encode_rows(self.encoder, self.tokenizer, rows, self.labels) for rows in row_sets
        ]
        missing: dict[str, tuple[Features, int]] = {}
        for features in encoded:
            for row, key in enumerate(_keys(features)):
                if key not in self.known:
                    missing[key] = (features, row)
        if missing:
            names = _inputs(next(iter(missing.values()))[0])
            batch = {
                name: [features[name][row] for features, row in missing.values()] for name in names
            }
            self.outputs(batch, report, progress)
        return [stack_rows([self.known[key] for key in _keys(features)]) for features in encoded]


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
    scored: ScoredTest,
    outputs: Floats,
    calibration: Calibration,
    details: Mapping[str, Any],
    settled: Collection[str],
) -> dict[str, Any]:
    """What calibration changes: metrics that move or where lower is better, details that differ.

    outputs   the model's, before calibration
    settled   names of details computed from calibrated outputs already
    """
    problem, labels, references = scored.problem, scored.labels, scored.references
    scaled = calibration.apply(outputs)
    before = problem.scoring.metrics(outputs, references, labels)
    after = problem.scoring.metrics(scaled, references, labels)
    signs = problem.scoring.metric_signs
    moved = [name for name in before if signs[name] < 0 or before[name] != after[name]]
    changed = {
        name: value
        for name, value in problem.scoring.details(scaled, references, labels).items()
        if name not in settled and value != details[name]
    }
    return {
        **{name: {"before": before[name], "after": after[name]} for name in moved},
        "details": changed,
    }


def judge_slice(scored: ScoredTest, group: Slice, min_rows: int) -> SliceReport:
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
        scorer, (scored.outputs, outputs), scored.references, scored.labels, scored.resampling
    )
    return BaselineReport(
        name=scorer.baseline_name,
        metrics=scored.intervals(outputs=outputs),
        difference=MetricDifference(metric=scorer.metric, **difference),
    )


def _slices(
    problem: Problem,
    test: Columns,
    features: Features,
    columns: Sequence[str],
    labels: Sequence[str],
) -> list[Slice]:
    label = problem.rows.label_column
    names = [name for name in dict.fromkeys(columns) if name != label]
    slices = [group for name in names for group in slice_rows(name, test[name])]
    if label:
        slices += slice_rows(label, test[label], labels)
    return slices + slice_rows(LENGTH, list(map(len, features["input_ids"])))


def _inputs(features: Features) -> list[str]:
    return sorted(set(features) - {"row", "truncated", "references"})


def _keys(features: Features) -> list[str]:
    columns = [features[name] for name in _inputs(features)]
    return [repr(values) for values in zip(*columns, strict=True)]
