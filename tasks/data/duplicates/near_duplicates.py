"""Near-duplicate search by the Jaccard similarity of shingles, without comparing every pair.

Only texts that share a shingle of their prefixes (shingles.py) are compared, which unlike MinHash
misses no pair; a bitmap per set (Sandes et al. 2020) rejects most candidates before their texts are
read. Prefixes lie on disk, and the texts searched are indexed block by block, so that memory does
not grow with the number of texts.
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
_COUNTED_TEXTS = 200_000  # approximate size of the sample whose shingles are counted
_INDEXED = 3_000_000  # approximate number of entries in an index
_TABLE_BITS = (20, 26)  # least and most
_CHUNK_PAIRS = 2**21
_MAX_PAIRS = 200_000_000  # approximate number of candidates examined in one search
_FIRST_LOOK = 64  # candidates of a text examined first; enough to find one among many look-alikes

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Match:
    """A text and one it resembles, by number; `partner` is None if it had too many candidates."""

    text: int
    partner: int | None
    similarity: float


class NearDuplicates:
    """Searches texts for near-duplicates.

    similarity   least Jaccard similarity of a match, in (0, 1]
    scratch      file for the prefixes; overwritten
    """

    def __init__(self, texts: DistinctTexts, similarity: float, scratch: Path) -> None:
        self._texts, self._similarity, self._scratch = texts, similarity, scratch
        every = max(1, len(texts) // _COUNTED_TEXTS)
        counts = count_shingles([])
        for numbers, batch in texts:
            counts += count_shingles(batch.filter(pa.array(numbers % every == 0)).to_pylist())
        levels = rarity(counts)

        def prepare(batch: tuple[I32, pa.Array]) -> tuple[I32, Prefixes]:
            return batch[0], make_prefixes(batch[1].to_pylist(), levels, similarity)

        self._entries = 0
        with scratch.open("wb") as file:
            # threads help: NumPy releases the GIL while it computes
            for numbers, prefixes in map_ahead(prepare, texts, _THREADS):
                self._entries += len(prefixes.keys)
                owners = prefixes.owners.astype(np.uint16)
                for array in (numbers, prefixes.keys, owners, prefixes.sizes, prefixes.bitmaps):
                    np.save(file, array, allow_pickle=False)
            self._end = file.tell()

    def _prepared(self) -> Iterator[tuple[int, I32, Prefixes]]:
        """(batch, numbers of its texts, their prefixes), read back from the scratch file."""
        with self._scratch.open("rb") as file:
            batch = 0
            while file.tell() < self._end:
                numbers, keys, owners, sizes, bitmaps = (
                    np.load(file, allow_pickle=False) for _ in range(5)
                )
                yield batch, numbers, Prefixes(keys, owners.astype(np.int32), sizes, bitmaps)
                batch += 1

    def find(self, seekers: _Mask, others: _Mask) -> list[Match]:
        """The texts in `seekers` that resemble one in `others`, ascending, each with one such text.

        The masks must not overlap. Bounded: a text with very many candidates may get no partner.
        """
        limit = max(4 * _FIRST_LOOK, _MAX_PAIRS // max(1, int(seekers.sum())))
        seekers = seekers.copy()  # those without a partner so far
        by_text: dict[int, Match] = {}
        parts = -(-int(others.sum()) * self._entries // (_INDEXED * max(1, len(self._texts))))
        for block in np.array_split(np.flatnonzero(others), max(1, parts)):
            for match in self._find_in(block, seekers, limit):
                if match.partner is not None or match.text not in by_text:
                    by_text[match.text] = match
            seekers[[match.text for match in by_text.values() if match.partner is not None]] = False
        return [by_text[text] for text in sorted(by_text)]

    def _find_in(self, block: I64, seekers: _Mask, limit: int) -> Iterator[Match]:
        """The seekers that resemble a text of the block (text numbers, ascending)."""
        index = self._index(block)

        def search(batch: tuple[int, I32, Prefixes]) -> list[Match]:
            batch_number, numbers, prefixes = batch
            matches = index.search(
                prefixes, seekers[numbers], limit, lambda: self._texts.batch(batch_number)
            )
            return [
                Match(int(numbers[i]), None if j is None else int(block[j]), similarity)
                for i, j, similarity in matches
            ]

        for matches in map_ahead(search, self._prepared(), _THREADS):
            yield from matches

    def _index(self, block: I64) -> _Index:
        """Index the texts of the block (text numbers, ascending)."""
        in_block = np.zeros(len(self._texts), bool)
        in_block[block] = True
        keys, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
        texts, positions = [pa.array([], pa.large_string())], [block[:0]]
        sizes, bitmaps = np.zeros(len(block), np.int32), np.zeros(len(block), np.uint64)
        for batch, numbers, prefixes in self._prepared():
            selected = in_block[numbers]
            if not selected.any():
                continue
            part, position = prefixes.of(selected), np.searchsorted(block, numbers[selected])
            keys.append(part.keys)
            owners.append(position[part.owners].astype(np.int32))
            sizes[position], bitmaps[position] = part.sizes, part.bitmaps
            texts.append(self._texts.batch(batch).filter(pa.array(selected)))
            positions.append(position)
        in_order = pa.concat_arrays(texts).take(pa.array(np.argsort(np.concatenate(positions))))
        all_prefixes = Prefixes(np.concatenate(keys), np.concatenate(owners), sizes, bitmaps)
        del texts, keys, owners  # copied above; frees as much memory again
        return _Index(in_order, all_prefixes, self._similarity)


class _Index:
    """Inverted index from the shingles of prefixes to texts, which are numbered from 0."""

    def __init__(self, texts: pa.Array, prefixes: Prefixes, similarity: float) -> None:
        self._texts, self._similarity = texts, similarity
        self._sizes, self._bitmaps = prefixes.sizes, prefixes.bitmaps
        order = np.lexsort((prefixes.owners, prefixes.keys))
        self._keys, self._owners = prefixes.keys[order], prefixes.owners[order]
        # most shingles are in no other text: a hash table with few collisions avoids searching
        self._mask = np.uint64(
            2 ** int(np.clip(np.ceil(np.log2(8 * max(len(order), 1))), *_TABLE_BITS)) - 1
        )
        self._present = np.zeros(int(self._mask) + 1, bool)
        self._present[self._keys >> np.uint64(SIZE_BITS + 1) & self._mask] = True

    def search(
        self, prefixes: Prefixes, sought: _Mask, limit: int, read: Callable[[], pa.Array]
    ) -> list[tuple[int, int | None, float]]:
        """(text, indexed text that it resembles, similarity), by number; ascending.

        prefixes  of the batch of texts to search for
        sought    (texts,) which of them to search for
        read      returns the texts of the batch
        The indexed text is None if there were more than `limit` candidates and none matched.
        """
        low, counts, owner = self._candidates(prefixes, sought)
        if not len(low):
            return []
        totals = np.bincount(owner, counts, len(prefixes.sizes)).astype(np.int64)
        texts: pa.Array = None
        matches: dict[int, tuple[int, int | None, float]] = {}
        for least, most in ((0, _FIRST_LOOK), (_FIRST_LOOK, limit)):
            wanted = totals > least
            wanted[[*matches]] = False
            for text, partners in self._pairs(prefixes, low, counts, owner, wanted, most):
                texts = read() if texts is None else texts
                if match := self._first_match(texts[text].as_py(), partners):
                    matches[text] = (text, *match)
        for text in np.flatnonzero(totals > limit).tolist():
            matches.setdefault(text, (text, None, 0.0))
        return [matches[text] for text in sorted(matches)]

    def _candidates(self, p: Prefixes, sought: _Mask) -> tuple[I64, I64, I64]:
        """Ranges of index entries that share a shingle with a text sought, ordered by that text.

        (low, counts, owner): first entry of each range, number of entries, the text sought.
        """
        known = np.flatnonzero(self._present[p.keys >> np.uint64(SIZE_BITS + 1) & self._mask])
        known = known[sought[p.owners[known]]]
        keys, owners = p.keys[known], p.owners[known]
        by_key = np.argsort(keys)  # searching in index order takes a third of the time
        keys, owners = keys[by_key], owners[by_key]
        sizes = p.sizes.astype(np.int64)[owners]
        smallest = clipped(np.ceil(self._similarity * sizes - 1e-9).astype(np.int64))
        largest = clipped(np.floor(sizes / self._similarity + 1e-9).astype(np.int64))
        ranks = keys >> np.uint64(SIZE_BITS + 1) << np.uint64(SIZE_BITS + 1)
        early = keys & LATE == 0
        # a partner of at most this text's size matches by its own early shingles, a larger one by
        # this text's early shingles
        bounds = (
            (ranks | smallest, ranks | np.where(early, largest, clipped(sizes)), owners),
            (
                (ranks | LATE | clipped(sizes + 1))[early],
                (ranks | LATE | largest)[early],
                owners[early],
            ),
        )
        hits = []
        for first, last, owner in bounds:
            low = np.searchsorted(self._keys, first, "left")
            hit = np.flatnonzero(self._keys.take(low, mode="clip") <= last)
            hit = hit[low[hit] < len(self._keys)]
            counts = np.searchsorted(self._keys, last[hit], "right") - low[hit]
            hits.append((low[hit], counts, owner[hit]))
        low, counts, owner = (np.concatenate(arrays) for arrays in zip(*hits, strict=True))
        by_owner = np.argsort(owner, kind="stable")
        return low[by_owner], counts[by_owner], owner[by_owner].astype(np.int64)

    def _pairs(
        self, p: Prefixes, low: I64, counts: I64, owner: I64, texts: _Mask, limit: int
    ) -> Iterator[tuple[int, list[int]]]:
        """(text, indexed texts it may resemble), among its first `limit` candidates.

        low, counts, owner   from `_candidates`
        texts                (texts,) which to yield; those without candidates are skipped
        """
        wanted = texts[owner]
        low, counts, owner = low[wanted], counts[wanted], owner[wanted]
        before = np.cumsum(counts) - counts
        first = np.searchsorted(owner, owner, "left")
        counts = np.clip(limit - (before - before[first] if len(before) else before), 0, counts)
        cuts = np.searchsorted(
            np.cumsum(counts), np.arange(0, counts.sum() + _CHUNK_PAIRS, _CHUNK_PAIRS), "left"
        )
        if not len(first):
            return
        # a text's candidates must not be split between two chunks
        cuts = np.unique(np.append(first[np.minimum(cuts, len(first) - 1)], len(first)))
        for start, stop in pairwise(cuts.tolist()):
            yield from self._chunk(p, low[start:stop], counts[start:stop], owner[start:stop])

    def _chunk(
        self, p: Prefixes, low: I64, counts: I64, owner: I64
    ) -> Iterator[tuple[int, list[int]]]:
        a, b = np.repeat(owner, counts), self._owners[ranges(low, counts)].astype(np.int64)
        # upper bound on the number of shared shingles, from the parities that differ
        sizes = p.sizes[a].astype(np.int64) + self._sizes[b]
        shared = (sizes - np.bitwise_count(p.bitmaps[a] ^ self._bitmaps[b])) // 2
        likely = shared >= self._similarity / (1 + self._similarity) * sizes - 1e-9
        pairs = np.unique(a[likely] << 32 | b[likely])
        a, b = pairs >> 32, pairs & (2**32 - 1)
        starts = np.flatnonzero(np.diff(a, prepend=-1))
        for start, stop in pairwise([*starts.tolist(), len(a)]):
            yield int(a[start]), b[start:stop].tolist()

    def _first_match(self, text: str, partners: Sequence[int]) -> tuple[int, float] | None:
        text_shingles = shingles(text)
        for partner in partners:
            similarity = jaccard(text_shingles, _cached_shingles(self._texts[partner].as_py()))
            if similarity >= self._similarity:
                return partner, similarity
        return None


@lru_cache(maxsize=4096)
def _cached_shingles(text: str) -> frozenset[str]:
    return shingles(text)
