"""Predictions of a problem type: raw outputs to what users see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.core.arrays import Columns, Floats
    from tasks.encoding.dialogues import Turn
    from tasks.encoding.encoder import Encoder
    from tasks.inference.calibration import Calibration


class Decoder(Protocol):
    """The part of a problem type that makes predictions of outputs.

    has_kv_cache  the ONNX graph can continue from a cache of keys and values (graphs/decoder.py)
    """

    @property
    def has_kv_cache(self) -> bool: ...

    def output_labels(self, labels: Sequence[str]) -> Sequence[str]:
        """Names of the model's outputs along the last axis; none where they have no names."""
        ...

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        """Predictions as users see them, one mapping of JSON values a row; `rows`: the inputs."""
        ...

    def name_tokens(self, prediction: dict[str, Any], tokenizer: Tokenizer) -> None:
        """Replace token ids in one of `decode`'s predictions by tokens, in place."""
        ...

    def prompts(self, rows: Columns) -> list[Sequence[Turn]]:
        """Dialogues to answer, one a row, empty where there is none; [] if a type never answers."""
        ...

    def predicted_labels(self, prediction: Mapping[str, Any]) -> list[str]:
        """The classes in a prediction."""
        ...

    def describe(self, prediction: Mapping[str, Any]) -> str:
        """A prediction on one line, for people."""
        ...

    def prediction_example(self, labels: Sequence[str]) -> dict[str, Any] | None:
        """A prediction with every optional part, to infer types from; None: all have all."""
        ...

    def example(self) -> dict[str, list[Any]]:
        """Input rows without answers, for the model's signature."""
        ...


class PredictingProblem(Protocol):
    """What a Predictor needs to know of a problem type."""

    @property
    def name(self) -> str: ...
    @property
    def encoding(self) -> Encoder: ...
    @property
    def decoding(self) -> Decoder: ...
