"""Shipped bundles on the same test rows: paired statistics, slices, calibration, and speed side by side.

Each bundle runs in a process of its own, with its own tokenizer and temperature; speed is taken in turns, so that a busy machine
slows all of them alike.
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

from tasks.core.arrays import Array, Bools, Floats
from tasks.core.errors import BundleError, DataError
from tasks.core.files import read_table
from tasks.core.progress import Report
from tasks.data.duplicates.normalization import digests, normalize_rows, positions
from tasks.inference.bundle import BundleInfo, open_bundle
from tasks.inference.predictor import Predictor
from tasks.inference.session import take_rows
from tasks.params.labels import canonical_labels
from tasks.problems import load_problem
from tasks.problems.base import Problem
from tasks.scoring.slices import Slice, slice_rows
from tasks.scoring.statistics.alpha_spending import fingerprint_rows, sketch_rows
from tasks.scoring.statistics.bootstrap import Resampling, metric_intervals
from tasks.scoring.statistics.paired import (
    accuracy_difference,
    discordant,
    fall_p_value,
    holm,
    mcnemar,
    metric_differences,
)
from tasks.shipping.timing import Timings, time_turn, turns
from tasks.shipping.workers import Worker, WorkerError, answer_questions, tell_refusal

LENGTH = "length (characters)"
TIMED_ROWS = 256


@dataclass(frozen=True)
class TestRows:
    """The rows that judge.

    fingerprint  digest of their texts
    sketch       of tasks.scoring.statistics.alpha_spending
    """

    __test__ = False  # for pytest, which takes it for a test

    problem: Problem
    labels: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]
    slices: tuple[str, ...]
    fingerprint: str
    sketch: list[str]

    @property
    def count(self) -> int:
        """How many they are."""
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class Scored:
    """One bundle on the test rows; `outputs` are calibrated, in the order of the rows' labels."""

    info: BundleInfo
    outputs: Floats
    references: Array
    timings: Timings = field(default_factory=Timings)


def read_test_rows(
    file: Path, problem: str, labels: Sequence[str], slices: Sequence[str]
) -> TestRows:
    """The rows of a test.parquet; DataError where there are none."""
    remedy = "Run `ratchet train`, which splits the data, then compare again."
    if not file.is_file():
        raise DataError(f"{file}: there are no test rows to compare on.", remedy)
    table = read_table(file)
    if len(table) < 2:
        count = "no rows" if not len(table) else "one row only"
        raise DataError(
            f"{file}: the test split has {count}, there is nothing to compare on.", remedy
        )
    kind = load_problem(problem)
    found = positions(digests(normalize_rows([table[column] for column in kind.text_columns])))
    present = tuple(
        name for name in slices if name in table.column_names and name != kind.label_column
    )
    return TestRows(
        kind, tuple(labels), table.to_pydict(), present, fingerprint_rows(found), sketch_rows(found)
    )


def check_problem(bundles: Mapping[str, BundleInfo], problem: str) -> None:
    """BundleError for a bundle of another problem type."""
    for name, info in bundles.items():
        if info.problem != problem:
            raise BundleError(
                f"{name}: a bundle of the problem '{info.problem}', this workspace is '{problem}'.",
                "Compare models of one problem type.",
            )


def known_labels(info: BundleInfo) -> tuple[str, ...]:
    """A bundle's labels in the one form that rows have: an older one may know 'True' or '1.0' for 'true' or '1'."""
    return canonical_labels(info.labels, merge=False)


def check_labels(first: BundleInfo, second: BundleInfo) -> None:
    """DataError unless one of the two knows every label of the other."""
    ours, theirs = set(known_labels(first)), set(known_labels(second))
    if not (ours <= theirs or theirs <= ours):
        raise DataError(
            f"{first.directory} and {second.directory} know different labels: only the first has {sorted(ours - theirs)}, "
            f"only the second {sorted(theirs - ours)}.",
            "Compare models whose labels are the same, or where one has learnt more than the other.",
        )


def all_labels(labels: Sequence[str], bundles: Sequence[BundleInfo]) -> tuple[str, ...]:
    """The workspace's labels, then those that only a bundle knows."""
    return tuple(
        dict.fromkeys([*labels, *(label for info in bundles for label in known_labels(info))])
    )


def score_bundles(
    bundles: Mapping[str, BundleInfo], test_file: Path, rows: TestRows, seed: int, report: Report
) -> dict[str, Scored]:
    """Outputs of every bundle, and the speed of each, taken in turns."""
    drawn = np.random.default_rng(seed).permutation(rows.count)[:TIMED_ROWS].tolist()
    rounds = turns(drawn)
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
    """One bundle by itself: metrics with intervals, calibration, speed, size."""
    info, kind = scored.info, rows.problem
    details = kind.details(scored.outputs, scored.references, rows.labels)
    return {
        "recipe": info.recipe,
        "labels": list(info.labels),
        "size_bytes": info.size_bytes,
        **scored.timings.summary(),
        **scored.timings.ranges(),
        "metrics": metric_intervals(
            kind, scored.outputs, scored.references, rows.labels, resampling
        ),
        "details": details,
    }


