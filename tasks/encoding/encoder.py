"""The tensors of a problem type: rows to features to padded batches, and outputs back to rows.

Features are lists of token ids and references, by name. A batch is features padded to one length.
Outputs are float32 with the rows on the first axis; where rows differ in length, missing positions
are NaN (core/ragged.py). References are the right answers, in the shape that scoring expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.core.arrays import Array, Columns, Features, Floats, Indices


OUTPUT_NAME = "logits"  # of the models' outputs and of their ONNX graphs


class Collator(Protocol):
    """What running a model on features takes.

    batch_tokens  padded tokens that one batch may have outside of training
    """

    @property
    def batch_tokens(self) -> int: ...

    def collate(self, features: Features, pad_token_id: int) -> dict[str, Indices]:
        """One padded batch of model inputs, (rows, longest); without references."""
        ...

    def reduce(self, outputs: Floats, features: Features) -> Floats:
        """What is kept of a batch's outputs, rows first; `collate` made the batch of `features`."""
        ...


class Encoder(Collator, Protocol):
    """The part of a problem type that tokenization, training and inference use.

    random_inputs  `training_batch` makes different inputs of the same row each time
    """

    @property
    def random_inputs(self) -> bool: ...

    def encode(self, tokenizer: Tokenizer, rows: Columns) -> Features:
        """Rows to features, in order: `input_ids`, `truncated` (bool) and other model inputs.

        The tokenizer truncates as configured and does not pad. Answers are not needed; where inputs
        and answers are the same tokens (language models), `references` are among the features.
        """
        ...

    def encode_answers(self, rows: Columns, labels: Sequence[str]) -> Features:
        """`references` of rows that have answers; no features where they have none."""
        ...

    def references(self, features: Features) -> Array:
        """References as an array, rows first."""
        ...

    def training_batch(
        self, features: Features, pad_token_id: int
    ) -> tuple[dict[str, Array], Array]:
        """(model inputs, targets of the loss) of some rows; may draw from torch's global RNG."""
        ...


def encode_rows(
    encoder: Encoder, tokenizer: Tokenizer, rows: Columns, labels: Sequence[str]
) -> Features:
    """Features of rows, with `references` where the rows have answers."""
    return encoder.encode(tokenizer, rows) | encoder.encode_answers(rows, labels)
