"""Encoding of one or several texts that an encoder reads together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Array, Columns, Features, Floats, Indices
from tasks.encoding.padding import encode_texts, pad_features

if TYPE_CHECKING:
    import numpy.typing as npt
    from tokenizers import Tokenizer

INFERENCE_TOKENS = 8192  # padded tokens of a batch that PyTorch computes outside of training


@dataclass(frozen=True)
class TextEncoder:
    """An Encoder (tasks/encoding/encoder.py) of texts, one output a row.

    answers  (rows, labels) -> one reference a row; None where the rows have no answers
    dtype    of the references
    width    numbers in a reference of fixed size; None: one number, or as many as there are labels
    """

    text_columns: tuple[str, ...]
    answers: Callable[[Columns, Sequence[str]], list[Any] | None]
    dtype: npt.DTypeLike
    width: int | None = None
    batch_tokens: int = INFERENCE_TOKENS
    random_inputs: bool = False

    def encode(self, tokenizer: Tokenizer, rows: Columns) -> Features:
        return encode_texts(tokenizer, [rows[column] for column in self.text_columns])

    def encode_answers(self, rows: Columns, labels: Sequence[str]) -> Features:
        answers = self.answers(rows, labels)
        return {} if answers is None else {"references": answers}

    def collate(self, features: Features, pad_token_id: int) -> dict[str, Indices]:
        return pad_features(features, pad_token_id)

    def references(self, features: Features) -> Array:
        references = np.asarray(features["references"], self.dtype)
        return references.reshape(-1, self.width) if self.width else references

    def training_batch(
        self, features: Features, pad_token_id: int
    ) -> tuple[dict[str, Array], Array]:
        return {**self.collate(features, pad_token_id)}, self.references(features)

    def reduce(self, outputs: Floats, features: Features) -> Floats:
        return outputs
