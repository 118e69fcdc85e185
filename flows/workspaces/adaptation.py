"""Domain adaptation: continue pretraining an encoder on unlabelled texts.

Its checkpoint then serves as the base model of other workspaces.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.engine.training_run import TrainResult
from flows.workspaces.creation import guess_problem, make_workspace
from flows.workspaces.request import Request, base_model_of, data_sources
from tasks.core.errors import ParamsError, WorkspaceError
from tasks.params.schema import Params, save_overrides
from tasks.params.workspace import Workspace, cache_dir
from tasks.pipeline import check_params, write_dvc_yaml
from tasks.problems import load_problem
from tasks.training.networks.scratch_model import Shape, make_scratch_model

PROBLEM = "masked-lm"
CHECKPOINT = Path("models") / "checkpoint"
BASE = "./base"  # base model directory of a workspace that starts from scratch
# random weights need larger steps, and more of them, than pretrained ones
SCRATCH = (
    f"base_model.path={BASE}",
    "base_model.sha256=null",
    "base_model.files=null",
    "finetune.learning_rate=0.0005",
    "finetune.epochs=10",
)


def prepare(request: Request, shape: Shape | None, overrides: Sequence[str]) -> Workspace:
    """The workspace to train, created if needed.

    shape      create a base model of this shape from scratch; None: use a pretrained one
    overrides  written to params.yaml
    Raises WorkspaceError if the workspace exists and has another problem type, or other data or
    another base model than requested.
    """
    root = request.directory.resolve()
    if (root / "params.yaml").exists():
        workspace = Workspace.find(root)
        _check_existing(workspace, request, shape)
    else:
        workspace = _make(request, shape)
        overrides = (*(SCRATCH if shape else ()), *overrides)
    check_params(workspace.params(overrides), root)  # report wrong values before writing anything
    save_overrides(workspace.params_file, overrides)
    if shape and not (root / BASE).exists():
        params = workspace.params()
        make_scratch_model(_texts(workspace, params), root / BASE, shape, params.seed)
    write_dvc_yaml(workspace)
    return workspace


def base_line(workspace: Workspace, beside: Path) -> str:
    """The params.yaml line that makes this checkpoint the base model of a workspace at `beside`."""
    return f"path: {Path(os.path.relpath(workspace.root / CHECKPOINT, beside)).as_posix()}"


def describe(workspace: Workspace, result: TrainResult) -> str:
    """The result for people, with the lines to put into another workspace's params.yaml."""
    metrics, checkpoint = result.metrics, workspace.root / CHECKPOINT
    return (
        f"{result.model} version {result.version}: perplexity {metrics['perplexity']:.2f}, "
        f"{metrics['masked_accuracy']:.1%} of masked tokens predicted correctly "
        "on the test split.\n"
        f"Checkpoint: {checkpoint}. To use it as the base model, add to the params.yaml "
        "of a workspace next to this one:\n"
        f"base_model:\n  {base_line(workspace, workspace.root.parent / 'another')}\n"
        "or make a new one:  ratchet init another --data FILE "
        f"--base-model {os.path.relpath(checkpoint)}"
    )


def _check_existing(workspace: Workspace, request: Request, shape: Shape | None) -> None:
    params = workspace.params()
    if params.problem != PROBLEM:
        raise WorkspaceError(
            f"{workspace.root}: the workspace's problem is '{params.problem}', not {PROBLEM}.",
            "Name another directory.",
        )
    base = params.base_model.path
    data = [source.url for source in params.ingest.sources]
    requested_base, requested_data = base, data
    if shape:
        requested_base = BASE
    elif request.base_model:
        requested_base = base_model_of(request, load_problem(PROBLEM))["path"]
    if request.data:
        requested_data = [source["url"] for source in data_sources(request.data, workspace.root)]
    if (requested_base, requested_data) != (base, data):
        raise WorkspaceError(
            f"{workspace.root}: is already a workspace, with base model {base} "
            f"and data {', '.join(data)}.",
            "To train it again, leave out --data and the base model; "
            "or edit its params.yaml, or name another directory.",
        )


def _make(request: Request, shape: Shape | None) -> Workspace:
    if shape and request.base_model:
        raise ParamsError(
            "adapt: --from-scratch and --base-model exclude each other.", "Give only one of them."
        )
    make_workspace(request, guess_problem(request))
    return Workspace.find(request.directory)


def _texts(workspace: Workspace, params: Params) -> Iterator[str]:
    """All texts of the sources, to learn the vocabulary from.

    Held-out texts too: from those a vocabulary learns only which characters there are.
    """
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
