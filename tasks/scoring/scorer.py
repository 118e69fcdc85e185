"""The metrics of a problem type, and everything else that judges its outputs.

`outputs` are float32, rows first; missing positions are NaN. `references` are of the type's
Encoder. Both have the same rows in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tasks.core.arrays import Array, Bools, Columns, Floats, Indices
from tasks.inference.calibration import Calibration
from tasks.scoring.behaviour import BehaviourTest
from tasks.scoring.statistics.draws import Resampled

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from tasks.params.schema import EvaluateParams


class Scorer(Protocol):
    """The part of a problem type that evaluation, comparison and the gates use.

    metric            of the metrics, higher is better: chooses recipes, and checkpoints by default
    metric_signs      names of `metrics`: 1 where higher is better, -1 where lower is
    label_metrics     metrics that mean something over rows of a single label; None: all
    baseline_name     of the method of `baseline`
    baseline_is_base  the baseline is the base model before training, not `baseline`
    """

    @property
    def metric(self) -> str: ...
    @property
    def metric_signs(self) -> Mapping[str, int]: ...
    @property
    def label_metrics(self) -> tuple[str, ...] | None: ...
    @property
    def baseline_name(self) -> str: ...
    @property
    def baseline_is_base(self) -> bool: ...

    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        """Headline metrics, scalars; all but `metric` may be missing where these rows have none."""
        ...

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        """Function that computes `metrics` of resamples of these rows, with whole `clusters`."""
        ...

    def clusters(self, references: Array) -> Indices | None:
        """(n,) ids of groups of dependent rows, which are resampled whole; None: no groups."""
        ...

    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        """What does not fit in a scalar (per class, confusion, reliability), as JSON values."""
        ...

    def threshold_details(
        self,
        outputs: Floats,
        references: Array,
        labels: Sequence[str],
        calibration: Calibration,
        out_of_scope: str | None,
    ) -> dict[str, Any]:
        """Details of the thresholds that the calibration's bias encodes; they override `details`.

        outputs  raw, before calibration
        """
        ...

    def fit_calibration(
        self, outputs: Floats, references: Array, labels: Sequence[str], out_of_scope: str | None
    ) -> Calibration:
        """Temperature that maximizes likelihood (Guo et al. 2017) and biases that tune decisions.

        out_of_scope  the label that means "none of the others"
        """
        ...

    def calibration_loss(self, outputs: Floats, references: Array) -> float | None:
        """Mean negative log-likelihood, nats, which the temperature lowers; None: there is none."""
        ...

    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        """(share of equal predictions, largest difference of a probability) of two models."""
        ...

    def correct(self, outputs: Floats, references: Array) -> Bools:
        """(n,): which rows are predicted correctly."""
        ...

    def align_labels(self, outputs: Floats, labels: Sequence[str], wanted: Sequence[str]) -> Floats:
        """Outputs for `labels` as outputs for `wanted`, a superset; new labels get low scores."""
        ...

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        """Outputs for `test` of a plain method trained on `train`; None: there is none."""
        ...

    def behaviour_tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        """Behavioural tests made of test rows and of params.yaml; ParamsError for unusable ones."""
        ...

    def compare_answers(
        self,
        models: Mapping[str, PreTrainedModel],
        tokenizer: Tokenizer,
        rows: Columns,
        evaluate: EvaluateParams,
    ) -> dict[str, Any] | None:
        """Answers that each model generates and their scores, as JSON; None: it generates none."""
        ...
