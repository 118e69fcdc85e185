"""What a model was asked: a folder of JSONL files that `ratchet predict --log` writes and the drift trigger reads.

A file is written whole and never again: writers need no lock, and old files can be moved away at any time.
Each line holds the input columns, `label` and `score` as predicted, `time` (ISO, UTC) and the `version` that answered.
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
from tasks.data.tables.loaded import escape_glob, no_fault_of_data, one_line, quoted

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_READERS = {
    ".jsonl": "read_json(?, format='newline_delimited', records=true, columns={columns}, filename={file})",
    ".parquet": "read_parquet(?, union_by_name=true, hive_partitioning=false, filename={file})",
}
_FILE = "_log_file"
_NOT_OURS = (".", "_")  # names that begin so are scratch, or other tools' marks such as _SUCCESS
_REMEDY = "Move it away, or write it again; `retrain.drift.inputs` in params.yaml names where inputs are looked for."


def log_inputs(folder: Path, predictions: list[dict[str, Any]], version: str) -> Path:
    """Write predictions, with the inputs they are of, to one new file; returns it.

    Names sort by time. The file appears whole or not at all, whoever else writes to the folder.
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
    """The named columns as texts, of a Parquet or JSONL file or of all those in a folder and below it; null is ''.

    Raises DataError naming a file that is half-written, of another format, or without one of the columns.
    """
    import duckdb
    import pyarrow as pa

    files = _files(path)
    kinds = {kind: [file for file in files if file.suffix == kind] for kind in _READERS}
    # what does not fit into memory goes to the scratch directory, not to the working directory
    with (
        tempfile.TemporaryDirectory() as scratch,
        duckdb.connect(config={"temp_directory": scratch}) as connection,
    ):
        connection.execute("SET enable_progress_bar=false")
        tables = [_read(connection, kind, some, columns) for kind, some in kinds.items() if some]
    schema = pa.schema([(column, pa.large_string()) for column in columns])
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder.", "Check `retrain.drift.inputs` in params.yaml."
        )
    found = [path] if path.is_file() else []
    for place, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith(_NOT_OURS))
        found += [Path(place) / name for name in sorted(names) if not name.startswith(_NOT_OURS)]
    foreign = [str(file) for file in found if file.suffix not in _READERS]
    if foreign:
        raise DataError(f"{', '.join(foreign[:5])}: neither {' nor '.join(_READERS)}.", _REMEDY)
    return found


def _read(
    connection: duckdb.DuckDBPyConnection, kind: str, files: Sequence[Path], columns: Sequence[str]
) -> pa.Table:
    import duckdb

    try:
        return _query(connection, kind, files, columns)
    except duckdb.Error as error:
        if no_fault_of_data(error):
            raise
        if len(files) == 1:
            said = one_line(error).partition(" Try ")[
                0
            ]  # what follows is advice on DuckDB's own options
            raise DataError(f"{files[0]}: cannot be read as {kind[1:]}: {said}", _REMEDY) from None
    for file in files:  # the one at fault
        _read(connection, kind, [file], columns)
    raise DataError(f"{files[0].parent}: its {kind[1:]} files cannot be read together.", _REMEDY)


def _query(
    connection: duckdb.DuckDBPyConnection, kind: str, files: Sequence[Path], columns: Sequence[str]
) -> pa.Table:
    types = "{" + ", ".join(f"{quoted(column)}: 'VARCHAR'" for column in columns) + "}"
    reader = _READERS[kind].format(columns=types, file=f"'{_FILE}'")
    names = [[escape_glob(file) for file in files]]
    filled = ", ".join(f"count({quoted(column)})" for column in columns)
    for file, *counts in connection.execute(
        f"SELECT {_FILE}, {filled} FROM {reader} GROUP BY {_FILE} ORDER BY 1", names
    ).fetchall():
        # a key that is not there reads as null
        missing = [
            f"'{column}'" for column, count in zip(columns, counts, strict=True) if not count
        ]
        if missing:
            raise DataError(f"{file}: no row has a {' or a '.join(missing)}.", _REMEDY)
    values = ", ".join(
        f"coalesce(CAST({quoted(column)} AS VARCHAR), '') AS {quoted(column)}" for column in columns
    )
    return connection.sql(f"SELECT {values} FROM {reader}", params=names).to_arrow_table()
