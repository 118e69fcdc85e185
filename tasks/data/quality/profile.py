"""Summary statistics of the rows for the report: labels, lengths, sources, further columns.

DuckDB counts them on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data.quality.personal_data import mask
from tasks.data.tables.loaded import FILE, LINE, escape_glob, literal, quoted, scalar

_BINS = 20
_TOP = 20  # values shown per column
_LOOKED_AT = 10_000  # most frequent values; several may look the same once masked
_READ = 321  # characters of a value: one more than `mask` reads
_PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)


def profile(
    file: Path, texts: Sequence[str], label: str | None, columns: Sequence[str]
) -> dict[str, Any]:
    """Statistics of the rows as plain JSON.

    file      Parquet file of the rows
    texts     names of the text columns
    label     name of the label column; its values may be lists
    columns   names of all columns the problem uses; the others are counted by value
    """
    schema = pq.read_schema(file)
    nested = {field.name for field in schema if pa.types.is_nested(field.type)}
    with _rows(file) as connection:
        count = scalar(connection, "SELECT count(*) FROM rows")
        label_counts = None
        if label is not None:
            labels = f"unnest({quoted(label)})" if label in nested else quoted(label)
            label_counts = _counts(connection, labels, count)
        return {
            "rows": count,
            "labels": label_counts,
            "lengths": {name: _lengths(connection, name) for name in texts},
            "files": _counts(connection, FILE, count) if FILE in schema.names else {},
            "columns": {
                field.name: _extra(connection, field)
                for field in schema
                if field.name not in {*columns, "row", FILE, LINE}
            },
        }


@contextmanager
def _rows(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(
            "SET enable_progress_bar=false; SET memory_limit='500MB'; "
            f"SET temp_directory={literal(str(file.parent))}"
        )
        connection.execute(
            "CREATE VIEW rows AS SELECT * FROM read_parquet("
            f"{literal(escape_glob(file))}, hive_partitioning=false, filename=false)"
        )
        yield connection


def _counts(
    connection: duckdb.DuckDBPyConnection, value: str, top: int, show: Callable[[str], str] = str
) -> dict[str, int]:
    """The `top` most frequent values, as shown: value -> rows, most frequent first."""
    query = (
        f"SELECT value, count(*) AS n FROM (SELECT {value} AS value FROM rows) "
        f"GROUP BY 1 ORDER BY n DESC, value::VARCHAR LIMIT {max(_LOOKED_AT, top)}"
    )
    counts: dict[str, int] = {}
    for row_value, count in connection.execute(query).fetchall():
        shown = show(str(row_value))
        if shown in counts or len(counts) < top:
            counts[shown] = counts.get(shown, 0) + count
    return counts


def _extra(connection: duckdb.DuckDBPyConnection, field: pa.Field) -> dict[str, Any]:
    column = quoted(field.name)
    nulls = scalar(connection, f"SELECT count(*) - count({column}) FROM rows")
    if pa.types.is_nested(field.type):
        return {"distinct": None, "nulls": nulls, "top": {}}
    # values may be long: compare hashes, and read no more of a text than is shown
    distinct = scalar(
        connection, f"SELECT count(DISTINCT hash({column})) FROM rows WHERE {column} IS NOT NULL"
    )
    is_text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    shown = f"left({column}, {_READ})" if is_text else column
    return {"distinct": distinct, "nulls": nulls, "top": _counts(connection, shown, _TOP, mask)}


def _lengths(connection: duckdb.DuckDBPyConnection, column: str) -> dict[str, Any]:
    """Histogram of text lengths in characters, with their mean and percentiles.

    `counts[i]` texts are in [`edges[i]`, `edges[i + 1]`); the last bin takes all longer ones.
    """
    text = quoted(column)
    histogram = connection.execute(
        f"SELECT length({text}) AS n, count(*) AS texts FROM rows "
        f"WHERE {text} IS NOT NULL GROUP BY 1 ORDER BY 1"
    ).fetchnumpy()
    lengths, texts = (np.asarray(histogram[name], np.int64) for name in ("n", "texts"))
    if not len(lengths):
        return {"mean": None, "percentiles": {}, "edges": [], "counts": []}
    ends = np.cumsum(texts)
    ranks = [int(p / 100 * (ends[-1] - 1)) for p in _PERCENTILES]
    percentiles = {
        f"p{p}": int(lengths[np.searchsorted(ends, rank, "right")])
        for p, rank in zip(_PERCENTILES, ranks, strict=True)
    }
    # a few very long texts must not squeeze the others into one bin
    width = max(1, -(-(percentiles["p99"] + 1) // _BINS))
    counts = np.bincount(np.minimum(lengths // width, _BINS - 1), texts, minlength=_BINS)
    return {
        "mean": round(float(lengths @ texts / ends[-1]), 2),
        "percentiles": percentiles,
        "edges": [i * width for i in range(_BINS)] + [max(_BINS * width, percentiles["p100"] + 1)],
        "counts": counts.astype(np.int64).tolist(),
    }
