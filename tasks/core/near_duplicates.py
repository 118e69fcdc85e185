"""Texts that are nearly the same: Jaccard similarity of their character 5-grams, found without comparing every pair, and none missed.

Prefix filtering (Chaudhuri et al. 2006; Xiao et al. 2011, PPJoin): in any order of all shingles, two sets of similarity t or more
share one of their first few, so only texts that do are compared. The rarest shingles stand first, which leaves few to compare.
Unlike MinHash it finds every pair; a bitmap of each set (Sandes et al. 2020) turns most of the others away before they are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

SHINGLE = 5  # characters
_TOKEN_BITS = 42
_SIZE_BITS = 16
_BATCH_CHARACTERS = 2**20
_THREADS = min(4, os.cpu_count() or 1)
_BATCH_TEXTS = 2**16  # a text's number in its batch has to fit beside a token
_COUNTERS = 2**22  # a power of 2
_COUNTED_TEXTS = 200_000  # nearly so many of the texts are counted
_TABLE_BITS = (22, 27)  # least and most
_CHUNK_PAIRS = 2**21
_CHUNK_ENTRIES = 2**21
_MAX_PAIRS = 200_000_000  # candidates looked at in one call, all together
_FIRST_LOOK = 64  # candidates of each text looked at first: in a crowd of look-alikes that settles it

_U64 = npt.NDArray[np.uint64]
_I64 = npt.NDArray[np.int64]
_I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Prefixes:
    """The first few shingles of each text, in the common order, with what is known of its whole set.

    keys     (entries,) a shingle's place in the common order, then the size of the set
    owners   (entries,) the text's number, ascending
    early    (entries,) bool: also among the fewer shingles that matter for a larger partner
    sizes    (texts,) distinct shingles;  bitmaps  (texts,) parity of the shingles by their last 6 bits
    """

    texts: Sequence[str]
    similarity: float
    keys: _U64
    owners: _I32
    early: npt.NDArray[np.bool_]
    sizes: _I64
    bitmaps: _U64


@dataclass(frozen=True)
class Match:
    """A text (by its number) and one that it resembles; `partner` is None where too many had to be compared to tell."""

    text: int
    partner: int | None
    similarity: float


def shingles(text: str) -> frozenset[str]:
    """The distinct character 5-grams; a shorter text is its own."""
    return frozenset(text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union, in [0, 1]."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def make_prefixes(texts: Sequence[str], similarity: float) -> Prefixes:
    """Prepare texts for `find_matches`; linear in their length, `similarity` in (0, 1]."""
    starts = _batch_starts(texts)
    batches = [texts[start:stop] for start, stop in pairwise(starts)]
    counts = np.zeros(_COUNTERS, np.int64)
    # numpy lets go of the interpreter's lock while it computes
    with ThreadPoolExecutor(_THREADS) as pool:
        # the order has to be the same for all texts, but a rough idea of what is rare is enough
        every = max(1, len(texts) // _COUNTED_TEXTS)
        for count in pool.map(lambda batch: _count_tokens(batch[::every]), batches):
            counts += count
        levels = np.minimum(np.log2(np.maximum(counts, 1)) * 2, 63).astype(np.uint64)
        parts = list(pool.map(lambda first, batch: _batch_prefixes(first, batch, levels, similarity), starts, batches))
    keys, owners, early, sizes, bitmaps = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Prefixes(texts, similarity, keys, owners, early, sizes, bitmaps)


def _batch_starts(texts: Sequence[str]) -> list[int]:
    """Numbers of the texts that batches start with, and the number of texts."""
    starts = [0]
    characters = 0
    for i, text in enumerate(texts):
        if i > starts[-1] and (characters + len(text) > _BATCH_CHARACTERS or i - starts[-1] >= _BATCH_TEXTS):
            starts.append(i)
            characters = 0
        characters += len(text)
    return [*starts, len(texts)]


def _count_tokens(texts: Sequence[str]) -> _I64:
    tokens, _ = _tokens(texts)
    return np.bincount((tokens & np.uint64(_COUNTERS - 1)).astype(np.int64), minlength=_COUNTERS)


def _tokens(texts: Sequence[str]) -> tuple[_U64, _I64]:
    """The tokens of all shingles, text after text, and how many each text has."""
    padding = "\0" * (SHINGLE - 1)  # so that a short text has a window too
    codes = np.frombuffer((padding.join(texts) + padding).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    counts = np.maximum(1, lengths - SHINGLE + 1)
    starts = np.cumsum(lengths + len(padding)) - (lengths + len(padding))
    where = _ranges(starts, counts)
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


def _ranges(starts: _I64, counts: _I64) -> _I64:
    """start, start + 1, … for each start, `count` of them, one after the other."""
    ends = np.cumsum(counts)
    every: _I64 = np.arange(ends[-1] if len(ends) else 0, dtype=np.int64) + np.repeat(starts - (ends - counts), counts)
    return every


def _batch_prefixes(
    first: int, texts: Sequence[str], levels: _U64, similarity: float
) -> tuple[_U64, _I32, npt.NDArray[np.bool_], _I64, _U64]:
    tokens, lengths = _tokens(texts)
    order = (levels[tokens & np.uint64(_COUNTERS - 1)] << np.uint64(_TOKEN_BITS)) | tokens
    batch_text = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    ordered = np.sort((batch_text << np.uint64(64 - _SIZE_BITS)) | order)
    distinct = ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]
    number: _I64 = (distinct >> np.uint64(64 - _SIZE_BITS)).astype(np.int64)
    sizes: _I64 = np.bincount(number, minlength=len(lengths)).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    bitmaps: _U64 = np.bitwise_xor.reduceat(np.uint64(1) << (distinct & np.uint64(63)), starts)
    late, early = _prefix_lengths(sizes, similarity)
    where = _ranges(starts, late)
    owners: _I32 = number[where].astype(np.int32)
    kept: _U64 = distinct[where] << np.uint64(_SIZE_BITS) | _clipped(sizes)[owners]
    is_early: npt.NDArray[np.bool_] = where - starts[owners] < early[owners]
    return kept, owners + np.int32(first), is_early, sizes, bitmaps


def _prefix_lengths(sizes: _I64, similarity: float) -> tuple[_I64, _I64]:
    """How many first shingles matter: for a partner that is smaller, and for one that is not."""
    slack = 1e-9  # rounding must not make a prefix too short
    late = sizes - np.ceil(similarity * sizes - slack).astype(np.int64) + 1
    early = sizes - np.ceil(2 * similarity / (1 + similarity) * sizes - slack).astype(np.int64) + 1
    return np.minimum(late, sizes), np.minimum(early, sizes)


def _clipped(sizes: _I64) -> _U64:
    clipped: _U64 = np.clip(sizes, 0, 2**_SIZE_BITS - 1).astype(np.uint64)
    return clipped


def _low_bits(keys: _U64, bits: int) -> _U64:
    return keys >> np.uint64(_SIZE_BITS) & np.uint64(2**bits - 1)


def find_matches(prefixes: Prefixes, seekers: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_]) -> list[Match]:
    """Of the texts in `seekers` those that resemble one in `others`, each with one such; the masks must not overlap.

    Bounded: a text with very many candidates comes back without a partner.
    """
    candidates = _Candidates(prefixes, seekers, others)
    found: dict[int, Match] = {}
    for limit in (_FIRST_LOOK, max(4 * _FIRST_LOOK, _MAX_PAIRS // max(1, int(seekers.sum())))):
        open_texts = np.flatnonzero(candidates.totals > 0)
        open_texts = open_texts[~np.isin(open_texts, list(found))]
        if limit > _FIRST_LOOK:
            open_texts = open_texts[candidates.totals[open_texts] > _FIRST_LOOK]
        for text, partners in candidates.pairs(open_texts, limit):
            if match := _best(prefixes, text, partners):
                found[text] = match
    crowded = np.flatnonzero(candidates.totals > limit)
    for text in crowded.tolist():
        found.setdefault(text, Match(text, None, 0.0))
    return [found[text] for text in sorted(found)]


def _best(prefixes: Prefixes, text: int, partners: Sequence[int]) -> Match | None:
    own = shingles(prefixes.texts[text])
    for partner in partners:
        similarity = jaccard(own, _cached_shingles(prefixes.texts[partner]))
        if similarity >= prefixes.similarity:
            return Match(text, partner, similarity)
    return None


@lru_cache(maxsize=4096)
def _cached_shingles(text: str) -> frozenset[str]:
    return shingles(text)


class _Candidates:
    """For each seeker the entries of the others' index that share a shingle of a fitting size."""

    def __init__(self, prefixes: Prefixes, seekers: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_]) -> None:
        self._prefixes = prefixes
        sought = seekers[prefixes.owners]
        indexed = others[prefixes.owners]
        sizes = prefixes.sizes
        smallest = np.ceil(prefixes.similarity * sizes - 1e-9).astype(np.int64)
        largest = np.floor(sizes / prefixes.similarity + 1e-9).astype(np.int64)
        # a partner of at most the own size is found by its early shingles, a larger one by the own early ones
        self._owners: list[_I32] = []
        ranges = [
            self._look_up(indexed & prefixes.early, sought, smallest, sizes),
            self._look_up(indexed, sought & prefixes.early, sizes + 1, largest),
        ]
        low, high, text, table = (np.concatenate(part) for part in zip(*ranges, strict=True))
        by_text = np.lexsort((table, text))
        self._low, self._counts, self._text, self._table = low[by_text], (high - low)[by_text], text[by_text], table[by_text]
        self.totals = np.bincount(self._text, self._counts, len(prefixes.sizes)).astype(np.int64)

    def _look_up(
        self, indexed: npt.NDArray[np.bool_], sought: npt.NDArray[np.bool_], smallest: _I64, largest: _I64
    ) -> tuple[_I64, _I64, _I64, _I64]:
        """Where in the index the entries begin and end that a sought one goes with, whose text that is, and the index's number.

        smallest, largest  (texts,) sizes of the sets that each text goes with
        """
        p = self._prefixes
        order = np.argsort(p.keys[indexed], kind="stable")
        index = p.keys[indexed][order]
        self._owners.append(p.owners[indexed][order])
        # most shingles sought are in no other text: a look at a table with few collisions spares the search
        bits = int(np.clip(np.ceil(np.log2(16 * max(len(index), 1))), *_TABLE_BITS))
        present = np.zeros(2**bits, bool)
        present[_low_bits(index, bits)] = True
        found = []
        for start in range(0, len(p.keys), _CHUNK_ENTRIES):
            part = slice(start, start + _CHUNK_ENTRIES)
            keys, owners = p.keys[part][sought[part]], p.owners[part][sought[part]]
            known = present[_low_bits(keys, bits)]
            found.append((keys[known], owners[known]))
        keys, owners = (np.concatenate(part) for part in zip(*found, strict=True)) if found else (p.keys, p.owners)
        by_key = np.argsort(keys)  # in the order of the index, searching takes a third of the time
        keys, owners = keys[by_key], owners[by_key]
        tokens = keys >> np.uint64(_SIZE_BITS) << np.uint64(_SIZE_BITS)
        low = np.searchsorted(index, tokens | _clipped(smallest[owners]), "left")
        high = np.maximum(low, np.searchsorted(index, tokens | _clipped(largest[owners]), "right"))
        hit = high > low
        return low[hit], high[hit], owners[hit].astype(np.int64), np.full(int(hit.sum()), len(self._owners) - 1)

    def pairs(self, texts: _I64, limit: int) -> Iterator[tuple[int, list[int]]]:
        """(text, others that it may resemble) for each of `texts` that has any, from its first `limit` candidates."""
        wanted = np.isin(self._text, texts)
        low, counts, text, table = (part[wanted] for part in (self._low, self._counts, self._text, self._table))
        before = np.cumsum(counts) - counts
        first = np.searchsorted(text, text, "left")
        counts = np.clip(limit - (before - before[first] if len(before) else before), 0, counts)
        cuts = np.searchsorted(np.cumsum(counts), np.arange(0, counts.sum() + _CHUNK_PAIRS, _CHUNK_PAIRS), "left")
        # a text's candidates must not lie in two chunks
        cuts = np.unique(np.concatenate((first[np.minimum(cuts, len(first) - 1)], [len(first)]))) if len(first) else cuts[:0]
        for start, stop in pairwise(cuts.tolist()):
            yield from self._chunk(*(part[start:stop] for part in (low, counts, text, table)))

    def _chunk(self, low: _I64, counts: _I64, text: _I64, table: _I64) -> Iterator[tuple[int, list[int]]]:
        p = self._prefixes
        where, tables = _ranges(low, counts), np.repeat(table, counts)
        a = np.repeat(text, counts)
        b = np.empty(len(where), np.int64)
        for number, owners in enumerate(self._owners):
            b[tables == number] = owners[where[tables == number]]
        # at most this many shingles can be shared, going by the parities that differ
        shared = (p.sizes[a] + p.sizes[b] - np.bitwise_count(p.bitmaps[a] ^ p.bitmaps[b])) // 2
        needed = p.similarity / (1 + p.similarity) * (p.sizes[a] + p.sizes[b])
        pairs = np.unique(np.stack((a, b), 1)[shared >= needed - 1e-9], axis=0)
        starts = np.flatnonzero(np.concatenate(([True], pairs[1:, 0] != pairs[:-1, 0]))) if len(pairs) else np.zeros(0, np.int64)
        for partners in np.split(pairs, starts[1:]) if len(pairs) else []:
            yield int(partners[0, 0]), partners[:, 1].tolist()
