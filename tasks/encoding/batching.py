"""Batches of rows of similar length, so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# rows are sorted within pools of this many batches: enough to pad under 3% on short texts, few enough to stay random
from tasks.core.arrays import Indices

POOL_BATCHES = 64


def training_batches(lengths: Indices, batch_size: int, *, seed: int, epoch: int) -> list[Indices]:
    """Every row once, in random batches of rows of similar length.

    lengths  (rows,) tokens of each row
    The order rests on (seed, epoch) alone, so that a resumed run sees the batches it would have seen.
    """
    draw = np.random.default_rng((seed, epoch))
    shuffled = draw.permutation(len(lengths))
    batches: list[Indices] = []
    pool_rows = batch_size * POOL_BATCHES
    for start in range(0, len(shuffled), pool_rows):
        pool = shuffled[start : start + pool_rows]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in draw.permutation(len(batches))]


def inference_batches(lengths: Indices, max_tokens: int, max_rows: int) -> Iterator[Indices]:
    """Every row once, shortest first, in batches of at most `max_rows` rows and, padded, `max_tokens` tokens (one row at least)."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        full = (
            end == len(order)
            or end - start == max_rows
            or (end - start + 1) * lengths[order[end]] > max_tokens
        )
        if full:
            yield order[start:end]
            start = end
