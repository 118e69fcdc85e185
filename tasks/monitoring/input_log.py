"""Log of the inputs that a model answered: JSONL files written by `ratchet predict --log`.

The drift trigger reads them. A file is written once, atomically, so writers need no lock and old
files can be moved away at any time. Each line holds the input columns, the predicted `label` and
`score`, the `time` (ISO, UTC) and the `version` that answered.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError
from tasks.core.files import write_jsonl
from tasks.data.tables.loaded import escape_glob, is_resource_error, one_line, quoted

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_READERS = {
    ".jsonl": "read_json(?, format='newline_delimited', records=true, columns={columns}, "
    "filename={file})",
    ".parquet": "read_parquet(?, union_by_name=true, hive_partitioning=false, filename={file})",
}
_FILE = "_log_file"
_SKIPPED = (".", "_")  # prefixes of scratch files, and of other tools' marks such as _SUCCESS
_REMEDY = (
    "Move it away, or write it again; `retrain.drift.inputs` in params.yaml names what is read."
)


def log_inputs(folder: Path, predictions: list[dict[str, Any]], version: str) -> Path:
    """Write predictions with their inputs to a new file, and return its path.

    File names sort by time. The file appears whole or not at all, even with concurrent writers.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(
            f"{folder}: is a file; inputs are logged to a folder.",
            "Name a folder in `retrain.drift.inputs` of params.yaml.",
        )
    now = datetime.now(UTC)
    file = folder / f"{now:%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(8)}.jsonl"
    stamp = {"time": now.isoformat(), "version": version}
    write_jsonl(file, [stamp | row for row in predictions])
    return file


def read_inputs(path: Path, columns: Sequence[str]) -> pa.Table:
    """The named columns as texts, with null as ''.

    path  a Parquet or JSONL file, or a folder that is searched recursively
    Raises DataError naming a file that is half-written, of another format, or lacks a column.
    """
    import duckdb
    import pyarrow as pa

    files = _files(path)
    by_suffix = {suffix: [file for file in files if file.suffix == suffix] for suffix in _READERS}
    # DuckDB spills to the scratch directory, not to the working directory
    with (
        tempfile.TemporaryDirectory() as scratch,
        duckdb.connect(config={"temp_directory": scratch}) as connection,
    ):
        connection.execute("SET enable_progress_bar=false")
        tables = [
            _read(connection, suffix, group, columns)
            for suffix, group in by_suffix.items()
            if group
        ]
    schema = pa.schema([(column, pa.large_string()) for column in columns])
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder.", "Check `retrain.drift.inputs` in params.yaml."
        )
    files = [path] if path.is_file() else []
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(_SKIPPED))
        files += [Path(folder) / name for name in sorted(names) if not name.startswith(_SKIPPED)]
    foreign = [str(file) for file in files if file.suffix not in _READERS]
    if foreign:
        raise DataError(f"{', '.join(foreign[:5])}: neither {' nor '.join(_READERS)}.", _REMEDY)
    return files


def _read(
    connection: duckdb.DuckDBPyConnection,
    suffix: str,
    files: Sequence[Path],
    columns: Sequence[str],
) -> pa.Table:
    """All files, of one format; a DataError names the first that cannot be read."""
    import duckdb

    file_format = suffix[1:]
    try:
        return _query(connection, suffix, files, columns)
    except duckdb.Error as error:
        if is_resource_error(error):
            raise
        if len(files) == 1:
            # DuckDB's advice after " Try " is about options of its own
            reason = one_line(error).partition(" Try ")[0]
            problem = f"{files[0]}: cannot be read as {file_format}: {reason}"
            raise DataError(problem, _REMEDY) from None
    for file in files:  # find the one at fault
        _read(connection, suffix, [file], columns)
    raise DataError(f"{files[0].parent}: its {file_format} files cannot be read together.", _REMEDY)


def _query(
    connection: duckdb.DuckDBPyConnection,
    suffix: str,
    files: Sequence[Path],
    columns: Sequence[str],
) -> pa.Table:
    names = [quoted(column) for column in columns]
    types = "{" + ", ".join(f"{name}: 'VARCHAR'" for name in names) + "}"
    reader = _READERS[suffix].format(columns=types, file=f"'{_FILE}'")
    params = [[escape_glob(file) for file in files]]
    filled = ", ".join(f"count({name})" for name in names)
    query = f"SELECT {_FILE}, {filled} FROM {reader} GROUP BY {_FILE} ORDER BY 1"
    for file, *counts in connection.execute(query, params).fetchall():
        # a missing key reads as null
        missing = [f"'{col}'" for col, count in zip(columns, counts, strict=True) if not count]
        if missing:
            raise DataError(f"{file}: no row has a {' or a '.join(missing)}.", _REMEDY)
    values = ", ".join(f"coalesce(CAST({name} AS VARCHAR), '') AS {name}" for name in names)
    return connection.sql(f"SELECT {values} FROM {reader}", params=params).to_arrow_table()
