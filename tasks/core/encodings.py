"""Texts, or several texts together, to token ids, and token ids to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.problems.base import Features

PADDED = {"token_type_ids": 0}  # further inputs that are lists as long as `input_ids`, and what pads them


def encode_texts(tokenizer: Tokenizer, columns: Sequence[Sequence[str]]) -> Features:
    """`input_ids` and `truncated` of rows of one text, or of two that the model reads together; of what is too long the longer is cut.

    columns   one or two, each (n,)
    `token_type_ids`, which tell the second text from the first, are there where the tokenizer makes a difference between them
    (tasks.tokenization lets it make none for models that know none).
    """
    if len(columns) == 1:
        encodings = tokenizer.encode_batch_fast(list(columns[0]))
    else:
        encodings = tokenizer.encode_batch_fast(list(zip(*columns, strict=True)))
    features: Features = {
        "input_ids": [encoding.ids for encoding in encodings],
        "truncated": [bool(encoding.overflowing) for encoding in encodings],
    }
    if len(columns) > 1 and any(any(encoding.type_ids) for encoding in encodings):
        features["token_type_ids"] = [encoding.type_ids for encoding in encodings]
    return features


def pad_features(features: Features, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
    """One padded batch of model inputs, (rows, longest) each."""
    token_ids = features["input_ids"]
    shape = len(token_ids), max(map(len, token_ids))
    batch = {"input_ids": np.full(shape, pad_token_id, np.int64), "attention_mask": np.zeros(shape, np.int64)}
    batch |= {name: np.full(shape, padding, np.int64) for name, padding in PADDED.items() if name in features}
    for row, ids in enumerate(token_ids):
        batch["attention_mask"][row, : len(ids)] = 1
        for name, padded in batch.items():
            if name != "attention_mask":
                padded[row, : len(ids)] = features[name][row]
    return batch
