"""Predictions with a registered version or a bundle, for texts or for a whole file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError, ParamsError, RegistryError, did_you_mean
from tasks.core.files import atomic_path
from tasks.core.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.core.predictor import Predictor

BATCH_ROWS = 4096  # rows in memory at a time
WRITERS = (".csv", ".tsv", ".jsonl", ".parquet")


def load_predictor(workspace: Workspace | None, *, bundle: Path | None, alias: str | None, version: int | None) -> Predictor:
    """The bundle named, or the workspace's version named, or its newest."""
    from tasks.core.bundle import open_bundle
    from tasks.core.predictor import Predictor
    from tasks.problems import load_problem, problem_names

    directory = bundle if workspace is None else _registered_bundle(workspace, alias, version)
    assert directory is not None
    info = open_bundle(directory, problem_names())
    return Predictor(info, load_problem(info.problem))


def predict_texts(predictor: Predictor, texts: list[str]) -> list[dict[str, Any]]:
    """One prediction a text, with the text."""
    (column,) = predictor.problem.example()
    found = predictor.predict({column: texts})
    return [{column: text, **prediction} for text, prediction in zip(texts, found, strict=True)]


def predict_file(predictor: Predictor, source: Path, target: Path | None) -> tuple[int, list[dict[str, Any]]]:
    """(rows, predictions) of a CSV, TSV, JSONL or Parquet file; written to `target`, in the format of its ending, or returned.

    The file's other columns are kept; rows out = rows in. Raises DataError, and writes nothing, if a row cannot be read.
    """
    if target is None:
        rows = [row for batch in _read(source, predictor) for row in _predicted(predictor, batch)]
        return len(rows), rows
    if target.suffix not in WRITERS:
        raise ParamsError(f"--output {target}: its ending does not say what format to write.", f"Wanted one of {', '.join(WRITERS)}.")
    count = 0
    with atomic_path(target) as new, _writer(new) as write:
        for batch in _read(source, predictor):
            write(_predicted(predictor, batch))
            count += batch.num_rows
    return count, []


def _registered_bundle(workspace: Workspace, alias: str | None, version: int | None) -> Path:
    from tasks.core.registry import connect, download_bundle, mlflow_errors, versions

    name = workspace.params().model_name
    uri = os.environ["MLFLOW_TRACKING_URI"]
    remedy = "Run `ratchet train`, or see `ratchet status`."
    if uri == workspace.default_tracking_uri and not workspace.mlflow_database.is_file():
        raise RegistryError(f"{name}: no version is registered.", remedy)
    client, _ = connect(uri, workspace.store, name)
    with mlflow_errors(uri):
        known = versions(client, name)
        wanted = [v for v in known if (alias is None or alias in v.aliases) and (version is None or int(v.version) == version)]
    if not wanted:
        asked = " and ".join([f"alias '{alias}'"] * (alias is not None) + [f"number {version}"] * (version is not None))
        there = ", ".join(f"{v.version} ({', '.join(v.aliases)})" if v.aliases else str(v.version) for v in known) or "none"
        raise RegistryError(f"{name}: no version{' with ' + asked if asked else ''} is registered. There is: {there}.", remedy)
    with mlflow_errors(uri):
        return download_bundle(client, wanted[0], workspace.store / "downloads")


def _read(source: Path, predictor: Predictor) -> Iterator[pa.RecordBatch]:
    import duckdb

    from tasks.core.loaded import FILE, LINE, Loaded, quoted
    from tasks.core.params import Source
    from tasks.core.tables import load

    if not source.is_file():
        raise DataError(f"{source}: no such file.", "Check the path.")
    loaded = Loaded("rows", source.name)
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar=false")
        load(connection, source, loaded, Source(url=str(source)), None, Path(scratch))
        if loaded.quarantine:
            first = loaded.quarantine[0]
            count = len(loaded.quarantine)
            raise DataError(f"{source}: {count} rows cannot be read; line {first['line']}: {first['reason']}.", "Mend or remove them.")
        missing = [
            f"'{column}'.{did_you_mean(column, loaded.columns)}" for column in predictor.problem.example() if column not in loaded.columns
        ]
        if missing:
            raise DataError(
                f"{source}: there is no column {' and no '.join(missing)} Found: {', '.join(loaded.columns)}.", "Rename the column."
            )
        columns = ", ".join(quoted(column) for column in loaded.columns if column not in (FILE, LINE))
        yield from connection.cursor().sql(f"SELECT {columns} FROM rows ORDER BY {LINE}").to_arrow_reader(BATCH_ROWS)


def _predicted(predictor: Predictor, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    rows = batch.to_pylist()
    # an empty cell is an empty text; whether it should be there is for validation to say
    inputs = {column: [str(row[column] or "") for row in rows] for column in predictor.problem.example()}
    return [{**row, **prediction} for row, prediction in zip(rows, predictor.predict(inputs), strict=True)]


@contextmanager
def _writer(path: Path) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """A function that appends rows to a file in the format of its ending."""
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            yield lambda rows: file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        return
    options = pc.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
    writer: Any = None

    def write(rows: list[dict[str, Any]]) -> None:
        nonlocal writer
        table = pa.Table.from_pylist([_flat(row) for row in rows])
        if writer is None:
            parquet = path.suffix == ".parquet"
            writer = pq.ParquetWriter(path, table.schema) if parquet else pc.CSVWriter(path, table.schema, write_options=options)
        writer.write_table(table.cast(writer.schema) if path.suffix == ".parquet" else table)

    path.touch()
    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Nested values as columns of their own: `scores` becomes `scores.negative`, `scores.positive`."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= {f"{key}.{inner}": item for inner, item in value.items()} if isinstance(value, dict) else {key: value}
    return flat
