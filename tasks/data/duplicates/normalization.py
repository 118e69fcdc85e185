"""Text normalization, the digest of a normalized text, and its position in [0, 1).

Two texts count as the same if their normalized forms are equal. Normalization decomposes
compatibility forms such as full-width letters and ligatures (NFKD), folds case, removes the accents
of Latin, Greek and Cyrillic, and keeps only letters, their marks, numbers and pictographs (emoji):
no blanks, punctuation or signs. A text of nothing but punctuation keeps it. The underlying Unicode
tables change for newly assigned characters only, so a text keeps its position across versions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

SEPARATOR = "\x1f"  # between the columns of a row with several texts
# accents and variation selectors are marks (\p{M}) too, and dropped by the second alternative
_DROPPED = r"[^\p{L}\p{M}\p{N}\p{So}]+|[\x{300}-\x{36f}\x{fe00}-\x{fe0f}]+"
_BLANKS = r"[\s\p{Z}\p{C}]+"
_BATCH_ROWS = 10_000  # small: each thread's allocator keeps its peak memory
_THREADS = min(4, os.cpu_count() or 1)
# ASCII translation table: letters to lower case, digits unchanged, all others to 0 (dropped)
_ASCII = bytes(ord(chr(i).lower()) if i < 128 and chr(i).isalnum() else 0 for i in range(256))

Digests = npt.NDArray[np.uint64]  # (texts, 2)


def normalize_rows(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """One normalized text per row, joined from its text columns; null if any of them is null.

    columns   text columns of the same table
    """
    table = pa.table(
        [column.cast(pa.large_string()) for column in columns],
        [str(i) for i in range(len(columns))],
    )
    # threads help: pyarrow and NumPy release the GIL while they compute
    with ThreadPoolExecutor(_THREADS) as pool:
        batches = list(pool.map(_normalize_batch, table.to_batches(_BATCH_ROWS)))
    return pa.chunked_array(batches, pa.large_string())


def _normalize_batch(batch: pa.RecordBatch) -> pa.Array:
    texts = [_normalize(column) for column in batch.columns]
    if len(texts) == 1:
        return texts[0]
    return pc.binary_join_element_wise(*texts, pa.scalar(SEPARATOR, pa.large_string()))


def _normalize(texts: pa.Array) -> pa.Array:
    """Byte translation for ASCII texts, which takes a third of the time; Unicode for the rest."""
    normalized = _normalize_ascii(texts)
    done = pc.and_(pc.string_is_ascii(texts), pc.not_equal(normalized, ""))
    remaining = pc.fill_null(pc.invert(done), False)
    if not pc.any(remaining).as_py():
        return normalized
    return pc.replace_with_mask(normalized, remaining, _normalize_unicode(texts.filter(remaining)))


def _normalize_ascii(texts: pa.Array) -> pa.Array:
    """Correct for ASCII texts with a non-empty result; arbitrary for all others."""
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[
        texts.offset : texts.offset + len(texts) + 1
    ]
    content = memoryview(texts.buffers()[2] or b"")[offsets[0] : offsets[-1]]
    folded = np.frombuffer(bytes(content).translate(_ASCII), np.uint8)
    kept = folded != 0
    lengths = np.add.reduceat(
        np.append(kept, False).view(np.uint8), offsets[:-1] - offsets[0], dtype=np.int64
    )
    # for an empty text reduceat returns the byte at its start instead of 0
    lengths = np.where(offsets[1:] > offsets[:-1], lengths, 0)
    ends = np.concatenate(([0], np.cumsum(lengths)))
    validity = (
        pa.array(pc.is_valid(texts).to_numpy(zero_copy_only=False)).buffers()[1]
        if texts.null_count
        else None
    )
    buffers = [validity, pa.py_buffer(ends), pa.py_buffer(folded[kept])]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers, texts.null_count)


def _normalize_unicode(texts: pa.Array) -> pa.Array:
    # upper, then lower: maps ς, σ and Σ to the same letter
    folded = pc.utf8_lower(pc.utf8_upper(pc.utf8_normalize(texts, form="NFKD")))
    kept = pc.replace_substring_regex(folded, _DROPPED, "")
    is_empty = pc.equal(kept, "")
    if not pc.any(is_empty).as_py():
        return kept
    return pc.if_else(is_empty, pc.replace_substring_regex(folded, _BLANKS, ""), kept)


def digests(normalized: pa.ChunkedArray) -> Digests:
    """(texts, 2): first 128 bits of the SHA-256 of each text's UTF-8, as two 64-bit halves.

    Equal digests are taken to mean equal texts. Null counts as empty.
    """
    halves = "('0x' || digest[:16])::UBIGINT AS high, ('0x' || digest[17:32])::UBIGINT AS low"
    with duckdb.connect() as connection:
        connection.register("rows", pa.table({"text": pc.fill_null(normalized, "")}))
        table = connection.sql(
            f"SELECT {halves} FROM (SELECT sha256(text) AS digest FROM rows)"
        ).to_arrow_table()
    return np.column_stack((table["high"].to_numpy(), table["low"].to_numpy()))


def positions(text_digests: Digests) -> npt.NDArray[np.float64]:
    """A position in [0, 1) for each digest, uniformly distributed: its first 52 bits."""
    leading: npt.NDArray[np.float64] = (text_digests[:, 0] >> np.uint64(12)).astype(np.float64)
    return leading / 2.0**52
