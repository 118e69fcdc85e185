"""Encode texts and text pairs to token ids; pad token ids to batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.core.arrays import Features

# further inputs as long as `input_ids`, with their padding values
PADDED = {"token_type_ids": 0}


def encode_texts(tokenizer: Tokenizer, columns: Sequence[Sequence[str]]) -> Features:
    """`input_ids` and `truncated` of single texts or text pairs; truncation cuts the longer text.

    columns   one or two, each (n,)
    `token_type_ids`, which tell the second text from the first, are included if the tokenizer
    sets them (tasks.tokenization turns them off for models that do not use them).
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


def pad_rows(rows: Sequence[Sequence[int]], fill: int) -> npt.NDArray[np.int64]:
    """(rows, longest), padded on the right."""
    padded = np.full((len(rows), max(map(len, rows), default=0)), fill, np.int64)
    for row, values in enumerate(rows):
        padded[row, : len(values)] = values
    return padded


def pad_features(features: Features, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
    """One padded batch of model inputs, (rows, longest) each."""
    token_ids = features["input_ids"]
    input_ids, lengths = pad_rows(token_ids, pad_token_id), np.asarray(list(map(len, token_ids)))
    attention_mask = (np.arange(input_ids.shape[1]) < lengths[:, None]).astype(np.int64)
    further = {
        name: pad_rows(features[name], padding)
        for name, padding in PADDED.items()
        if name in features
    }
    return {"input_ids": input_ids, "attention_mask": attention_mask, **further}
