"""The shingles of texts, character 5-grams, and the first few of each text in an order that all texts share.

Prefix filtering (Chaudhuri et al. 2006; Xiao et al. 2011, PPJoin): in any order of all shingles, two sets of similarity t or more
share one of their first few, so only texts that do need comparing. The rarest stand first, which leaves few to compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHINGLE = 5  # characters
SIZE_BITS = 16  # of a key, the lowest
LATE = np.uint64(1 << SIZE_BITS)  # the bit of a key above them
_TOKEN_BITS = 41
_TEXT_BITS = 16  # a text's number among those that are prepared together
_COUNTERS = 2**22  # a power of 2
MAX_TEXTS = 2**_TEXT_BITS  # prepared together
MAX_CHARACTERS = 2**20  # nearly so many of them

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Prefixes:
    """The first few shingles of some texts, with what is known of each text's whole set.

    keys     (entries,) a shingle's place in the common order; whether it stands too late to matter for a larger partner; the set's size
    owners   (entries,) the text's number among them, ascending
    sizes    (texts,) distinct shingles;  bitmaps  (texts,) parity of the shingles by their last 6 bits
    """

    keys: U64
    owners: I32
    sizes: I32
    bitmaps: U64

    def of(self, texts: npt.NDArray[np.bool_]) -> Prefixes:
        """Those of some of the texts, numbered anew."""
        entries = texts[self.owners]
        numbers = np.cumsum(texts, dtype=np.int32) - 1
        return Prefixes(
            self.keys[entries],
            numbers[self.owners[entries]],
            self.sizes[texts],
            self.bitmaps[texts],
        )


def shingles(text: str) -> frozenset[str]:
    """The distinct character 5-grams; a shorter text is its own."""
    return frozenset(text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union, in [0, 1]."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def count_shingles(texts: Sequence[str]) -> I64:
    """How often the shingles occur, by the last bits of their hashes; the counts of all texts add up."""
    tokens, _ = _tokens(texts)
    return np.bincount((tokens & np.uint64(_COUNTERS - 1)).astype(np.int64), minlength=_COUNTERS)


def rarity(counts: I64) -> U64:
    """The common order's first criterion. It has to be the same for all texts, but a rough idea of what is rare is enough."""
    levels: U64 = np.minimum(np.log2(np.maximum(counts, 1)) * 2, 63).astype(np.uint64)
    return levels


def make_prefixes(texts: Sequence[str], levels: U64, similarity: float) -> Prefixes:
    """Prepare at most MAX_TEXTS texts; linear in their length, `similarity` in (0, 1]."""
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
    where = ranges(starts, late)
    owners: I32 = number[where].astype(np.int32)
    too_late = np.where(where - starts[owners] < early[owners], np.uint64(0), LATE)
    place = distinct[where] & np.uint64(2 ** (64 - _TEXT_BITS) - 1)
    return Prefixes(
        place << np.uint64(SIZE_BITS + 1) | too_late | clipped(sizes)[owners],
        owners,
        sizes.astype(np.int32),
        bitmaps,
    )


def _tokens(texts: Sequence[str]) -> tuple[U64, I64]:
    """The tokens of all shingles, text after text, and how many each text has."""
    padding = "\0" * (SHINGLE - 1)  # so that a short text has a window too
    codes = np.frombuffer(
        (padding.join(texts) + padding).encode("utf-32-le", "surrogatepass"), np.uint32
    ).astype(np.uint64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    counts = np.maximum(1, lengths - SHINGLE + 1)
    starts = np.cumsum(lengths + len(padding)) - (lengths + len(padding))
    where = ranges(starts, counts)
    windows = len(codes) - SHINGLE + 1
    rolling = np.zeros(windows, np.uint64)
    for i in range(SHINGLE):
        rolling *= np.uint64(0x9E3779B97F4A7C15)
        rolling += codes[i : i + windows]
    tokens = rolling[where]
    # splitmix64's finish: every bit of the result depends on every character
    tokens = (tokens ^ (tokens >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    tokens = (tokens ^ (tokens >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (tokens ^ (tokens >> np.uint64(31))) >> np.uint64(64 - _TOKEN_BITS), counts


def ranges(starts: I64, counts: I64) -> I64:
    """start, start + 1, … for each start, `count` of them, one after the other."""
    ends = np.cumsum(counts)
    every: I64 = np.arange(ends[-1] if len(ends) else 0, dtype=np.int64) + np.repeat(
        starts - (ends - counts), counts
    )
    return every


def _prefix_lengths(sizes: I64, similarity: float) -> tuple[I64, I64]:
    """How many first shingles matter: for a partner that is smaller, and for one that is not."""
    slack = 1e-9  # rounding must not make a prefix too short
    late = sizes - np.ceil(similarity * sizes - slack).astype(np.int64) + 1
    early = sizes - np.ceil(2 * similarity / (1 + similarity) * sizes - slack).astype(np.int64) + 1
    return np.minimum(late, sizes), np.minimum(early, sizes)


def clipped(sizes: I64) -> U64:
    """Sizes as keys hold them."""
    found: U64 = np.clip(sizes, 0, 2**SIZE_BITS - 1).astype(np.uint64)
    return found
