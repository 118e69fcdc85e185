"""How good the checkpoint is: metrics with intervals, by slice, under small changes of the text, and beside a plain method."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from tasks.core.errors import ParamsError, TrainingError, did_you_mean
from tasks.core.files import read_table, write_json
from tasks.core.progress import Report
from tasks.core.ragged import is_finite, stack_rows
from tasks.core.seeds import seed_everything
from tasks.data.sources.fetching import resolve_model
from tasks.encoding.token_files import TokensInfo, load_tokenizer, read_features
from tasks.inference.calibration import Calibration
from tasks.lifecycle.behaviour_gates import judge_behaviour, row_sets
from tasks.params.schema import BaseModelParams, EvaluateParams
from tasks.problems import load_problem
from tasks.scoring.calibration_notes import calibration_notes
from tasks.scoring.model_notes import model_notes
from tasks.scoring.slices import Slice, slice_rows
from tasks.scoring.statistics.bootstrap import (
    Interval,
    Resampling,
    difference_interval,
    metric_intervals,
)
from tasks.scoring.statistics.chance import only_answer
from tasks.training.methods.checkpoints import load_checkpoint
from tasks.training.networks.device import pick_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.core.arrays import Array, Columns, Features, Floats
    from tasks.problems.base import Problem

LENGTH = "length (tokens)"


@dataclass(frozen=True)
class Judged:
    """Outputs of the test rows, with the decisions that tuned thresholds make of them, and all that judging them takes."""

    problem: Problem
    labels: Sequence[str]
    resampling: Resampling
    outputs: Floats
    references: Array

    def intervals(
        self, rows: Array | None = None, outputs: Floats | None = None
    ) -> dict[str, Interval]:
        """Metrics of some rows (default: all), or of another method's outputs."""
        outputs, references = self.outputs if outputs is None else outputs, self.references
        if rows is not None:
            outputs, references = outputs[rows], references[rows]
        return metric_intervals(self.problem, outputs, references, self.labels, self.resampling)


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
    """Write the evaluation of the checkpoint on the test split as JSON.

    Raises ParamsError for a slice column that is not there, and TrainingError if outputs are not finite.
    """
    kind = load_problem(problem)
    check_slice_columns(splits / "test.parquet", evaluate.slices)
    test = read_table(splits / "test.parquet").to_pydict()
    tests = kind.behaviour_tests(
        test, labels, evaluate, seed
    )  # before the model runs: it says what is wrong in params.yaml
    device = pick_device(device)
    predictor = Predictor(kind, labels, tokens, load_checkpoint(kind, checkpoint, labels), device)
    base = None
    if evaluate.baseline and kind.baseline_is_base:
        base = Predictor(
            kind,
            labels,
            tokens,
            _load_base(kind, labels, resolve_model(base_model, root, cache), seed),
            device,
        )

    validation = read_features(tokens / "validation.arrow")
    validation_references = kind.references(validation)
    validation_outputs = predictor.outputs(validation, report, (0.0, 0.35))
    features = read_features(tokens / "test.arrow")
    outputs = predictor.outputs(features, report, (0.35, 0.7))
    altered = predictor.outputs_of_rows(
        [rows for test in tests for rows in row_sets(test)], report, (0.7, 0.85)
    )

    resampling = Resampling(evaluate.bootstrap_resamples, evaluate.confidence, seed)
    references = kind.references(features)
    calibration = kind.fit_calibration(
        validation_outputs, validation_references, labels, out_of_scope
    )
    judged = Judged(kind, labels, resampling, calibration.decide(outputs), references)
    thresholds = kind.threshold_details(outputs, references, labels, calibration, out_of_scope)
    found: dict[str, Any] = {
        "split": "test",
        "rows": len(outputs),
        "metric": kind.metric,
        "confidence": evaluate.confidence,
        "metrics": judged.intervals(),
        "validation_metrics": kind.metrics(
            calibration.decide(validation_outputs), validation_references, labels
        ),
        **asdict(calibration),
        "details": kind.details(judged.outputs, references, labels) | thresholds,
        "validation_thresholds": kind.threshold_details(
            validation_outputs, validation_references, labels, calibration, out_of_scope
        ),
    }
    found["calibrated"] = calibrate_outputs(
        judged, outputs, calibration, found["details"], set(thresholds)
    )
    found["calibration_notes"] = calibration_notes(kind, outputs, references, calibration)
    report(2, {"progress": 0.87})
    slices = _slices(kind, test, features, evaluate.slices, labels)
    found["slices"] = [judge_slice(judged, part, evaluate.min_slice_rows) for part in slices]
    found["behaviour"] = judge_behaviour(kind, labels, tests, altered, calibration)
    report(3, {"progress": 0.93})
    plain = None
    if base is not None:
        plain = base.outputs(features, report, (0.93, 0.96))
    elif evaluate.baseline:
        train = read_table(splits / "train.parquet", [*kind.columns, *kind.derived]).to_pydict()
        plain = kind.baseline(train, test, labels, seed)
    found["baseline"] = None if plain is None else compare_baseline(judged, plain)
    found["notes"] = model_notes(found, only_answer(kind, judged.outputs, test, labels))
    models = {**({"before": base.model} if base else {}), "after": predictor.model}
    found["answers"] = kind.compare_answers(models, predictor.tokenizer, test, evaluate)
    write_json(evaluation_report, found)
    report(4, {"progress": 1.0})


