"""Predictions with a registered version or a bundle, for texts or a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from applications.prediction_files import WRITERS, prediction_writer
from tasks.core.errors import ParamsError
from tasks.core.files import atomic_path
from tasks.data.tables.row_files import Batch, read_batches
from tasks.inference.prediction_names import PREFIX, named, require_free
from tasks.monitoring.input_log import log_inputs
from tasks.params.workspace import Workspace
from tasks.problems import load_problem, problem_names

if TYPE_CHECKING:
    from tasks.inference.predictor import Predictor
    from tasks.params.ingestion import Source

Rows = list[dict[str, Any]]
Log = Callable[[Rows], None]  # receives each row's inputs and prediction


@dataclass(frozen=True)
class Predicted:
    """An input row, the columns that the model read, and its prediction."""

    row: dict[str, Any]
    inputs: dict[str, Any]
    prediction: dict[str, Any]

    def plain(self, prefix: str) -> dict[str, Any]:
        """The row and its prediction as JSON values."""
        return self.row | named(self.prediction, prefix)


@dataclass(frozen=True)
class Loaded:
    """A model ready to predict.

    version  the version's number, or the hash of an unregistered bundle
    name     for people: 'version 3 (champion)'
    note     what to know if the champion was made outside the gates; else ''
    """

    predictor: Predictor
    version: str
    name: str
    note: str = ""


def load_predictor(
    workspace: Workspace | None, *, bundle: Path | None, alias: str | None, version: int | None
) -> Loaded:
    """Load a bundle, or the workspace's version by alias or number.

    By default the champion; the newest version, if none was promoted.
    """
    from tasks.inference.bundle import MODEL, open_bundle
    from tasks.inference.predictor import Predictor

    if bundle is not None:
        info = open_bundle(bundle, problem_names())
        number = f"bundle {info.files[MODEL].sha256[:12]}"
        return Loaded(Predictor(info, load_problem(info.problem)), number, f"the bundle {bundle}")
    from tasks.lifecycle.model_registry import ModelRegistry
    from tasks.lifecycle.registry import CHAMPION

    assert workspace is not None
    registry = ModelRegistry(workspace)
    registered = registry.find_version(alias, version)
    info = registered.open(problem_names())
    note = registry.outside_the_gates() if alias in (None, CHAMPION) and version is None else ""
    predictor = Predictor(info, load_problem(info.problem))
    return Loaded(predictor, str(registered.number), registered.title, note)


def make_log(workspace: Workspace, predictor: Predictor, version: str) -> Log:
    """A log of inputs with label and score, for the drift trigger of `ratchet retrain`.

    A file's other columns are left out.
    """
    folder = workspace.root / workspace.params().retrain.drift.inputs
    columns = (*predictor.problem.decoding.example(), "label", "labels", "score")

    def log(rows: Rows) -> None:
        kept = [{column: row[column] for column in columns if column in row} for row in rows]
        log_inputs(folder, kept, version)

    return log


def predict_texts(
    predictor: Predictor, texts: list[str], log: Log | None = None
) -> list[Predicted]:
    """Predict for each text, or each pair if the problem takes pairs, and so on."""
    columns = list(predictor.problem.decoding.example())
    if len(texts) % len(columns):
        raise ParamsError(
            f"predict: {len(texts)} texts given, but {predictor.problem.name} takes "
            f"{' and '.join(columns)}, one after the other."
        )
    inputs = {column: texts[index :: len(columns)] for index, column in enumerate(columns)}
    rows = _columns_to_rows(inputs)
    return _predict(predictor, rows, rows, log)


def predict_rows(
    predictor: Predictor, source: Source, prefix: str, log: Log | None = None
) -> list[Predicted]:
    """Predict for the rows of a local file.

    Raises DataError if a row cannot be read.
    """
    predicted: list[Predicted] = []
    for batch in _batches(predictor, source, prefix):
        predicted += _predict(predictor, batch.values(), batch.inputs.to_pylist(), log)
    return predicted


def predict_file(
    predictor: Predictor,
    source: Source,
    target: Path,
    prefix: str = PREFIX,
    log: Log | None = None,
) -> int:
    """Write a file's rows with their predictions to `target`, and return the number of rows.

    The extension of `target` sets the format. The file's columns come first, unchanged, then the
    predictions; rows out = rows in. Raises, and writes nothing: DataError if a row cannot be read,
    ParamsError if a prediction would have the name of a column.
    """
    if target.suffix not in WRITERS:
        raise ParamsError(
            f"--output {target}: its extension does not name a supported format.",
            f"Wanted: one of {', '.join(WRITERS)}.",
        )
    count = 0
    with (
        atomic_path(target) as new,
        prediction_writer(new, named(prediction_example(predictor), prefix)) as write,
    ):
        for batch in _batches(predictor, source, prefix):
            predicted = _predict(predictor, None, batch.inputs.to_pylist(), log)
            write(batch, [named(row.prediction, prefix) for row in predicted])
            count += len(predicted)
    return count


def prediction_example(predictor: Predictor) -> dict[str, Any]:
    """A prediction with every key that one may have."""
    problem = predictor.problem
    return (
        problem.decoding.prediction_example(predictor.info.labels)
        or predictor.predict(problem.decoding.example())[0]
    )


def _batches(predictor: Predictor, source: Source, prefix: str) -> Iterator[Batch]:
    problem = predictor.problem
    for index, batch in enumerate(
        read_batches(source, problem.decoding.example(), load_problem(problem.name).rows)
    ):
        if index == 0:
            names, example = batch.rows.schema.names, prediction_example(predictor)
            require_free(names, example, prefix, source.url)
        yield batch


def _predict(
    predictor: Predictor, rows: Rows | None, inputs: Rows, log: Log | None
) -> list[Predicted]:
    """Predict for `inputs`; `rows` None: each result's row is its inputs."""
    # an empty cell counts as an empty text: judging it is up to validation
    filled = [
        {name: "" if value is None else value for name, value in row.items()} for row in inputs
    ]
    columns = {
        column: [row[column] for row in filled] for column in predictor.problem.decoding.example()
    }
    predictions = predictor.predict(columns) if filled else []
    sources = filled if rows is None else rows
    predicted = [Predicted(*parts) for parts in zip(sources, filled, predictions, strict=True)]
    if log is not None and predicted:
        log([row.inputs | row.prediction for row in predicted])
    return predicted


def _columns_to_rows(columns: dict[str, list[str]]) -> Rows:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
