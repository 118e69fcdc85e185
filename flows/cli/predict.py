"""`ratchet predict`: texts, a file or standard input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import (
    Alias,
    AsJson,
    Bundle,
    Delimiter,
    Directory,
    FileEncoding,
    Sheet,
    VersionNumber,
    app,
    given,
    open_workspace,
    print_json,
    require_file,
    say_which,
)
from tasks.core.errors import ParamsError
from tasks.inference.prediction_names import PREFIX

if TYPE_CHECKING:
    from applications.prediction import Predicted
    from tasks.inference.predictor import Predictor


@app.command()
def predict(
    context: typer.Context,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts; for pairs, the two texts one after the other. "
            "None, or -: rows from standard input.",
            show_default=False,
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="CSV, TSV, JSON, JSONL, Parquet or Excel file with the problem's input columns; "
            "-: standard input.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File for the predictions; its extension sets the format; "
            "-: JSONL to standard output.",
            show_default=False,
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="csv, tsv, json, jsonl, parquet, xlsx, or lines: each line is a text. "
            "Default: by extension; of standard input, by its start: JSON, JSONL or lines.",
            show_default=False,
        ),
    ] = None,
    encoding: FileEncoding = None,
    delimiter: Delimiter = None,
    sheet: Sheet = None,
    prefix: Annotated[str, typer.Option(help="Prefix of the predictions' column names.")] = PREFIX,
    alias: Alias = None,
    version: VersionNumber = None,
    bundle: Bundle = None,
    keep_log: Annotated[
        bool,
        typer.Option("--log", help="Log the inputs for the drift trigger of `ratchet retrain`."),
    ] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Predict for texts, a file or standard input, with a registered version or a bundle."""
    from applications.prediction import (
        load_predictor,
        make_log,
        predict_file,
        predict_rows,
        predict_texts,
    )
    from applications.standard_streams import (
        STANDARD,
        input_rows,
        is_piped,
        output_file,
        require_input,
    )

    if texts == [str(STANDARD)] or (not texts and input_file is None and is_piped()):
        texts, input_file = None, input_file or STANDARD
    if bool(texts) == (input_file is not None):
        problem = "both texts and --input" if texts else "nothing to predict"
        raise ParamsError(f"predict: {problem}.", "Give either texts or --input FILE.")
    if texts and output is not None:
        raise ParamsError(
            "predict: --output goes with rows, not with texts.",
            "Give the texts by --input FILE, or as lines on standard input.",
        )
    if output is not None and output != STANDARD:
        output = require_file("predict: --output", output, input_file)
    if as_json and output == STANDARD:
        raise ParamsError(
            "predict: --output - and --json both write to standard output.", "Give one of them."
        )
    if input_file == STANDARD:
        require_input()
    workspace = None if bundle and not keep_log else open_workspace(context, directory)
    loaded = load_predictor(workspace, bundle=bundle, alias=alias, version=version)
    say_which("Predicting", loaded)
    predictor = loaded.predictor
    log = None
    if workspace is not None and keep_log:
        log = make_log(workspace, predictor, loaded.version)
    if input_file is None:
        _print_predicted(predictor, predict_texts(predictor, texts or [], log), prefix, as_json)
        return
    options = given(format=file_format, encoding=encoding, delimiter=delimiter, sheet=sheet)
    columns = list(predictor.problem.decoding.example())
    with input_rows(input_file, options, columns) as source:
        if output is None:
            _print_predicted(
                predictor, predict_rows(predictor, source, prefix, log), prefix, as_json
            )
            return
        with output_file(output) as target:
            count = predict_file(predictor, source, target, prefix, log)
    if as_json:
        print_json({"rows": count, "output": str(output)})
    elif output != STANDARD:
        print(f"{count} predictions written to {output}")


def _print_predicted(
    predictor: Predictor, rows: Sequence[Predicted], prefix: str, as_json: bool
) -> None:
    if as_json:
        print_json([row.plain(prefix) for row in rows])
        return
    for row in rows:
        inputs = " | ".join(map(str, row.inputs.values()))
        print(f"{predictor.problem.decoding.describe(row.prediction)}  {inputs}")
