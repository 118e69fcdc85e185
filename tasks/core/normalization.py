"""When two texts count as the same, and a number in [0, 1) that depends on nothing else.

Normalized: compatibility forms made plain (full-width, ligatures), case and accents of Latin, Greek and Cyrillic aside, then only
letters, their marks, numbers and pictures (emoji) kept, taken apart (NFKD): no blanks, punctuation or signs. A text of nothing but
punctuation keeps it. The Unicode tables behind this change for newly assigned characters only, so a text keeps its number from
version to version.
"""

from __future__ import annotations

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
_BATCH_ROWS = 50_000


def normalize_rows(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """One normalized text a row, of its text columns together; null where one of them is null.

    columns   text columns of the same table
    """
    table = pa.table([column.cast(pa.large_string()) for column in columns], [str(i) for i in range(len(columns))])
    # pyarrow lets go of the interpreter's lock while it computes
    with ThreadPoolExecutor() as pool:
        batches = list(pool.map(_normalize_batch, table.to_batches(_BATCH_ROWS)))
    return pa.chunked_array(batches, pa.large_string())


def _normalize_batch(batch: pa.RecordBatch) -> pa.Array:
    texts = [_normalize(column) for column in batch.columns]
    return texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, pa.scalar(SEPARATOR, pa.large_string()))


def _normalize(texts: pa.Array) -> pa.Array:
    # up, then down again: ς, σ and Σ become one
    folded = pc.utf8_lower(pc.utf8_upper(pc.utf8_normalize(texts, form="NFKD")))
    kept = pc.replace_substring_regex(folded, _DROPPED, "")
    bare = pc.replace_substring_regex(folded, _BLANKS, "") if pc.any(pc.equal(kept, "")).as_py() else kept
    return pc.if_else(pc.equal(kept, ""), bare, kept)


def positions(normalized: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each text, evenly spread: the first 52 bits of SHA-256 of its UTF-8."""
    with duckdb.connect() as connection:
        connection.register("rows", pa.table({"text": normalized}))
        found = connection.sql("SELECT ('0x' || sha256(text)[:13])::BIGINT AS bits FROM rows").to_arrow_table()
    bits: npt.NDArray[np.int64] = found["bits"].to_numpy()
    return bits / 2.0**52
