"""Sections of params.yaml for promotion, retraining and notification; no stage reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.params.section import Positive, Section, Share

Ratio = Annotated[float, Field(gt=0)]


class PassRates(Section):
    """Share of behavioural test cases that must pass, by type of test; null: not required."""

    invariance: Share | None = 0.8  # small edits that keep the answer
    directional: Share | None = 0.8  # additions that move a probability one way
    minimum_functionality: Share | None = 0.5  # plain texts


class PromotionParams(Section):
    """Requirements for a challenger to become champion; null: not required.

    A limit is violated if the whole confidence interval of the measurement lies beyond it.
    """

    metric: str | None = None  # a metric where higher is better; null: the problem's main metric
    min_value: float | None = None  # the metric's whole interval on the test rows must reach it
    # non-inferiority: the lower bound of the difference must be above -margin
    margin: Annotated[float, Field(gt=0, le=1)] = 0.02
    # superiority: the lower bound must be above this; 0: any proven improvement
    min_improvement: Annotated[float, Field(ge=0, le=1)] | None = None
    # one-sided, spent over all looks at the same test rows
    significance: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    # looks at the same test rows after which `ratchet status` asks for fresh ones
    max_looks: Positive = 20
    resamples: Annotated[int, Field(ge=1000, le=100_000)] = 10_000  # of the paired bootstrap
    # the forgetting budget: largest drop of a slice's accuracy or an old class's recall
    max_slice_fall: Share = 0.03
    # exceptions to max_slice_fall, by slice: 'domain=tweets' or 'label=positive'
    slice_falls: dict[str, Share] = Field(default={})
    min_slice_rows: Positive = 20  # smaller slices are counted, not judged
    # share of validation labels on which the shipped bundle and its checkpoint agree
    min_agreement: Share | None = 0.95
    max_ece: Share | None = 0.1  # expected calibration error on the test rows
    max_latency_ms_p95: Ratio | None = None  # for one row
    max_latency_ratio: Ratio | None = 1.5  # p95 relative to the champion's, measured side by side
    min_throughput: Ratio | None = None  # rows per second, in batches of 32
    max_size_mb: Ratio | None = None  # of the bundle
    min_pass_rates: PassRates = PassRates()
    # whether a dirty commit, or data that is on no remote, fails the gate instead of warning
    strict_lineage: bool = False
    # manual: the flow waits for a person's decision (`ratchet approve`)
    approval: Literal["auto", "manual"] = "auto"
    approval_hours: Ratio = 24.0  # without a decision by then, the promotion is refused


class NewDataTrigger(Section):
    """New rows in the sources since the last training."""

    enabled: bool = True
    min_rows: Positive = 100  # new rows that call for training


class DriftTrigger(Section):
    """Drift of recent inputs from the training rows."""

    enabled: bool = False
    # Parquet or JSONL, a file or a folder of them; `ratchet predict --log` writes there
    inputs: str = ".ratchet/inputs"
    significance: Annotated[float, Field(gt=0, lt=0.5)] = 0.01  # family-wise, over all tests
    min_rows: Positive = 200  # with fewer recent inputs nothing is tested
    max_rows: Positive = 5000  # random sample size on each side
    min_effect: Share = 0.1  # smaller differences are ignored, however significant


class PerformanceTrigger(Section):
    """The champion's performance on rows labelled since its training."""

    enabled: bool = False
    labelled: str | None = None  # CSV, TSV, JSONL or Parquet with the problem's columns
    max_fall: Share = 0.02  # of the problem's metric, from the champion's value on the test rows
    min_rows: Positive = 100


class AgeTrigger(Section):
    """Time since the champion was trained."""

    enabled: bool = False
    max_days: Ratio = 30.0  # since the champion was registered


class RetrainParams(Section):
    """Triggers for retraining."""

    new_data: NewDataTrigger = NewDataTrigger()
    drift: DriftTrigger = DriftTrigger()
    performance: PerformanceTrigger = PerformanceTrigger()
    age: AgeTrigger = AgeTrigger()


class NotifyParams(Section):
    """Who is notified of a failure, besides RATCHET_WEBHOOK in the environment."""

    blocks: tuple[str, ...] = ()  # Prefect notification blocks, such as slack-webhook/ops
