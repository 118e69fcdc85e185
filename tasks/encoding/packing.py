"""Sequence packing: several texts share a row, which saves padding short ones beside a long one.

Two inputs keep the texts apart: `attention_mask`, (rows, 1, tokens, tokens), is added to the
attention scores (0 where a token may attend, very low elsewhere); `position_ids` restart with
each text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tasks.core.arrays import Array

UNSEEN = np.finfo(np.float32).min / 2  # halved: other masks may be added to it
PADDING = -1  # text number of padding tokens

Rows = list[list[int]]


def plan_rows(lengths: Sequence[int]) -> Rows:
    """Assign texts to rows as long as the longest text: first fit, longest text first."""
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
    """(rows, longest): the per-token values of each text, laid out by row."""
    packed = np.full((len(rows), max(map(len, values))), fill, np.int64)
    for row, texts in enumerate(rows):
        flat = [value for text in texts for value in values[text]]
        packed[row, : len(flat)] = flat
    return packed


def pack_inputs(
    token_ids: Sequence[Sequence[int]], rows: Rows, pad_token_id: int
) -> dict[str, Array]:
    """Model inputs of the packed texts."""
    lengths = list(map(len, token_ids))
    owners = pack_values([[text] * length for text, length in enumerate(lengths)], rows, PADDING)
    positions = np.arange(owners.shape[1])
    visible = (owners[:, :, None] == owners[:, None, :]) & (positions[:, None] >= positions)
    return {
        "input_ids": pack_values(token_ids, rows, pad_token_id),
        "position_ids": pack_values([range(length) for length in lengths], rows, 0),
        "attention_mask": np.where(visible, 0, UNSEEN).astype(np.float32)[:, None],
    }
