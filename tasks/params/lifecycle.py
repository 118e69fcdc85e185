"""Sections of params.yaml that decide what becomes champion and when to train again; no stage reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.params.section import Positive, Section, Share

Ratio = Annotated[float, Field(gt=0)]


class PassRates(Section):
    """Shares of the behavioural tests' texts that must pass, by kind of test; null: not asked."""

    invariance: Share | None = 0.8
    directional: Share | None = 0.8
    minimum_functionality: Share | None = 0.5


class PromotionParams(Section):
    """What a challenger must show before it becomes champion; null: not asked.

    A limit is broken where the whole interval of what was measured lies beyond it.
    """

    metric: str | None = None  # one of the problem's where more is better; null: its own
    min_value: float | None = (
        None  # the whole interval of the metric on the test rows must be at least this
    )
    margin: Annotated[float, Field(gt=0, le=1)] = (
        0.02  # non-inferiority: the lower bound of the difference must be above -margin
    )
    min_improvement: Annotated[float, Field(ge=0, le=1)] | None = (
        None  # the lower bound must be above this; 0: shown to be better
    )
    significance: Annotated[float, Field(gt=0, lt=0.5)] = (
        0.05  # one-sided, spent over all looks at the same test rows
    )
    max_looks: Positive = (
        20  # judgements by the same test rows after which `ratchet status` asks for fresh ones
    )
    resamples: Annotated[int, Field(ge=1000, le=100_000)] = 10_000  # of the paired bootstrap
    max_slice_fall: Share = (
        0.03  # of a slice's accuracy, or of an old class's recall: the forgetting budget
    )
    slice_falls: dict[str, Share] = Field(
        default={}
    )  # 'domain=tweets' or 'label=positive': allowance, where it differs
    min_slice_rows: Positive = 20  # smaller slices are counted, not judged
    min_agreement: Share | None = (
        0.95  # of labels, what ships against its checkpoint, on validation
    )
    max_ece: Share | None = 0.1  # expected calibration error on the test rows
    max_latency_ms_p95: Ratio | None = None  # of one row
    max_latency_ratio: Ratio | None = 1.5  # p95 against the champion's, side by side
    min_throughput: Ratio | None = None  # rows a second in batches of 32
    max_size_mb: Ratio | None = None
    min_pass_rates: PassRates = PassRates()
    strict_lineage: bool = (
        False  # a dirty commit, or data that no remote has, fails the gate; else it is a warning
    )
    approval: Literal["auto", "manual"] = (
        "auto"  # manual: the flow waits for a person's word (`ratchet approve`)
    )
    approval_hours: Ratio = 24.0  # after which the answer is no


class NewDataTrigger(Section):
    """Rows in the sources that the last training did not have."""

    enabled: bool = True
    min_rows: Positive = 100


class DriftTrigger(Section):
    """Recent inputs against the rows trained on."""

    enabled: bool = False
    inputs: str = ".ratchet/inputs"  # Parquet or JSONL, a file or a folder of them; `ratchet predict --log` writes there
    significance: Annotated[float, Field(gt=0, lt=0.5)] = 0.01  # over all the tests together
    min_rows: Positive = 200  # fewer recent inputs say nothing
    max_rows: Positive = 5000  # of each side, drawn at random
    min_effect: Share = 0.1  # differences smaller than this do not count, however significant


class PerformanceTrigger(Section):
    """The champion on rows that were labelled since."""

    enabled: bool = False
    labelled: str | None = None  # CSV, TSV, JSONL or Parquet with the problem's columns
    max_fall: Share = 0.02  # of the problem's metric, from the champion's on the test rows
    min_rows: Positive = 100


class AgeTrigger(Section):
    """How long ago the champion was trained."""

    enabled: bool = False
    max_days: Ratio = 30.0


class RetrainParams(Section):
    """What calls for training again."""

    new_data: NewDataTrigger = NewDataTrigger()
    drift: DriftTrigger = DriftTrigger()
    performance: PerformanceTrigger = PerformanceTrigger()
    age: AgeTrigger = AgeTrigger()


class NotifyParams(Section):
    """Who is told of a failure. RATCHET_WEBHOOK in the environment is told too."""

    blocks: tuple[str, ...] = ()  # Prefect notification blocks, such as slack-webhook/ops
