"""Predictions with a registered version or a bundle, for texts or for a whole file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from applications.prediction_files import WRITERS, prediction_writer
from tasks.core.errors import ParamsError, RegistryError
from tasks.core.files import atomic_path
from tasks.data.tables.row_files import Batch, read_batches
from tasks.inference.prediction_names import PREFIX, named, require_free
from tasks.monitoring.input_log import log_inputs
from tasks.params.workspace import Workspace

if TYPE_CHECKING:
    from tasks.inference.predictor import Predictor

Rows = list[dict[str, Any]]
Log = Callable[[Rows], None]  # is handed every row's inputs with its prediction


@dataclass(frozen=True)
class Predicted:
    """A row as it came, what the model read of it, and what it says."""

    row: dict[str, Any]
    inputs: dict[str, Any]
    prediction: dict[str, Any]

    def plain(self, prefix: str) -> dict[str, Any]:
        """For JSON."""
        return self.row | named(self.prediction, prefix)


def load_predictor(
    workspace: Workspace | None, *, bundle: Path | None, alias: str | None, version: int | None
) -> tuple[Predictor, str]:
    """The bundle named, or the workspace's version named, or its newest; and what it is called, a version's number where it has one."""
    from tasks.inference.bundle import MODEL, open_bundle
    from tasks.inference.predictor import Predictor
    from tasks.problems import load_problem, problem_names

    number = registered = None
    if bundle is None:
        assert workspace is not None
        bundle, number, registered = _registered_bundle(workspace, alias, version)
    info = open_bundle(bundle, problem_names(), registered)
    return Predictor(
        info, load_problem(info.problem)
    ), number or f"bundle {info.files[MODEL].sha256[:12]}"


def make_log(workspace: Workspace, predictor: Predictor, version: str) -> Log:
    """Where `ratchet retrain` looks for drift: inputs with label and score, without a file's other columns."""
    folder = workspace.root / workspace.params().retrain.drift.inputs
    inputs = predictor.problem.example()

    def log(rows: Rows) -> None:
        kept = [
            {
                column: row[column]
                for column in (*inputs, "label", "labels", "score")
                if column in row
            }
            for row in rows
        ]
        log_inputs(folder, kept, version)

    return log


def predict_texts(
    predictor: Predictor, texts: list[str], log: Log | None = None
) -> list[Predicted]:
    """One prediction a text (a pair of texts, where the problem takes pairs, and so on)."""
    columns = list(predictor.problem.example())
    if len(texts) % len(columns):
        raise ParamsError(
            f"predict: {len(texts)} texts, {predictor.problem.name} takes {' and '.join(columns)}, one after the other."
        )
    inputs = {column: texts[place :: len(columns)] for place, column in enumerate(columns)}
    rows = _columns_to_rows(inputs)
    return _predict(predictor, rows, rows, log)


def predict_rows(
    predictor: Predictor, source: Path, prefix: str, log: Log | None = None
) -> list[Predicted]:
    """The predictions of a CSV, TSV, JSON, JSONL or Parquet file, with its rows. Raises DataError if a row cannot be read."""
    found: list[Predicted] = []
    for batch in _batches(predictor, source, prefix):
        found += _predict(predictor, batch.values(), batch.inputs.to_pylist(), log)
    return found


def predict_file(
    predictor: Predictor, source: Path, target: Path, prefix: str = PREFIX, log: Log | None = None
) -> int:
    """Write a file's rows with their predictions to `target`, in the format of its ending; returns how many.

    Every column of the file stays as it is, the predictions come after them; rows out = rows in. Raises DataError, and writes nothing,
    if a row cannot be read, and ParamsError where a prediction would be called as a column is.
    """
    if target.suffix not in WRITERS:
        raise ParamsError(
            f"--output {target}: its ending does not say what format to write.",
            f"Wanted one of {', '.join(WRITERS)}.",
        )
    count = 0
    with (
        atomic_path(target) as new,
        prediction_writer(new, named(prediction_example(predictor), prefix)) as write,
    ):
        for batch in _batches(predictor, source, prefix):
            found = _predict(predictor, None, batch.inputs.to_pylist(), log)
            write(batch, [named(one.prediction, prefix) for one in found])
            count += len(found)
    return count


def prediction_example(predictor: Predictor) -> dict[str, Any]:
    """A prediction that has every part that one may have."""
    problem = predictor.problem
    return (
        problem.prediction_example(predictor.info.labels) or predictor.predict(problem.example())[0]
    )


def _batches(predictor: Predictor, source: Path, prefix: str) -> Iterator[Batch]:
    for number, batch in enumerate(
        read_batches(source, predictor.problem.example(), predictor.problem)
    ):
        if not number:
            require_free(
                batch.rows.schema.names, prediction_example(predictor), prefix, str(source)
            )
        yield batch


def _predict(
    predictor: Predictor, rows: Rows | None, inputs: Rows, log: Log | None
) -> list[Predicted]:
    """The predictions of `inputs`, with the `rows` that they are of where these are wanted."""
    # an empty cell is an empty text; whether it should be there is for validation to say
    filled = [
        {name: "" if value is None else value for name, value in row.items()} for row in inputs
    ]
    columns = {column: [row[column] for row in filled] for column in predictor.problem.example()}
    predictions = predictor.predict(columns) if filled else []
    found = [
        Predicted(*of)
        for of in zip(filled if rows is None else rows, filled, predictions, strict=True)
    ]
    if log is not None and found:
        log([one.inputs | one.prediction for one in found])
    return found


def _columns_to_rows(columns: dict[str, list[str]]) -> Rows:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _registered_bundle(
    workspace: Workspace, alias: str | None, version: int | None
) -> tuple[Path, str, str]:
    """(directory, number, sha256 of its manifest)."""
    from tasks.lifecycle.ledger import open_ledger
    from tasks.lifecycle.registry import (
        CHAMPION,
        connect,
        download_bundle,
        mlflow_errors,
        registered_sha256,
        versions,
    )

    name = workspace.params().model_name
    uri = os.environ["MLFLOW_TRACKING_URI"]
    remedy = "Run `ratchet train`, or see `ratchet status`."
    if uri == workspace.default_tracking_uri and not workspace.mlflow_database.is_file():
        raise RegistryError(f"{name}: no version is registered.", remedy)
    client, _ = connect(uri, workspace.store, name)
    with mlflow_errors(uri):
        if alias == CHAMPION:
            open_ledger(
                client, uri, workspace.store, name
            ).settle()  # no version that a crash or a pause left there
        known = versions(client, name)
        wanted = [
            v
            for v in known
            if (alias is None or alias in v.aliases)
            and (version is None or int(v.version) == version)
        ]
    if not known:
        raise RegistryError(f"{name}: no version is registered.", remedy)
    if not wanted:
        asked = " and ".join(
            [f"alias '{alias}'"] * (alias is not None)
            + [f"number {version}"] * (version is not None)
        )
        there = ", ".join(
            f"{v.version} ({', '.join(v.aliases)})" if v.aliases else str(v.version) for v in known
        )
        raise RegistryError(
            f"{name}: no version{' with ' + asked if asked else ''} is registered. There is: {there}.",
            remedy,
        )
    with mlflow_errors(uri):
        directory = download_bundle(client, wanted[0], workspace.store / "downloads")
    return directory, str(wanted[0].version), registered_sha256(wanted[0])
