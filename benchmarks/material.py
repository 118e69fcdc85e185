"""Workspaces in a scratch directory, and the training loop's steps, for the benchmarks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.params.workspace import Workspace

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from tasks.params.schema import Params

ROOT = Path(__file__).resolve().parent.parent
# a bundle as it ships, with as little measuring of its quality as possible
SHORT = (
    "finetune.epochs=0.05",
    "evaluate.bootstrap_resamples=100",
    "evaluate.behaviour.rows=1",
    "evaluate.baseline=false",
    "export.recipes=[int8-static]",
    "verify.timing_rows=32",
    "verify.max_metric_loss=1.0",
)


def default_workspace(scratch: Path, last: str, *overrides: str, example: str = "") -> Workspace:
    """The default workspace with its stages run up to `last`, in this process.

    example  a directory of examples/ to use in place of the default workspace
    """
    from tasks.params.schema import save_overrides

    workspace = Workspace(scratch)
    original = ROOT / "examples" / example if example else ROOT
    shutil.copyfile(original / "params.yaml", workspace.params_file)
    save_overrides(workspace.params_file, overrides)
    run_stages(workspace, workspace.params(), last)
    return workspace


def run_stages(workspace: Workspace, params: Params, last: str) -> None:
    """Run the stages up to `last`, in this process."""
    from tasks.core.progress import silent
    from tasks.pipeline import STAGES, run_stage

    count = [stage.name for stage in STAGES].index(last) + 1
    for stage in STAGES[:count]:
        run_stage(stage, workspace, params, silent)


def computes_bfloat16() -> bool:
    """Whether the processor has bfloat16 matrix products (AMX); without, bfloat16 is slower."""
    import torch

    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def keep_rows(root: Path, rows: int, draw: int = 0) -> None:
    """Keep `rows` of the workspace's tokenized training rows, drawn with the seed `draw`."""
    import pyarrow as pa

    from tasks.core.files import atomic_path
    from tasks.encoding.token_files import read_tokens

    file = root / "data" / "tokens" / "train.arrow"
    table = read_tokens(file)
    kept = table.take(pa.array(np.sort(np.random.default_rng(draw).permutation(len(table))[:rows])))
    with (
        atomic_path(file) as new,
        pa.OSFile(str(new), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(kept)


def epoch_batches(root: Path, batch: int) -> list[np.ndarray]:
    """Row indices of each batch of an epoch, as the training loop draws them."""
    from tasks.encoding.batching import training_batches
    from tasks.encoding.token_files import read_tokens, token_lengths

    lengths = token_lengths(read_tokens(root / "data" / "tokens" / "train.arrow"))
    return training_batches(lengths, batch, seed=0, epoch=0)


def some_batches(batches: Sequence[np.ndarray], count: int, seed: int) -> list[np.ndarray]:
    """`count` of the batches, drawn without repeats."""
    order = np.random.default_rng(seed).permutation(len(batches))
    return [batches[index] for index in order[:count]]


def training_steps(root: Path, *overrides: str) -> Callable[[Sequence[np.ndarray]], None]:
    """A function that trains on batches of row indices of the workspace's tokenized rows.

    Each call continues from the state that the last one left.
    """
    from tasks.core.progress import silent
    from tasks.data.sources.fetching import resolve_model
    from tasks.encoding.token_files import TokensInfo, read_features, read_tokens
    from tasks.params.workspace import cache_dir
    from tasks.problems import load_problem
    from tasks.training.inputs import TrainingInputs
    from tasks.training.loop import Trainer
    from tasks.training.methods.registry import apply_method

    params = Workspace(root).params(overrides)
    problem, tokens = load_problem(params.problem), root / "data" / "tokens"
    base = resolve_model(params.base_model, root, cache_dir())
    model = problem.objective.load_model(base, params.labels, params.finetune.dropout)
    train = read_tokens(tokens / "train.arrow")
    validation = read_features(tokens / "validation.arrow")
    pad = TokensInfo.read(tokens).pad_token_id
    setting = TrainingInputs(
        problem.objective,
        problem.encoding,
        problem.scoring,
        params.labels,
        train,
        validation,
        pad,
        params.finetune,
        None,
        0,
        "cpu",
        root / "work",
    )
    loop = Trainer(apply_method(model, base, params.finetune, setting.total_steps), setting, silent)
    loop.model.train()

    def run(batches: Sequence[np.ndarray]) -> None:
        for rows in batches:
            loop._step(rows)

    return run


def trainer_arguments(root: Path, **named: Any) -> TrainingArguments:
    """transformers' defaults except `named`: one epoch on the CPU, no logs and no checkpoints."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(root / "trainer"),
        num_train_epochs=1,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **named,
    )
