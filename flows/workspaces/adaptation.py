"""Domain adaptation: a workspace whose encoder goes on learning from texts without labels, to be another workspace's base model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.engine.training_run import TrainResult
from flows.workspaces.creation import (
    Request,
    base_model_of,
    data_sources,
    guess_problem,
    make_workspace,
)
from tasks.core.errors import ParamsError, WorkspaceError
from tasks.params.schema import Params, save_overrides
from tasks.params.workspace import Workspace, cache_dir
from tasks.pipeline import check_params, write_dvc_yaml
from tasks.problems import load_problem
from tasks.training.networks.scratch_model import Shape, make_scratch_model

PROBLEM = "masked-lm"
CHECKPOINT = Path("models") / "checkpoint"
BASE = "./base"  # of a workspace that starts from scratch
# random weights want larger steps, and more of them, than weights that know a language
SCRATCH = (
    f"base_model.path={BASE}", "base_model.sha256=null", "base_model.files=null", "finetune.learning_rate=0.0005", "finetune.epochs=10",
)  # fmt: skip


def prepare(request: Request, shape: Shape | None, overrides: Sequence[str]) -> Workspace:
    """The workspace to train, made where there is none yet; `shape` makes a model from scratch as its base.

    Values that are given are written to params.yaml. Raises WorkspaceError for a workspace of another problem type, and for one
    that is there already with data or a base model named anew.
    """
    root = request.directory.resolve()
    if (root / "params.yaml").exists():
        workspace = Workspace.find(root)
        _check_known(workspace, request, shape)
    else:
        workspace = _make(request, shape)
        overrides = (*(SCRATCH if shape else ()), *overrides)
    check_params(
        workspace.params(overrides), root
    )  # wrong values are told before anything is written
    save_overrides(workspace.params_file, overrides)
    if shape and not (root / BASE).exists():
        params = workspace.params()
        make_scratch_model(_texts(workspace, params), root / BASE, shape, params.seed)
    write_dvc_yaml(workspace)
    return workspace


def base_line(workspace: Workspace, beside: Path) -> str:
    """What names the workspace's checkpoint as the base model in the params.yaml of a workspace at `beside`."""
    return f"path: {Path(os.path.relpath(workspace.root / CHECKPOINT, beside)).as_posix()}"


def describe(workspace: Workspace, result: TrainResult) -> str:
    """What came of it, and the lines to put into another workspace's params.yaml."""
    metrics = result.metrics
    return (
        f"{result.model} version {result.version}: perplexity {metrics['perplexity']:.2f}, "
        f"{metrics['masked_accuracy']:.1%} of hidden tokens guessed right on the test split.\n"
        f"Its checkpoint is {workspace.root / CHECKPOINT}. To start from it, put into the params.yaml of a workspace beside this one:\n"
        f"base_model:\n  {base_line(workspace, workspace.root.parent / 'another')}\n"
        f"or make one:  ratchet init another --data FILE --base-model {os.path.relpath(workspace.root / CHECKPOINT)}"
    )


def _check_known(workspace: Workspace, request: Request, shape: Shape | None) -> None:
    params = workspace.params()
    if params.problem != PROBLEM:
        raise WorkspaceError(
            f"{workspace.root}: is a workspace of the problem '{params.problem}', not {PROBLEM}.",
            "Name another directory.",
        )
    present = params.base_model.path, [source.url for source in params.ingest.sources]
    base = (
        BASE
        if shape
        else base_model_of(request, load_problem(PROBLEM))["path"]
        if request.base_model
        else present[0]
    )
    data = (
        [source["url"] for source in data_sources(request.data, workspace.root)]
        if request.data
        else present[1]
    )
    if (base, data) != present:
        raise WorkspaceError(
            f"{workspace.root}: is a workspace already, which starts from {present[0]} and reads {', '.join(present[1])}.",
            "Leave --data and the base model out to train it again, edit its params.yaml, or name another directory.",
        )


def _make(request: Request, shape: Shape | None) -> Workspace:
    if shape and request.base_model:
        raise ParamsError(
            "adapt: --from-scratch and --base-model exclude each other.", "Give one of them."
        )
    make_workspace(request, guess_problem(request))
    return Workspace.find(request.directory)


def _texts(workspace: Workspace, params: Params) -> Iterator[str]:
    """All texts of the sources: a vocabulary is no model, what it learns of held-out texts is which characters there are."""
    import pyarrow.parquet as pq

    from tasks.core.progress import silent
    from tasks.ingestion import ingest_sources

    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        ingest_sources(
            raw,
            problem=PROBLEM,
            ingest=params.ingest,
            root=workspace.root,
            cache=cache_dir(),
            report=silent,
        )
        for batch in pq.ParquetFile(raw / "rows.parquet").iter_batches(columns=["text"]):
            yield from (text for text in batch["text"].to_pylist() if text)
