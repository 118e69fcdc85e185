"""Several texts in one row, so that short ones do not train on padding beside a long one; no token sees another text's.

What keeps texts apart is `attention_mask`, (rows, 1, tokens, tokens), which is added to the attention: 0 where a token may look, very
low elsewhere; and `position_ids`, which begin anew with each text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tasks.core.arrays import Array

UNSEEN = np.finfo(np.float32).min / 2  # half: other masks may be added
PADDING = -1  # the number of the text that padding is of

Rows = list[list[int]]


def plan_rows(lengths: Sequence[int]) -> Rows:
    """Which texts share a row as long as the longest text: each, the longest first, goes into the first row that has room."""
    room: list[int] = []
    rows: Rows = []
    for text in sorted(range(len(lengths)), key=lambda text: (-lengths[text], text)):
        row = next((row for row, left in enumerate(room) if left >= lengths[text]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(max(lengths))
        rows[row].append(text)
        room[row] -= lengths[text]
    return rows


def pack_values(values: Sequence[Sequence[int]], rows: Rows, fill: int) -> npt.NDArray[np.int64]:
    """(rows, longest) of what each token of each text has."""
    packed = np.full((len(rows), max(map(len, values))), fill, np.int64)
    for row, texts in enumerate(rows):
        flat = [value for text in texts for value in values[text]]
        packed[row, : len(flat)] = flat
    return packed


def pack_inputs(
    token_ids: Sequence[Sequence[int]], rows: Rows, pad_token_id: int
) -> dict[str, Array]:
    """Model inputs of packed texts."""
    lengths = list(map(len, token_ids))
    of_text = pack_values([[text] * length for text, length in enumerate(lengths)], rows, PADDING)
    places = np.arange(of_text.shape[1])
    seen = (of_text[:, :, None] == of_text[:, None, :]) & (places[:, None] >= places)
    return {
        "input_ids": pack_values(token_ids, rows, pad_token_id),
        "position_ids": pack_values([range(length) for length in lengths], rows, 0),
        "attention_mask": np.where(seen, 0, UNSEEN).astype(np.float32)[:, None],
    }
