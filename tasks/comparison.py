"""Compare shipped bundles on the same test rows: paired statistics, slices, calibration, speed.

Each bundle runs in its own process, with its own tokenizer and temperature. The bundles are timed
in turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.arrays import Array, Bools, Floats, Indices
from tasks.core.errors import BundleError, DataError
from tasks.core.files import read_table
from tasks.core.progress import Report
from tasks.data.duplicates.normalization import digests, normalize_rows, positions
from tasks.encoding.encoder import encode_rows
from tasks.inference.bundle import BundleInfo, open_bundle
from tasks.inference.predictor import Predictor
from tasks.inference.session import take_rows
from tasks.params.labels import canonical_labels
from tasks.problems import Problem, load_problem
from tasks.scoring.slices import Slice, slice_rows
from tasks.scoring.statistics.alpha_spending import fingerprint_rows, sketch_rows
from tasks.scoring.statistics.bootstrap import Resampling, metric_intervals
from tasks.scoring.statistics.paired import (
    accuracy_difference,
    discordant,
    holm,
    mcnemar,
    mcnemar_less,
    metric_differences,
)
from tasks.shipping.timing import Timings, time_turn, turns
from tasks.shipping.workers import Worker, WorkerError, answer_questions, report_refusal

LENGTH = "length (characters)"
TIMED_ROWS = 256


@dataclass(frozen=True)
class TestRows:
    """The test rows that models are compared on.

    fingerprint  digest of their texts
    sketch       their sketch_rows (tasks/scoring/statistics/alpha_spending.py)
    """

    __test__ = False  # pytest would collect the class as a test

    problem: Problem
    labels: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]
    slices: tuple[str, ...]
    fingerprint: str
    sketch: list[str]

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class Scored:
    """One bundle on the test rows; `outputs` are calibrated, in the order of TestRows.labels."""

    info: BundleInfo
    outputs: Floats
    references: Array
    timings: Timings = field(default_factory=Timings)


def read_test_rows(
    file: Path, problem: str, labels: Sequence[str], slices: Sequence[str]
) -> TestRows:
    """Read a test.parquet; DataError if it is missing or has fewer than two rows."""
    remedy = "Run `ratchet train`, which splits the data, then compare again."
    if not file.is_file():
        raise DataError(f"{file}: there are no test rows to compare on.", remedy)
    table = read_table(file)
    if len(table) < 2:
        count = "no rows" if not len(table) else "only one row"
        raise DataError(f"{file}: the test split has {count}; comparing takes at least 2.", remedy)
    problem_type = load_problem(problem)
    texts = [table[column] for column in problem_type.rows.text_columns]
    hashes = positions(digests(normalize_rows(texts)))
    present = tuple(
        name
        for name in slices
        if name in table.column_names and name != problem_type.rows.label_column
    )
    return TestRows(
        problem_type,
        tuple(labels),
        table.to_pydict(),
        present,
        fingerprint_rows(hashes),
        sketch_rows(hashes),
    )


def check_problem(bundles: Mapping[str, BundleInfo], problem: str) -> None:
    """Raise BundleError if a bundle has another problem type."""
    for name, info in bundles.items():
        if info.problem != problem:
            raise BundleError(
                f"{name}: a bundle of problem '{info.problem}'; this workspace's is '{problem}'.",
                "Compare models of one problem type.",
            )


def known_labels(info: BundleInfo) -> tuple[str, ...]:
    """A bundle's labels in canonical form; old bundles hold 'True' or '1.0' for 'true' or '1'."""
    return canonical_labels(info.labels, merge=False)


def check_labels(first: BundleInfo, second: BundleInfo) -> None:
    """Raise DataError unless one bundle's labels contain the other's."""
    first_labels, second_labels = set(known_labels(first)), set(known_labels(second))
    if not (first_labels <= second_labels or second_labels <= first_labels):
        raise DataError(
            f"{first.directory} and {second.directory} know different labels: "
            f"only the first has {sorted(first_labels - second_labels)}, "
            f"only the second {sorted(second_labels - first_labels)}.",
            "Compare models with the same labels, or where one knows all labels of the other.",
        )


def all_labels(labels: Sequence[str], bundles: Sequence[BundleInfo]) -> tuple[str, ...]:
    """The workspace's labels, then the labels that only the bundles know."""
    return tuple(
        dict.fromkeys([*labels, *(label for info in bundles for label in known_labels(info))])
    )


def score_bundles(
    bundles: Mapping[str, BundleInfo], test_file: Path, rows: TestRows, seed: int, report: Report
) -> dict[str, Scored]:
    """Run every bundle on the test rows, then time the bundles in turns."""
    timed_rows = np.random.default_rng(seed).permutation(rows.count)[:TIMED_ROWS].tolist()
    rounds = turns(timed_rows)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = {}
        for name, info in bundles.items():
            setting = {
                "bundle": str(info.directory),
                "sha256": info.sha256,
                "test": str(test_file),
                "labels": rows.labels,
            }
            workers[name] = Worker("tasks.comparison", setting)
            stack.callback(workers[name].close)
        scored = {}
        for done, (name, worker) in enumerate(workers.items(), 1):
            scored[name] = _ask_outputs(bundles[name], worker, scratch / f"{done}.npz")
            report(done, {"progress": 0.5 * done / len(workers)})
        for done, turn in enumerate(rounds, 1):
            for name in workers if done % 2 else reversed(workers):
                scored[name].timings.add(_ask(bundles[name], workers[name], do="turn", rows=turn))
            report(len(workers) + done, {"progress": 0.5 + 0.5 * done / len(rounds)})
    return scored


