"""The stages' reports, as they stand in reports/*.json and in the MLflow run of each version.

A field has a default if reports of earlier releases lack it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict  # pydantic refuses that of typing before Python 3.12

from tasks.core.errors import DamagedError
from tasks.core.files import read_json, write_json


class Interval(TypedDict):
    """A value and the bounds of its confidence interval."""

    value: float
    low: float
    high: float


class StageReport(BaseModel):
    """A report that a stage writes as JSON."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a report; DamagedError if the file is not one."""
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise DamagedError(path, f"'{field}': {first['msg']}") from None

    def write(self, path: Path) -> None:
        """Write the report; ValueError for NaN and infinities, which JSON lacks."""
        write_json(path, self.model_dump())


class CheckReport(BaseModel):
    """Outcome of one check of the data.

    judged      number of rows that the check looked at
    unexpected  number of rows that failed it, and their `share`
    observed    a table's value, for a check of the table as a whole
    examples    the first rows that failed it
    """

    name: str
    type: str
    action: str
    success: bool
    message: str
    judged: int
    unexpected: int
    share: float
    observed: Any
    examples: list[dict[str, Any]]


class ValidationReport(StageReport):
    """Every check's outcome, and a profile of the remaining rows.

    account  what became of the sources' rows so far (data/quality/row_account.py)
    off      checks that are switched off
    profile  statistics of the remaining rows (data/quality/profile.py)
    """

    rows_in: int
    rows_out: int
    quarantined: int
    account: dict[str, Any] | None = None
    checks: list[CheckReport]
    off: list[str]
    profile: dict[str, Any]

    @property
    def failed(self) -> list[CheckReport]:
        """The failed checks whose action is `error`."""
        return [check for check in self.checks if check.action == "error" and not check.success]


class StartReport(BaseModel):
    """The champion that a training continued from.

    labels  what became of the head's labels (training/networks/label_transfer.py)
    rows    rows of the training and those replayed (training/replay.py)
    """

    checkpoint_sha256: str
    labels: dict[str, Any]
    rows: dict[str, Any]


class SelfTrainingReport(BaseModel):
    """What became of the unlabelled rows when the head was solved.

    used           those that took part, the most certain; 0: not shown to help
    metric         of the validation rows
    before, after  its value of the head solved without and with those rows
    gained, lost   validation rows that are right only with them, and only without
    """

    rows: int
    used: int
    metric: str
    before: float
    after: float
    gained: int
    lost: int

    def __str__(self) -> str:
        part = f"the {self.used:,} most certain took part" if self.used else "none took part"
        return (
            f"of {self.rows:,} unlabelled rows {part} in solving the head: {self.metric} on "
            f"validation is {self.after:.4f} with them, {self.before:.4f} without; {self.gained:,} "
            f"rows are right only with them, {self.lost:,} only without"
        )


class LearningCurveReport(BaseModel):
    """What the last doubling of the labelled training rows gained, on the base model as it is.

    rows    labelled training rows
    metric  of the validation rows
    half    its mean over the heads of the two halves of the rows
    full    of the head of all rows
    gain    full - half, with the wider of the two halves' 95% intervals
    """

    rows: int
    metric: str
    half: float
    full: float
    gain: Interval

    def __str__(self) -> str:
        gain, low, high = (self.gain[key] for key in ("value", "low", "high"))
        advice = (
            "another doubling can be expected to gain less than that"
            if low > 0
            else "that is not shown to be a gain, so more rows of this kind may not pay"
        )
        return (
            f"on the base model as it is, all {self.rows:,} labelled training rows give a "
            f"{self.metric} of {self.full:.4f} on validation, half of them {self.half:.4f}: "
            f"{gain:+z.4f} (95% interval {low:+z.4f} to {high:+z.4f}); {advice}"
        )


class TrainingReport(StageReport):
    """Learning curves, what the training started from and what it took.

    curve, evaluations, accumulation and out_of_memory: see training/inputs.py
    steps              steps taken, of the planned `total_steps`
    seconds            of this process only: a resumed run did not train all epochs itself
    peak_memory_mb     likewise; None where it cannot be measured
    self_training      None: off
    learning_curve     None: not measured
    """

    curve: list[dict[str, float]]
    evaluations: list[dict[str, float]]
    best_step: int
    stopped_early: bool
    steps: int
    total_steps: int
    accumulation: int = 1
    out_of_memory: list[dict[str, int]] = []
    self_training: SelfTrainingReport | None = None
    learning_curve: LearningCurveReport | None = None
    device: str
    base_sha256: str
    base_files: dict[str, str] = {}
    start: StartReport | None = None
    method: str = "full"
    seconds: float = 0.0
    seconds_per_epoch: float | None = None
    peak_memory_mb: float | None = None
    parameters: int
    trained_parameters: int


