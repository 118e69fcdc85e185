"""Shingles (character 5-grams) of texts, and each text's prefix in a global order of shingles.

Prefix filtering (Chaudhuri et al. 2006; Xiao et al. 2011, PPJoin): under any global order, two sets
of similarity t or more share one of their first few shingles, so only texts that do need comparing.
The order puts the rarest shingles first, which leaves few texts to compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHINGLE = 5  # characters
SIZE_BITS = 16  # lowest bits of a key: the size of the text's set
LATE = np.uint64(1 << SIZE_BITS)  # next bit of a key: see Prefixes
_TOKEN_BITS = 41
_TEXT_BITS = 16  # a text's number within its batch
_COUNTERS = 2**22  # a power of 2
MAX_TEXTS = 2**_TEXT_BITS  # per batch
MAX_CHARACTERS = 2**20  # per batch, approximately

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Prefixes:
    """The first few shingles of some texts, and facts about each text's whole set.

    keys     (entries,) from the high bits to the low: the shingle's rank in the global order;
             LATE if it comes too late to matter for a larger partner; the size of the set
    owners   (entries,) the text's number among them, ascending
    sizes    (texts,) number of distinct shingles
    bitmaps  (texts,) parity of the number of shingles, by their last 6 bits
    """

    keys: U64
    owners: I32
    sizes: I32
    bitmaps: U64

    def of(self, texts: npt.NDArray[np.bool_]) -> Prefixes:
        """The prefixes of the selected texts, renumbered from 0."""
        entries = texts[self.owners]
        numbers = np.cumsum(texts, dtype=np.int32) - 1
        return Prefixes(
            self.keys[entries],
            numbers[self.owners[entries]],
            self.sizes[texts],
            self.bitmaps[texts],
        )


def shingles(text: str) -> frozenset[str]:
    """The distinct character 5-grams; a shorter text is its own single shingle."""
    return frozenset(text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity: size of the intersection over size of the union, in [0, 1]."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def count_shingles(texts: Sequence[str]) -> I64:
    """(_COUNTERS,) counts of shingles by the last bits of their hashes; additive over texts."""
    tokens, _ = _tokens(texts)
    return np.bincount((tokens & np.uint64(_COUNTERS - 1)).astype(np.int64), minlength=_COUNTERS)


def rarity(counts: I64) -> U64:
    """The global order's first key, from `count_shingles`: a lower level is rarer.

    All texts must share it, but a rough estimate of what is rare is enough.
    """
    levels: U64 = np.minimum(np.log2(np.maximum(counts, 1)) * 2, 63).astype(np.uint64)
    return levels


def make_prefixes(texts: Sequence[str], levels: U64, similarity: float) -> Prefixes:
    """Prefixes of at most MAX_TEXTS texts, in time linear in their length.

    levels       from `rarity`
    similarity   threshold in (0, 1]
    """
    tokens, lengths = _tokens(texts)
    order = (levels[tokens & np.uint64(_COUNTERS - 1)] << np.uint64(_TOKEN_BITS)) | tokens
    batch_text = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    ordered = np.sort((batch_text << np.uint64(64 - _TEXT_BITS)) | order)
    distinct = ordered[
        np.concatenate((np.ones(min(1, len(ordered)), bool), ordered[1:] != ordered[:-1]))
    ]
    number: I64 = (distinct >> np.uint64(64 - _TEXT_BITS)).astype(np.int64)
    sizes: I64 = np.bincount(number, minlength=len(lengths)).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    parities = np.uint64(1) << (distinct & np.uint64(63))
    bitmaps: U64 = np.bitwise_xor.reduceat(parities, starts) if len(texts) else parities
    late, early = _prefix_lengths(sizes, similarity)
    positions = ranges(starts, late)
    owners: I32 = number[positions].astype(np.int32)
    too_late = np.where(positions - starts[owners] < early[owners], np.uint64(0), LATE)
    rank = distinct[positions] & np.uint64(2 ** (64 - _TEXT_BITS) - 1)
    return Prefixes(
        rank << np.uint64(SIZE_BITS + 1) | too_late | clipped(sizes)[owners],
        owners,
        sizes.astype(np.int32),
        bitmaps,
    )


def _tokens(texts: Sequence[str]) -> tuple[U64, I64]:
    """The hashes of all shingles, text by text, and the number of shingles of each text."""
    padding = "\0" * (SHINGLE - 1)  # gives a short text a window too
    codes = np.frombuffer(
        (padding.join(texts) + padding).encode("utf-32-le", "surrogatepass"), np.uint32
    ).astype(np.uint64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    counts = np.maximum(1, lengths - SHINGLE + 1)
    starts = np.cumsum(lengths + len(padding)) - (lengths + len(padding))
    shingle_starts = ranges(starts, counts)
    windows = len(codes) - SHINGLE + 1
    rolling = np.zeros(windows, np.uint64)
    for i in range(SHINGLE):
        rolling *= np.uint64(0x9E3779B97F4A7C15)
        rolling += codes[i : i + windows]
    tokens = rolling[shingle_starts]
    # splitmix64's finalizer: every bit of the result depends on every character
    tokens = (tokens ^ (tokens >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    tokens = (tokens ^ (tokens >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (tokens ^ (tokens >> np.uint64(31))) >> np.uint64(64 - _TOKEN_BITS), counts


def ranges(starts: I64, counts: I64) -> I64:
    """Concatenated ranges: start, start + 1, …, `count` numbers for each start."""
    ends = np.cumsum(counts)
    offsets = np.repeat(starts - (ends - counts), counts)
    numbers: I64 = np.arange(ends[-1] if len(ends) else 0, dtype=np.int64) + offsets
    return numbers


def _prefix_lengths(sizes: I64, similarity: float) -> tuple[I64, I64]:
    """Prefix lengths needed to find a smaller partner, and one at least as large."""
    slack = 1e-9  # rounding must not make a prefix too short
    late = sizes - np.ceil(similarity * sizes - slack).astype(np.int64) + 1
    early = sizes - np.ceil(2 * similarity / (1 + similarity) * sizes - slack).astype(np.int64) + 1
    return np.minimum(late, sizes), np.minimum(early, sizes)


def clipped(sizes: I64) -> U64:
    """Sizes clipped to the SIZE_BITS of a key."""
    size_bits: U64 = np.clip(sizes, 0, 2**SIZE_BITS - 1).astype(np.uint64)
    return size_bits