def describe_model(scored: Scored, rows: TestRows, resampling: Resampling) -> dict[str, Any]:
    """One bundle on its own: metrics with intervals, calibration, speed, size."""
    info, problem = scored.info, rows.problem
    details = problem.scoring.details(scored.outputs, scored.references, rows.labels)
    return {
        "recipe": info.recipe,
        "labels": list(info.labels),
        "size_bytes": info.size_bytes,
        **scored.timings.summary(),
        **scored.timings.ranges(),
        "metrics": metric_intervals(
            problem.scoring, scored.outputs, scored.references, rows.labels, resampling
        ),
        "details": details,
    }


def compare_scored(
    first: Scored, second: Scored, rows: TestRows, resampling: Resampling, min_slice_rows: int
) -> dict[str, Any]:
    """Compare first to second, as plain JSON values.

    `slices` holds p-values of a fall in accuracy, corrected for the number of slices.
    """
    problem, references = rows.problem, first.references
    differences = metric_differences(
        problem.scoring, (first.outputs, second.outputs), references, rows.labels, resampling
    )
    first_right = problem.scoring.correct(first.outputs, references)
    second_right = problem.scoring.correct(second.outputs, references)
    only_first, only_second = discordant(first_right, second_right)
    agreement, probability_difference = problem.scoring.agreement(first.outputs, second.outputs)
    known = set(known_labels(second.info))
    old_labels = [label for label in rows.labels if label in known]
    return {
        "metrics": {name: asdict(difference) for name, difference in differences.items()},
        "mcnemar": {
            "only_first": only_first,
            "only_second": only_second,
            "p_value": mcnemar(only_first, only_second),
        },
        "agreement": agreement,
        "max_probability_difference": probability_difference,
        **first.timings.latency_p95_ratio_to(second.timings),
        "speedup": round(first.timings.speedup_over(second.timings).value, 3),
        "slices": _compare_slices(
            _slices(rows, old_labels),
            (first_right, second_right),
            resampling,
            problem.rows.label_column,
            min_slice_rows,
        ),
    }


def _slices(rows: TestRows, old_labels: Sequence[str]) -> list[Slice]:
    """Slices by column, text length and label.

    Labels unknown to the second model are left out: what it never learnt cannot be forgotten.
    """
    problem, columns = rows.problem, rows.columns
    slices = [group for name in rows.slices for group in slice_rows(name, columns[name])]
    if label := problem.rows.label_column:
        by_label = slice_rows(label, columns[label], rows.labels)
        slices += [group for group in by_label if group.value in old_labels]
    texts = [columns[name] for name in problem.rows.text_columns]
    lengths = [sum(len(str(text[row])) for text in texts) for row in range(rows.count)]
    return slices + slice_rows(LENGTH, lengths)


def _compare_slices(
    slices: Sequence[Slice],
    right: tuple[Bools, Bools],
    resampling: Resampling,
    label_column: str | None,
    min_rows: int,
) -> list[dict[str, Any]]:
    """Difference on every slice; fall p-values are corrected among labels and others separately.

    A label is judged however few rows it has: a class must not be forgotten because it is rare,
    or because it is tested together with many domains.
    """
    compared: list[dict[str, Any]] = []
    for group in slices:
        first, second = (rows[group.rows] for rows in right)
        compared.append(
            {
                "column": group.column,
                "value": group.value,
                "rows": len(group.rows),
                "difference": asdict(accuracy_difference(first, second, resampling)),
                "fall_p": mcnemar_less(*discordant(first, second)),
            }
        )
    for is_label in (True, False):
        family = [entry for entry in compared if (entry["column"] == label_column) == is_label]
        for entry in family:
            entry["judged"] = is_label or entry["rows"] >= min_rows
        judged = [entry for entry in family if entry["judged"]]
        adjusted = holm([entry["fall_p"] for entry in judged])
        for entry, p_value in zip(judged, adjusted, strict=True):
            entry["fall_p_adjusted"] = p_value
    return compared


def _ask_outputs(info: BundleInfo, worker: Worker, file: Path) -> Scored:
    _ask(info, worker, do="outputs", file=str(file))
    with np.load(file, allow_pickle=False) as arrays:
        return Scored(info, arrays["outputs"], arrays["references"])


def _ask(info: BundleInfo, worker: Worker, **question: str | list[int]) -> dict[str, Any]:
    try:
        return worker.ask(**question)
    except WorkerError as error:
        raise BundleError(
            f"{info.directory}: cannot be run: {error}.",
            "Its files are intact; is the machine short of memory?",
        ) from None


def _serve(setting: Mapping[str, Any]) -> None:
    """Serve one bundle's outputs and timings; runs in a process of its own."""
    with report_refusal():
        info = open_bundle(Path(setting["bundle"]), registered=setting["sha256"])
    problem, labels = load_problem(info.problem), setting["labels"]
    predictor = Predictor(info, problem)
    table = read_table(Path(setting["test"]), [*problem.rows.columns, *problem.rows.derived])
    features = encode_rows(problem.encoding, predictor.tokenizer, table.to_pydict(), labels)
    pad = info.settings.pad_token_id

    def outputs(file: str) -> dict[str, Any]:
        calibrated = info.settings.calibration.apply(predictor.outputs_of_features(features))
        aligned = problem.scoring.align_labels(calibrated, known_labels(info), labels)
        np.savez(file, outputs=aligned, references=problem.encoding.references(features))
        return {}

    def turn(rows: list[int]) -> dict[str, Any]:
        def run(chosen: Indices) -> Floats:
            return predictor.model.run(problem.encoding.collate(take_rows(features, chosen), pad))

        return time_turn(run, rows)

    answer_questions({"outputs": outputs, "turn": turn})


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