class Predictor:
    """A model, ready to put out what it makes of features or rows."""

    def __init__(
        self,
        problem: Problem,
        labels: Sequence[str],
        tokens: Path,
        model: PreTrainedModel,
        device: str,
    ) -> None:
        info = TokensInfo.read(tokens)
        self.problem, self.labels, self.device = problem, labels, device
        self.pad_token_id = info.pad_token_id
        self.tokenizer = load_tokenizer(tokens / "tokenizer", info.max_length)
        self.model = model.to(device).eval()
        self.known: dict[
            str, Array
        ] = {}  # outputs by features: what tokenizes alike is computed once

    def outputs(self, features: Features, report: Report, progress: tuple[float, float]) -> Floats:
        """Outputs in the rows' order; progress goes from the first share to the second."""
        from tasks.training.networks.torch_outputs import predict_torch

        low, high = progress

        def scaled(step: int, metrics: Mapping[str, float]) -> None:
            report(1, {"progress": low + (high - low) * metrics["progress"]})

        outputs = predict_torch(
            self.model, self.problem, features, self.pad_token_id, self.device, report=scaled
        )
        if not is_finite(outputs):
            raise TrainingError(
                "models/checkpoint: its outputs are not finite numbers, the training must have diverged.",
                "Lower finetune.learning_rate or finetune.max_grad_norm, then run `ratchet train` again.",
            )
        self.known.update(zip(_keys(features), outputs, strict=True))
        return outputs

    def outputs_of_rows(
        self, row_sets: Sequence[Columns], report: Report, progress: tuple[float, float]
    ) -> list[Floats]:
        """Outputs of each set of rows; only what is not known yet is computed."""
        encoded = [self.problem.encode(self.tokenizer, rows, self.labels) for rows in row_sets]
        missing: dict[str, tuple[Features, int]] = {}
        for features in encoded:
            for row, key in enumerate(_keys(features)):
                if key not in self.known:
                    missing[key] = (features, row)
        if missing:
            names = _inputs(next(iter(missing.values()))[0])
            self.outputs(
                {
                    name: [features[name][row] for features, row in missing.values()]
                    for name in names
                },
                report,
                progress,
            )
        return [stack_rows([self.known[key] for key in _keys(features)]) for features in encoded]


def _load_base(kind: Problem, labels: Sequence[str], directory: Path, seed: int) -> PreTrainedModel:
    """The base model as training starts from it: where it has no head, that is drawn."""
    seed_everything(seed)
    return kind.load_model(directory, labels)


def check_slice_columns(table: Path, columns: Sequence[str]) -> None:
    """ParamsError that names every slice column which the rows do not have."""
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
    judged: Judged,
    outputs: Floats,
    calibration: Calibration,
    details: Mapping[str, Any],
    settled: Collection[str],
) -> dict[str, Any]:
    """What the calibration changes: metrics where lower is better or that move, and the details that differ.

    outputs   as the model puts them out
    settled   names of details that are those of the calibrated outputs already
    """
    kind, labels, references = judged.problem, judged.labels, judged.references
    scaled = calibration.apply(outputs)
    before, after = (
        kind.metrics(outputs, references, labels),
        kind.metrics(scaled, references, labels),
    )
    moved = [name for name in before if kind.metric_signs[name] < 0 or before[name] != after[name]]
    changed = kind.details(scaled, references, labels)
    return {
        **{name: {"before": before[name], "after": after[name]} for name in moved},
        "details": {
            name: value
            for name, value in changed.items()
            if name not in settled and value != details[name]
        },
    }


def judge_slice(judged: Judged, part: Slice, min_rows: int) -> dict[str, Any]:
    """A slice with its metrics; one with fewer than `min_rows` rows is counted, not judged."""
    entry = {
        "column": part.column,
        "value": part.value,
        "rows": len(part.rows),
        "metrics": {},
        "judged": len(part.rows) >= min_rows,
    }
    if entry["judged"]:
        found = judged.intervals(part.rows)
        by_label = part.column == judged.problem.label_column
        names = judged.problem.label_metrics if by_label else None
        entry["metrics"] = {
            name: interval for name, interval in found.items() if names is None or name in names
        }
    return entry


def compare_baseline(judged: Judged, outputs: Floats) -> dict[str, Any]:
    """The metrics of a plain method's outputs, and by how much the model is better."""
    kind = judged.problem
    pair = (judged.outputs, outputs)
    return {
        "name": kind.baseline_name,
        "metrics": judged.intervals(outputs=outputs),
        "difference": {
            "metric": kind.metric,
            **difference_interval(kind, pair, judged.references, judged.labels, judged.resampling),
        },
    }


def _slices(
    problem: Problem,
    test: Columns,
    features: Features,
    columns: Sequence[str],
    labels: Sequence[str],
) -> list[Slice]:
    found = [
        part
        for name in dict.fromkeys(columns)
        if name != problem.label_column
        for part in slice_rows(name, test[name])
    ]
    if problem.label_column:
        found += slice_rows(problem.label_column, test[problem.label_column], labels)
    return found + slice_rows(LENGTH, list(map(len, features["input_ids"])))


def _inputs(features: Features) -> list[str]:
    return sorted(set(features) - {"row", "truncated", "references"})


def _keys(features: Features) -> list[str]:
    return [
        repr(values) for values in zip(*(features[name] for name in _inputs(features)), strict=True)
    ]
