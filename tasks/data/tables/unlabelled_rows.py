"""Rows without labels: read by ingest, kept apart from the rows that are split.

unlabelled.parquet   row (int64, from 0) and the problem's text column; in the directories of the
                     data stages, where `ingest.unlabelled` names sources
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.addresses import LocalFile
from tasks.core.errors import DataError, ParamsError, PipelineError
from tasks.data.tables.mending import Mender
from tasks.data.tables.row_files import read_batches

if TYPE_CHECKING:
    from tasks.data.row_format import RowFormat
    from tasks.params.ingestion import Source

UNLABELLED = "unlabelled.parquet"


def require_one_text(row_format: RowFormat) -> str:
    """The only text column of the row format; ParamsError if it has none or several."""
    if len(row_format.text_columns) != 1:
        raise ParamsError(
            f"ingest.unlabelled: a row of {row_format.name} is not one text.",
            "Set ingest.unlabelled to [].",
        )
    return row_format.text_columns[0]


def write_unlabelled(
    directory: Path,
    row_format: RowFormat,
    sources: Sequence[Source],
    fetched: Sequence[Sequence[LocalFile]],
    mapping: Mapping[str, tuple[str, ...]],
) -> None:
    """Write the texts of the sources' files. Blank texts are left out.

    mapping  the problem's column -> source columns; without the text's, it has its own name
    Raises DataError if a file cannot be read or no text is left.
    """
    column = require_one_text(row_format)
    wanted = mapping.get(column, (column,))
    if len(wanted) != 1:
        raise ParamsError(
            f"ingest.unlabelled: the text is made of {' and '.join(wanted)}.",
            "Join them into one column, and name it in ingest.columns.",
        )
    schema = pa.schema([("row", pa.int64()), (column, pa.string())])
    mender, count = Mender(("row",)), 0
    with pq.ParquetWriter(directory / UNLABELLED, schema, compression="zstd") as writer:
        for source, files in zip(sources, fetched, strict=True):
            for file in files:
                for texts in _texts(source, file, wanted[0], row_format):
                    numbers = pa.array(range(count, count + len(texts)), pa.int64())
                    rows = pa.record_batch([numbers, texts.cast(pa.string())], schema=schema)
                    writer.write_batch(mender.mend(rows))
                    count += len(texts)
    if not count:
        raise DataError(
            "ingest.unlabelled: the sources hold no text.", "Give rows, or set it to []."
        )


def _texts(
    source: Source, file: LocalFile, column: str, row_format: RowFormat
) -> Iterator[pa.Array]:
    local = source.model_copy(update={"url": str(file.path)})
    try:
        for batch in read_batches(local, [column], row_format):
            texts = batch.inputs[column]
            written = pc.not_equal(pc.utf8_trim_whitespace(texts), "")
            yield texts.filter(pc.fill_null(written, False))
    except PipelineError as error:
        error.message = error.message.replace(str(file.path), file.name, 1)
        raise
