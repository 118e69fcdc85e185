"""Texts that are nearly the same: Jaccard similarity of their shingles, found without comparing every pair, and none missed.

Texts that share one of their first shingles (shingles.py) are compared. Unlike MinHash that finds every pair; a bitmap of each set
(Sandes et al. 2020) turns most of the others away before they are read. What is made of each text lies on disk, and those that are
sought among are held in memory some at a time, so that many texts take no more memory than few.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.core.prefetch import map_ahead
from tasks.data.duplicates.distinct_texts import DistinctTexts
from tasks.data.duplicates.shingles import (
    I32,
    I64,
    LATE,
    SIZE_BITS,
    Prefixes,
    clipped,
    count_shingles,
    jaccard,
    make_prefixes,
    ranges,
    rarity,
    shingles,
)

_THREADS = min(4, os.cpu_count() or 1)
_COUNTED_TEXTS = 200_000  # nearly so many of the texts are counted
_INDEXED = 3_000_000  # entries of an index, nearly
_TABLE_BITS = (20, 26)  # least and most
_CHUNK_PAIRS = 2**21
_MAX_PAIRS = 200_000_000  # candidates looked at in one search, nearly, all together
_FIRST_LOOK = (
    64  # candidates of each text looked at first: in a crowd of look-alikes that settles it
)

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Match:
    """A text (by its number) and one that it resembles; `partner` is None where too many had to be compared to tell."""

    text: int
    partner: int | None
    similarity: float


class NearDuplicates:
    """Searches among texts; `scratch` is a file for what is made of each."""

    def __init__(self, texts: DistinctTexts, similarity: float, scratch: Path) -> None:
        self._texts, self._similarity, self._scratch = texts, similarity, scratch
        every = max(1, len(texts) // _COUNTED_TEXTS)
        counts = count_shingles([])
        for numbers, some in texts:
            counts += count_shingles(some.filter(pa.array(numbers % every == 0)).to_pylist())
        levels = rarity(counts)
        self._entries = 0
        with scratch.open("wb") as file:
            # numpy lets go of the interpreter's lock while it computes
            for numbers, prefixes in map_ahead(
                lambda batch: (batch[0], make_prefixes(batch[1].to_pylist(), levels, similarity)),
                texts,
                _THREADS,
            ):
                self._entries += len(prefixes.keys)
                for part in (
                    numbers,
                    prefixes.keys,
                    prefixes.owners.astype(np.uint16),
                    prefixes.sizes,
                    prefixes.bitmaps,
                ):
                    np.save(file, part, allow_pickle=False)
            self._end = file.tell()

    def _prepared(self) -> Iterator[tuple[int, I32, Prefixes]]:
        """(batch, its texts' numbers, what was made of them)."""
        with self._scratch.open("rb") as file:
            batch = 0
            while file.tell() < self._end:
                numbers, keys, owners, sizes, bitmaps = (
                    np.load(file, allow_pickle=False) for _ in range(5)
                )
                yield batch, numbers, Prefixes(keys, owners.astype(np.int32), sizes, bitmaps)
                batch += 1

    def find(self, seekers: _Mask, others: _Mask) -> list[Match]:
        """Of the texts in `seekers` those that resemble one in `others`, each with one such; the masks must not overlap.

        Bounded: a text with very many candidates comes back without a partner.
        """
        limit = max(4 * _FIRST_LOOK, _MAX_PAIRS // max(1, int(seekers.sum())))
        seekers = seekers.copy()  # those that have no partner yet
        found: dict[int, Match] = {}
        parts = -(-int(others.sum()) * self._entries // (_INDEXED * max(1, len(self._texts))))
        for block in np.array_split(np.flatnonzero(others), max(1, parts)):
            for match in self._find_in(block, seekers, limit):
                if match.partner is not None or match.text not in found:
                    found[match.text] = match
            seekers[[match.text for match in found.values() if match.partner is not None]] = False
        return [found[text] for text in sorted(found)]

    def _find_in(self, block: I64, seekers: _Mask, limit: int) -> Iterator[Match]:
        """Of the seekers those that resemble a text with one of these numbers."""
        index = self._index(block)

        def look(batch: tuple[int, I32, Prefixes]) -> list[Match]:
            place, numbers, prefixes = batch
            matches = index.search(
                prefixes, seekers[numbers], limit, lambda: self._texts.batch(place)
            )
            return [
                Match(int(numbers[i]), None if j is None else int(block[j]), similarity)
                for i, j, similarity in matches
            ]

        for matches in map_ahead(look, self._prepared(), _THREADS):
            yield from matches

    def _index(self, block: I64) -> _Index:
        """Of the texts with these numbers, ascending."""
        member = np.zeros(len(self._texts), bool)
        member[block] = True
        keys, owners, texts, places = (
            [np.zeros(0, np.uint64)],
            [np.zeros(0, np.int32)],
            [pa.array([], pa.large_string())],
            [block[:0]],
        )
        sizes, bitmaps = np.zeros(len(block), np.int32), np.zeros(len(block), np.uint64)
        for batch, numbers, prefixes in self._prepared():
            here = member[numbers]
            if not here.any():
                continue
            part, where = prefixes.of(here), np.searchsorted(block, numbers[here])
            keys.append(part.keys)
            owners.append(where[part.owners].astype(np.int32))
            sizes[where], bitmaps[where] = part.sizes, part.bitmaps
            texts.append(self._texts.batch(batch).filter(pa.array(here)))
            places.append(where)
        in_order = pa.concat_arrays(texts).take(pa.array(np.argsort(np.concatenate(places))))
        whole = Prefixes(np.concatenate(keys), np.concatenate(owners), sizes, bitmaps)
        del texts, keys, owners  # as large again
        return _Index(in_order, whole, self._similarity)


class _Index:
    """Texts to search among, by the shingles of their prefixes."""

    def __init__(self, texts: pa.Array, prefixes: Prefixes, similarity: float) -> None:
        self._texts, self._similarity = texts, similarity
        self._sizes, self._bitmaps = prefixes.sizes, prefixes.bitmaps
        order = np.lexsort((prefixes.owners, prefixes.keys))
        self._keys, self._owners = prefixes.keys[order], prefixes.owners[order]
        # most shingles sought are in no other text: a look at a table with few collisions spares the search
        self._mask = np.uint64(
            2 ** int(np.clip(np.ceil(np.log2(8 * max(len(order), 1))), *_TABLE_BITS)) - 1
        )
        self._present = np.zeros(int(self._mask) + 1, bool)
        self._present[self._keys >> np.uint64(SIZE_BITS + 1) & self._mask] = True

    def search(
        self, prefixes: Prefixes, sought: _Mask, limit: int, read: Callable[[], pa.Array]
    ) -> list[tuple[int, int | None, float]]:
        """(text, one that it resembles or None, similarity), by the places of both.

        sought   (texts,) which of those with the prefixes;  read   gives all of them
        None stands for more than `limit` candidates of which none was found to be one.
        """
        low, counts, text = self._candidates(prefixes, sought)
        if not len(low):
            return []
        totals = np.bincount(text, counts, len(prefixes.sizes)).astype(np.int64)
        texts: pa.Array = None
        found: dict[int, tuple[int, int | None, float]] = {}
        for least, most in ((0, _FIRST_LOOK), (_FIRST_LOOK, limit)):
            wanted = totals > least
            wanted[[*found]] = False
            for own, partners in self._pairs(prefixes, low, counts, text, wanted, most):
                texts = read() if texts is None else texts
                if match := self._best(texts[own].as_py(), partners):
                    found[own] = (own, *match)
        for own in np.flatnonzero(totals > limit).tolist():
            found.setdefault(own, (own, None, 0.0))
        return [found[own] for own in sorted(found)]

    def _candidates(self, p: Prefixes, sought: _Mask) -> tuple[I64, I64, I64]:
        """Where in the index the entries begin that a shingle sought goes with, how many they are, and whose it is; text after text."""
        known = np.flatnonzero(self._present[p.keys >> np.uint64(SIZE_BITS + 1) & self._mask])
        known = known[sought[p.owners[known]]]
        keys, owners = p.keys[known], p.owners[known]
        by_key = np.argsort(keys)  # in the order of the index, searching takes a third of the time
        keys, owners = keys[by_key], owners[by_key]
        sizes = p.sizes.astype(np.int64)[owners]
        smallest = clipped(np.ceil(self._similarity * sizes - 1e-9).astype(np.int64))
        largest = clipped(np.floor(sizes / self._similarity + 1e-9).astype(np.int64))
        tokens, early = (
            keys >> np.uint64(SIZE_BITS + 1) << np.uint64(SIZE_BITS + 1),
            keys & LATE == 0,
        )
        # a partner of at most the own size is found by its early shingles, a larger one by the own early ones
        bounds = (
            (tokens | smallest, tokens | np.where(early, largest, clipped(sizes)), owners),
            (
                (tokens | LATE | clipped(sizes + 1))[early],
                (tokens | LATE | largest)[early],
                owners[early],
            ),
        )
        found = []
        for first, last, whose in bounds:
            low = np.searchsorted(self._keys, first, "left")
            hit = (
                np.flatnonzero(self._keys.take(low, mode="clip") <= last)
                if len(self._keys)
                else low[:0]
            )
            hit = hit[low[hit] < len(self._keys)]
            found.append(
                (low[hit], np.searchsorted(self._keys, last[hit], "right") - low[hit], whose[hit])
            )
        low, counts, text = (np.concatenate(part) for part in zip(*found, strict=True))
        by_text = np.argsort(text, kind="stable")
        return low[by_text], counts[by_text], text[by_text].astype(np.int64)

    def _pairs(
        self, p: Prefixes, low: I64, counts: I64, text: I64, texts: _Mask, limit: int
    ) -> Iterator[tuple[int, list[int]]]:
        """(text, others that it may resemble) for each of `texts` that has any, from its first `limit` candidates."""
        wanted = texts[text]
        low, counts, text = low[wanted], counts[wanted], text[wanted]
        before = np.cumsum(counts) - counts
        first = np.searchsorted(text, text, "left")
        counts = np.clip(limit - (before - before[first] if len(before) else before), 0, counts)
        cuts = np.searchsorted(
            np.cumsum(counts), np.arange(0, counts.sum() + _CHUNK_PAIRS, _CHUNK_PAIRS), "left"
        )
        # a text's candidates must not lie in two chunks
        cuts = (
            np.unique(np.concatenate((first[np.minimum(cuts, len(first) - 1)], [len(first)])))
            if len(first)
            else cuts[:0]
        )
        for start, stop in pairwise(cuts.tolist()):
            yield from self._chunk(p, *(part[start:stop] for part in (low, counts, text)))

    def _chunk(
        self, p: Prefixes, low: I64, counts: I64, text: I64
    ) -> Iterator[tuple[int, list[int]]]:
        a, b = np.repeat(text, counts), self._owners[ranges(low, counts)].astype(np.int64)
        # at most this many shingles can be shared, going by the parities that differ
        sizes = p.sizes[a].astype(np.int64) + self._sizes[b]
        shared = (sizes - np.bitwise_count(p.bitmaps[a] ^ self._bitmaps[b])) // 2
        likely = shared >= self._similarity / (1 + self._similarity) * sizes - 1e-9
        pairs = np.unique(a[likely] << 32 | b[likely])
        a, b = pairs >> 32, pairs & (2**32 - 1)
        starts = np.flatnonzero(np.diff(a, prepend=-1))
        for start, stop in pairwise([*starts.tolist(), len(a)]):
            yield int(a[start]), b[start:stop].tolist()

    def _best(self, text: str, partners: Sequence[int]) -> tuple[int, float] | None:
        own = shingles(text)
        for partner in partners:
            similarity = jaccard(own, _cached_shingles(self._texts[partner].as_py()))
            if similarity >= self._similarity:
                return partner, similarity
        return None


@lru_cache(maxsize=4096)
def _cached_shingles(text: str) -> frozenset[str]:
    return shingles(text)
