"""When two texts count as the same, and a number in [0, 1) that depends on nothing else.

Normalized: compatibility forms made plain (full-width, ligatures), case and accents of Latin, Greek and Cyrillic aside, then only
letters, their marks, numbers and pictures (emoji) kept, taken apart (NFKD): no blanks, punctuation or signs. A text of nothing but
punctuation keeps it. The Unicode tables behind this change for newly assigned characters only, so a text keeps its number from
version to version.
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
_DROPPED = r"[^\p{L}\p{M}\p{N}\p{So}]+|[\x{300}-\x{36f}\x{fe00}-\x{fe0f}]+"  # accents and variation selectors are marks too
_BLANKS = r"[\s\p{Z}\p{C}]+"
_BATCH_ROWS = 10_000  # few, for each thread's allocator keeps what it once had
_THREADS = min(4, os.cpu_count() or 1)
# what an ASCII character becomes: a letter its lower case, a digit itself, all others nothing
_ASCII = bytes(ord(chr(i).lower()) if i < 128 and chr(i).isalnum() else 0 for i in range(256))

Digests = npt.NDArray[np.uint64]  # (texts, 2)


def normalize_rows(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """One normalized text a row, of its text columns together; null where one of them is null.

    columns   text columns of the same table
    """
    table = pa.table(
        [column.cast(pa.large_string()) for column in columns],
        [str(i) for i in range(len(columns))],
    )
    # pyarrow and numpy let go of the interpreter's lock while they compute
    with ThreadPoolExecutor(_THREADS) as pool:
        batches = list(pool.map(_normalize_batch, table.to_batches(_BATCH_ROWS)))
    return pa.chunked_array(batches, pa.large_string())


def _normalize_batch(batch: pa.RecordBatch) -> pa.Array:
    texts = [_normalize(column) for column in batch.columns]
    return (
        texts[0]
        if len(texts) == 1
        else pc.binary_join_element_wise(*texts, pa.scalar(SEPARATOR, pa.large_string()))
    )


def _normalize(texts: pa.Array) -> pa.Array:
    """By tables of bytes where a text is ASCII, which takes a third of the time, and as Unicode has it where it is not."""
    quick = _normalize_ascii(texts)
    careful = pc.fill_null(
        pc.invert(pc.and_(pc.string_is_ascii(texts), pc.not_equal(quick, ""))), False
    )
    return (
        pc.replace_with_mask(quick, careful, _normalize_unicode(texts.filter(careful)))
        if pc.any(careful).as_py()
        else quick
    )


def _normalize_ascii(texts: pa.Array) -> pa.Array:
    """Right for ASCII texts of which something is kept; for others any text."""
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[
        texts.offset : texts.offset + len(texts) + 1
    ]
    content = memoryview(texts.buffers()[2] or b"")[offsets[0] : offsets[-1]]
    folded = np.frombuffer(bytes(content).translate(_ASCII), np.uint8)
    kept = folded != 0
    lengths = np.add.reduceat(
        np.append(kept, False).view(np.uint8), offsets[:-1] - offsets[0], dtype=np.int64
    )
    lengths = np.where(offsets[1:] > offsets[:-1], lengths, 0)  # reduceat takes one byte for none
    ends = np.concatenate(([0], np.cumsum(lengths)))
    validity = (
        pa.array(pc.is_valid(texts).to_numpy(zero_copy_only=False)).buffers()[1]
        if texts.null_count
        else None
    )
    buffers = [validity, pa.py_buffer(ends), pa.py_buffer(folded[kept])]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers, texts.null_count)


def _normalize_unicode(texts: pa.Array) -> pa.Array:
    # up, then down again: ς, σ and Σ become one
    folded = pc.utf8_lower(pc.utf8_upper(pc.utf8_normalize(texts, form="NFKD")))
    kept = pc.replace_substring_regex(folded, _DROPPED, "")
    bare = (
        pc.replace_substring_regex(folded, _BLANKS, "")
        if pc.any(pc.equal(kept, "")).as_py()
        else kept
    )
    return pc.if_else(pc.equal(kept, ""), bare, kept)


def digests(normalized: pa.ChunkedArray) -> Digests:
    """(texts, 2): the first 128 bits of SHA-256 of each text's UTF-8, in two halves, by which texts are told apart.

    Null counts as no characters.
    """
    halves = "('0x' || digest[:16])::UBIGINT AS high, ('0x' || digest[17:32])::UBIGINT AS low"
    with duckdb.connect() as connection:
        connection.register("rows", pa.table({"text": pc.fill_null(normalized, "")}))
        found = connection.sql(
            f"SELECT {halves} FROM (SELECT sha256(text) AS digest FROM rows)"
        ).to_arrow_table()
    return np.column_stack((found["high"].to_numpy(), found["low"].to_numpy()))


def positions(found: Digests) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each digest, evenly spread: its first 52 bits."""
    numbers: npt.NDArray[np.float64] = (found[:, 0] >> np.uint64(12)).astype(np.float64)
    return numbers / 2.0**52