class SliceReport(BaseModel):
    """Metrics of a slice of the test split; none if it has too few rows to be judged."""

    column: str
    value: Any
    rows: int
    metrics: dict[str, Interval]
    judged: bool


class BehaviourReport(BaseModel):
    """Outcome of one behavioural test.

    examples    the first failures
    one_answer  whether the model gives a single answer to all rows of the tests of this kind
    """

    name: str
    kind: str
    rows: int
    passed: int
    pass_rate: float
    examples: list[dict[str, Any]]
    one_answer: bool = False


class ErrorReport(BaseModel):
    """A test row that the checkpoint predicts wrongly.

    confidence  of the prediction; None if the problem type has none
    slices      the row's values in `evaluate.slices`
    file, line  where the row stands in the sources
    """

    texts: dict[str, str]
    actual: str
    predicted: str
    confidence: float | None
    slices: dict[str, str]
    file: str
    line: int


class MetricDifference(BaseModel):
    """The checkpoint's metric minus the baseline's on the same rows, with its paired interval."""

    metric: str
    value: float
    low: float
    high: float


class BaselineReport(BaseModel):
    """Metrics of the plain method, and the checkpoint's lead over it."""

    name: str
    metrics: dict[str, Interval]
    difference: MetricDifference


class EvaluationReport(StageReport):
    """The checkpoint on the test split.

    metric              name of the problem's main metric
    confidence          level of all intervals
    temperature, bias   see tasks.inference.calibration
    details             tables and matrices of the problem type
    calibrated          what calibration changes: metrics `before` and `after`, and `details`
    answers             what a generative model writes, before and after training
    notes               caveats to read before believing the metrics
    errors              the most confident errors, few of each label
    """

    split: str
    rows: int
    metric: str
    confidence: float
    metrics: dict[str, Interval]
    validation_metrics: dict[str, float]
    temperature: float
    bias: list[float] = []
    details: dict[str, Any]
    validation_thresholds: dict[str, Any] = {}
    calibrated: dict[str, Any] = {}
    calibration_notes: list[str] = []
    slices: list[SliceReport]
    behaviour: list[BehaviourReport]
    baseline: BaselineReport | None
    notes: list[str] = []
    errors: list[ErrorReport] = []
    answers: dict[str, Any] | None = None


class MeasuredSpeed(BaseModel):
    """Latency of one row, throughput in rows per second, and tokens per second of a generation."""

    latency_ms_p50: float
    latency_ms_p95: float
    throughput: float
    tokens_per_second: float | None = None


class CheckpointReport(MeasuredSpeed):
    """The PyTorch checkpoint on the validation split."""

    metric: float
    size_bytes: int


class CandidateReport(BaseModel):
    """An export recipe's result on the validation split; None: not measured.

    metric_loss                 the checkpoint's metric minus this one's
    agreement                   share of rows with the checkpoint's answer
    max_probability_difference  to the checkpoint
    max_batch_difference        of a probability, at batch size 1 and in larger batches
    speedup                     over fp32 ONNX: {value, low, high}
    """

    recipe: str
    metric: float | None = None
    metric_loss: float | None = None
    agreement: float | None = None
    max_probability_difference: float | None = None
    max_batch_difference: float | None = None
    size_bytes: int | None = None
    latency_ms_p50: float | None = None
    latency_ms_p95: float | None = None
    throughput: float | None = None
    speedup: dict[str, float | None] | None = None
    verdict: str
    reason: str
    tokens_per_second: float | None = None


class VerificationReport(StageReport):
    """All candidates, and the bundle that ships.

    metric        name of the problem's main metric
    reason        why `shipped` ships
    notes         caveats about the bundle
    test_metrics  the finished bundle's metrics on the test split
    rows          rows used of each split, and for timing
    """

    checkpoint: CheckpointReport
    metric: str
    candidates: list[CandidateReport]
    shipped: str
    reason: str
    notes: list[str] = []
    temperature: float
    bias: list[float] = []
    test_metrics: dict[str, Interval]
    rows: dict[str, int] = {}
    threads: int = 0

    @property
    def shipped_candidate(self) -> CandidateReport:
        """The entry of the recipe that ships."""
        return next(entry for entry in self.candidates if entry.recipe == self.shipped)
