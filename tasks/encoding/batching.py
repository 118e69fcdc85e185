"""Batches of rows of similar length, which keeps padding low."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tasks.core.arrays import Indices

# rows are sorted by length within pools of this many batches: enough to pad under 3% on short
# texts, few enough to keep batches random
POOL_BATCHES = 64


def training_batches(lengths: Indices, batch_size: int, *, seed: int, epoch: int) -> list[Indices]:
    """Split the rows into random batches of similar length; every row occurs once.

    lengths  (rows,) tokens of each row
    The order depends on (seed, epoch) alone, so a resumed run sees the same batches.
    """
    rng = np.random.default_rng((seed, epoch))
    shuffled = rng.permutation(len(lengths))
    batches: list[Indices] = []
    pool_rows = batch_size * POOL_BATCHES
    for start in range(0, len(shuffled), pool_rows):
        pool = shuffled[start : start + pool_rows]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def paired_batches(
    lengths: Indices, classes: Indices, batch_size: int, *, seed: int, epoch: int
) -> list[Indices]:
    """Like `training_batches`, but a row has another of its class beside it, if there is one.

    classes  (rows,) class of each row
    At the edge of a batch a pair may be parted.
    """
    rng = np.random.default_rng((seed, epoch))
    shuffled = rng.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    groups: list[Indices] = []  # pairs; of an odd number, one has three rows
    for rows in np.split(by_class, np.flatnonzero(np.diff(classes[by_class])) + 1):
        groups += np.array_split(rows, max(1, len(rows) // 2))
    groups = [groups[i] for i in rng.permutation(len(groups))]
    pool = batch_size * POOL_BATCHES // 2
    by_length = [
        sorted(groups[start : start + pool], key=lambda rows: int(lengths[rows].max()))
        for start in range(0, len(groups), pool)
    ]
    order = np.concatenate([rows for groups in by_length for rows in groups])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def inference_batches(lengths: Indices, max_tokens: int, max_rows: int) -> Iterator[Indices]:
    """Yield every row once, shortest first, in batches of at most `max_rows` rows.

    max_tokens  limit on a batch's tokens, padding included; a single longer row is still a batch
    """
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
