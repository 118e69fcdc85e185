"""Predictions with a registered version or a bundle, for texts or for a whole file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import ParamsError, RegistryError
from tasks.core.files import atomic_path
from tasks.core.input_log import log_inputs
from tasks.core.row_files import read_batches
from tasks.core.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.core.predictor import Predictor

WRITERS = (".csv", ".tsv", ".jsonl", ".parquet")

Rows = list[dict[str, Any]]
Log = Callable[[Rows], None]  # is handed every row with its prediction


def load_predictor(workspace: Workspace | None, *, bundle: Path | None, alias: str | None, version: int | None) -> tuple[Predictor, str]:
    """The bundle named, or the workspace's version named, or its newest; and what it is called, a version's number where it has one."""
    from tasks.core.bundle import MODEL, open_bundle
    from tasks.core.predictor import Predictor
    from tasks.problems import load_problem, problem_names

    number = registered = None
    if bundle is None:
        assert workspace is not None
        bundle, number, registered = _registered_bundle(workspace, alias, version)
    info = open_bundle(bundle, problem_names(), registered)
    return Predictor(info, load_problem(info.problem)), number or f"bundle {info.files[MODEL].sha256[:12]}"


def make_log(workspace: Workspace, predictor: Predictor, version: str) -> Log:
    """Where `ratchet retrain` looks for drift: inputs with label and score, without a file's other columns."""
    folder = workspace.root / workspace.params().retrain.drift.inputs
    inputs = predictor.problem.example()

    def log(rows: Rows) -> None:
        kept = [
            # null was an empty text to the model
            {column: "" if row[column] is None else row[column] for column in (*inputs, "label", "labels", "score") if column in row}
            for row in rows
        ]
        log_inputs(folder, kept, version)

    return log


def predict_texts(predictor: Predictor, texts: list[str], log: Log | None = None) -> Rows:
    """One prediction a text (a pair of texts, where the problem takes pairs, and so on), with the text."""
    columns = list(predictor.problem.example())
    if len(texts) % len(columns):
        raise ParamsError(f"predict: {len(texts)} texts, {predictor.problem.name} takes {' and '.join(columns)}, one after the other.")
    inputs = {column: texts[place :: len(columns)] for place, column in enumerate(columns)}
    found = predictor.predict(inputs)
    rows = [
        {**dict(zip(columns, row, strict=True)), **prediction}
        for row, prediction in zip(zip(*inputs.values(), strict=True), found, strict=True)
    ]
    if log is not None:
        log(rows)
    return rows


def predict_file(predictor: Predictor, source: Path, target: Path | None, log: Log | None = None) -> tuple[int, Rows]:
    """(rows, predictions) of a CSV, TSV, JSONL or Parquet file; written to `target`, in the format of its ending, or returned.

    The file's other columns are kept; rows out = rows in. Raises DataError, and writes nothing, if a row cannot be read.
    """
    batches = _predictions(predictor, source, log)
    if target is None:
        rows = [row for batch in batches for row in batch]
        return len(rows), rows
    if target.suffix not in WRITERS:
        raise ParamsError(f"--output {target}: its ending does not say what format to write.", f"Wanted one of {', '.join(WRITERS)}.")
    count = 0
    example = predictor.problem.prediction_example(predictor.info.labels)
    with atomic_path(target) as new, _writer(new, example) as write:
        for batch in batches:
            write(batch)
            count += len(batch)
    return count, []


def _registered_bundle(workspace: Workspace, alias: str | None, version: int | None) -> tuple[Path, str, str]:
    """(directory, number, sha256 of its manifest)."""
    from tasks.core.ledger import open_ledger
    from tasks.core.registry import CHAMPION, connect, download_bundle, mlflow_errors, registered_sha256, versions

    name = workspace.params().model_name
    uri = os.environ["MLFLOW_TRACKING_URI"]
    remedy = "Run `ratchet train`, or see `ratchet status`."
    if uri == workspace.default_tracking_uri and not workspace.mlflow_database.is_file():
        raise RegistryError(f"{name}: no version is registered.", remedy)
    client, _ = connect(uri, workspace.store, name)
    with mlflow_errors(uri):
        if alias == CHAMPION:
            open_ledger(client, uri, workspace.store, name).settle()  # no version that a crash or a pause left there
        known = versions(client, name)
        wanted = [v for v in known if (alias is None or alias in v.aliases) and (version is None or int(v.version) == version)]
    if not known:
        raise RegistryError(f"{name}: no version is registered.", remedy)
    if not wanted:
        asked = " and ".join([f"alias '{alias}'"] * (alias is not None) + [f"number {version}"] * (version is not None))
        there = ", ".join(f"{v.version} ({', '.join(v.aliases)})" if v.aliases else str(v.version) for v in known)
        raise RegistryError(f"{name}: no version{' with ' + asked if asked else ''} is registered. There is: {there}.", remedy)
    with mlflow_errors(uri):
        directory = download_bundle(client, wanted[0], workspace.store / "downloads")
    return directory, str(wanted[0].version), registered_sha256(wanted[0])


def _predictions(predictor: Predictor, source: Path, log: Log | None) -> Iterator[Rows]:
    for batch in read_batches(source, predictor.problem.example(), predictor.problem.types):
        rows = _predicted(predictor, batch)
        if log is not None:
            log(rows)
        yield rows


def _predicted(predictor: Predictor, batch: pa.RecordBatch) -> Rows:
    rows = batch.to_pylist()
    # an empty cell is an empty text; whether it should be there is for validation to say
    inputs = {column: ["" if row[column] is None else row[column] for row in rows] for column in predictor.problem.example()}
    return [{**row, **prediction} for row, prediction in zip(rows, predictor.predict(inputs), strict=True)]


@contextmanager
def _writer(path: Path, example: dict[str, Any] | None) -> Iterator[Callable[[Rows], None]]:
    """A function that appends rows to a file in the format of its ending.

    example  a prediction from which types can be told that the rows may not show; None: they show them
    """
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            yield lambda rows: file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        return
    options = pc.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
    parquet = path.suffix == ".parquet"
    parts = pa.Table.from_pylist([_flat(example or {})]).schema
    writer: Any = None

    def write(rows: Rows) -> None:
        nonlocal writer
        table = pa.Table.from_pylist([_flat(row) if parquet else _cells(_flat(row)) for row in rows])
        if parquet:  # what no row of the batch has would have no type
            named = {name: table.schema.field(name).type for name in table.column_names} | {
                name: parts.field(name).type for name in parts.names
            }
            table = table.cast(pa.schema(named))
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema) if parquet else pc.CSVWriter(path, table.schema, write_options=options)
        writer.write_table(table.cast(writer.schema) if parquet else table)

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


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """Lists as CSV and TSV hold them: 'a|b', as ingest reads them; what is no list of texts as JSON."""
    return {key: _cell(value) if isinstance(value, list) else value for key, value in row.items()}


def _cell(values: list[Any]) -> str:
    plain = all(isinstance(value, str) and "|" not in value for value in values)
    return "|".join(values) if plain else json.dumps(values, ensure_ascii=False, default=str)