def compare_scored(
    first: Scored, second: Scored, rows: TestRows, resampling: Resampling, min_slice_rows: int
) -> dict[str, Any]:
    """First against second, as plain JSON values; `slices` hold the p-values of a fall, corrected for their number."""
    kind, references = rows.problem, first.references
    differences = metric_differences(
        kind, (first.outputs, second.outputs), references, rows.labels, resampling
    )
    ours, theirs = kind.right(first.outputs, references), kind.right(second.outputs, references)
    only_first, only_second = discordant(ours, theirs)
    agreement, moved = kind.agreement(first.outputs, second.outputs)
    known = set(known_labels(second.info))
    old = [label for label in rows.labels if label in known]
    return {
        "metrics": {name: asdict(difference) for name, difference in differences.items()},
        "mcnemar": {
            "only_first": only_first,
            "only_second": only_second,
            "p_value": mcnemar(only_first, only_second),
        },
        "agreement": agreement,
        "max_probability_difference": moved,
        **first.timings.latency_p95_ratio_to(second.timings),
        "speedup": round(first.timings.speedup_over(second.timings).value, 3),
        "slices": _compare_slices(
            _slices(rows, old), (ours, theirs), resampling, kind.label_column, min_slice_rows
        ),
    }


def _slices(rows: TestRows, old_labels: Sequence[str]) -> list[Slice]:
    """By column, by length, and by the labels that the second model knows; what it never learnt cannot be forgotten."""
    kind, columns = rows.problem, rows.columns
    found = [part for name in rows.slices for part in slice_rows(name, columns[name])]
    if kind.label_column:
        found += [
            part
            for part in slice_rows(kind.label_column, columns[kind.label_column], rows.labels)
            if part.value in old_labels
        ]
    lengths = [
        sum(len(str(columns[name][row])) for name in kind.text_columns) for row in range(rows.count)
    ]
    return found + slice_rows(LENGTH, lengths)


def _compare_slices(
    slices: Sequence[Slice],
    right: tuple[Bools, Bools],
    resampling: Resampling,
    label_column: str | None,
    min_rows: int,
) -> list[dict[str, Any]]:
    """Every slice's difference; p-values of a fall are corrected among the labels, and among the other slices.

    A label is judged however few its rows are: a class must not be forgotten because it is rare, or looked at beside many domains.
    """
    compared: list[dict[str, Any]] = []
    for part in slices:
        first, second = (rows[part.rows] for rows in right)
        found = {"column": part.column, "value": part.value, "rows": len(part.rows)}
        difference = asdict(accuracy_difference(first, second, resampling))
        compared.append(
            {**found, "difference": difference, "fall_p": fall_p_value(*discordant(first, second))}
        )
    for is_label in (True, False):
        family = [entry for entry in compared if (entry["column"] == label_column) == is_label]
        for entry in family:
            entry["judged"] = is_label or entry["rows"] >= min_rows
        judged = [entry for entry in family if entry["judged"]]
        for entry, adjusted in zip(
            judged, holm([entry["fall_p"] for entry in judged]), strict=True
        ):
            entry["fall_p_adjusted"] = adjusted
    return compared


def _ask_outputs(info: BundleInfo, worker: Worker, file: Path) -> Scored:
    _ask(info, worker, do="outputs", file=str(file))
    with np.load(file, allow_pickle=False) as found:
        return Scored(info, found["outputs"], found["references"])


def _ask(info: BundleInfo, worker: Worker, **question: str | list[int]) -> dict[str, Any]:
    try:
        return worker.ask(**question)
    except WorkerError as error:
        raise BundleError(
            f"{info.directory}: cannot be run: {error}.",
            "Its files are as they were made; is the machine short of memory?",
        ) from None


def _serve(setting: Mapping[str, Any]) -> None:
    """A bundle's own process."""
    with tell_refusal():
        info = open_bundle(Path(setting["bundle"]), registered=setting["sha256"])
    kind, wanted = load_problem(info.problem), setting["labels"]
    predictor = Predictor(info, kind)
    names = [*kind.columns, *kind.derived]
    features = kind.encode(
        predictor.tokenizer, read_table(Path(setting["test"]), names).to_pydict(), wanted
    )
    pad = info.settings.pad_token_id

    def outputs(file: str) -> dict[str, Any]:
        found = kind.align(
            info.settings.calibration.apply(predictor.outputs_of_features(features)),
            known_labels(info),
            wanted,
        )
        np.savez(file, outputs=found, references=kind.references(features))
        return {}

    def turn(rows: list[int]) -> dict[str, Any]:
        return time_turn(
            lambda chosen: predictor.model.run(kind.collate(take_rows(features, chosen), pad)), rows
        )

    answer_questions({"outputs": outputs, "turn": turn})


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
