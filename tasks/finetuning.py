"""Fine-tuning: token ids and a base model to a checkpoint, the best one by the validation metric."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.device import pick_device
from tasks.core.errors import ParamsError, did_you_mean
from tasks.core.files import sha256_file, sha256_json, write_json
from tasks.core.head import carry_over, checkpoint_labels
from tasks.core.params import BaseModelParams, FinetuneParams
from tasks.core.progress import Report
from tasks.core.replay import replayed_rows
from tasks.core.sources import resolve_model
from tasks.core.tokens import TokensInfo, load_tokenizer, read_features, read_tokens
from tasks.core.training import Progress, Setting, Trainer, claim_work, seed_everything
from tasks.problems import Problem, load_problem

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import nn
    from transformers import PreTrainedModel

START_IDENTITY = ("checkpoint/config.json", "checkpoint/model.safetensors", "tokens/train.arrow")


def finetune_model(
    tokens: Path,
    checkpoint: Path,
    training_report: Path,
    *,
    start: Path | None,
    problem: str,
    labels: tuple[str, ...],
    base_model: BaseModelParams,
    finetune: FinetuneParams,
    seed: int,
    device: str,
    root: Path,
    cache: Path,
    work: Path,
    report: Report,
) -> None:
    """Write the checkpoint (config.json, model.safetensors, the tokenizer's files) and the learning curves.

    `start` holds the `checkpoint` to go on from and the `tokens` that it was trained on; without it the base model is where it starts.
    `work` holds what a killed run left, and this one goes on from there; the result is the same as without the kill.
    Raises TrainingError when the loss diverges, ParamsError for values this model or machine cannot do.
    """
    kind = load_problem(problem)
    base = resolve_model(base_model, root, cache)
    device = pick_device(device)
    base_sha256 = sha256_file(base / "model.safetensors")
    identity = {
        "params": finetune.model_dump(mode="json"),
        "labels": labels,
        "seed": seed,
        "device": device,
        "base": base_sha256,
        "tokens": [sha256_file(tokens / f"{split}.arrow") for split in ("train", "validation")],
        "start": start and [sha256_file(start / name) for name in START_IDENTITY],
    }
    claim_work(work, sha256_json(identity))
    _check_metric(kind, finetune.early_stopping_metric)
    seed_everything(seed)
    model = kind.load_model(base, labels, finetune.dropout)
    train = read_tokens(tokens / "train.arrow")
    origin = None
    if start is not None:
        _check_tokenizer(tokens, start)
        train, origin = _continue(model, train, start, kind, finetune, seed)
    freeze(model, embeddings=finetune.freeze_embeddings, layers=finetune.freeze_layers)
    if finetune.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    validation = read_features(tokens / "validation.arrow")
    weights = None
    if finetune.class_weights != "none":
        weights = kind.class_weights(kind.references(train.select(["references"]).to_pydict()), labels, finetune.class_weights)
    pad_token_id = TokensInfo.read(tokens).pad_token_id
    trainer = Trainer(model, Setting(kind, labels, train, validation, pad_token_id, finetune, weights, seed, device, work), report)
    started = time.perf_counter()
    progress = trainer.run()

    shutil.copytree(work / "best", checkpoint)
    shutil.copytree(tokens / "tokenizer", checkpoint, dirs_exist_ok=True)  # with it the checkpoint is a base model for others
    seconds = round(time.perf_counter() - started, 1)
    origins = {"device": device, "base_sha256": base_sha256, "start": origin, "seconds": seconds}
    write_json(training_report, {**_curves(trainer, progress), **origins, **_parameter_counts(model)})


def _curves(trainer: Trainer, progress: Progress) -> dict[str, Any]:
    return {
        "curve": progress.curve,
        "evaluations": progress.evaluations,
        "best_step": progress.best_step,
        "stopped_early": progress.stopped_early,
        "steps": progress.step,
        "total_steps": trainer.total_steps,
    }


def _parameter_counts(model: PreTrainedModel) -> dict[str, int]:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {"parameters": sum(size for size, _ in sizes), "trained_parameters": sum(size for size, trained in sizes if trained)}


def _check_metric(kind: Problem, name: str) -> None:
    if name not in kind.metric_signs:
        raise ParamsError(
            f"finetune.early_stopping_metric: unknown metric '{name}'.{did_you_mean(name, kind.metric_signs)}",
            f"Known: {', '.join(kind.metric_signs)}.",
        )


def _check_tokenizer(tokens: Path, start: Path) -> None:
    ours, theirs = (load_tokenizer(directory / "tokenizer").to_str() for directory in (tokens, start / "tokens"))
    if ours != theirs:
        raise ParamsError(
            "finetune.start_from: the champion reads text with another tokenizer than the base model's.",
            "Set finetune.start_from to base, or base_model to the one that the champion was trained from.",
        )


def _continue(
    model: PreTrainedModel, train: pa.Table, start: Path, kind: Problem, finetune: FinetuneParams, seed: int
) -> tuple[pa.Table, dict[str, Any]]:
    """Give the model the weights of the start; (the rows to train on, what training.json says of the start)."""
    old_labels = kind.labels_of(checkpoint_labels(start / "checkpoint"))
    carried = carry_over(model, kind.load_model(start / "checkpoint", old_labels, finetune.dropout))
    new_labels = kind.labels_of(list(model.config.label2id))
    renumbered = [new_labels.index(label) if label in new_labels else None for label in old_labels]
    rows, counts = replayed_rows(train, read_tokens(start / "tokens" / "train.arrow"), renumbered, finetune.replay_share, seed)
    return rows, {
        "checkpoint_sha256": sha256_file(start / "checkpoint" / "model.safetensors"),
        "labels": asdict(carried),
        "rows": asdict(counts),
    }


def freeze(model: PreTrainedModel, *, embeddings: bool, layers: int) -> None:
    """Stop training the input embeddings, or the lowest `layers` of the encoder (and with them the embeddings below)."""
    stack = _layer_stack(model)
    if layers > len(stack):
        raise ParamsError(
            f"finetune.freeze_layers: {layers} layers, the base model has {len(stack)}.",
            f"Set it to {len(stack)} or less.",
        )
    frozen: list[nn.Module] = list(stack[:layers])
    if embeddings or layers:
        frozen.append(_embedding_block(model))
    for module in frozen:
        module.requires_grad_(False)


def _layer_stack(model: PreTrainedModel) -> nn.ModuleList:
    """The body's layers: the longest list of modules, whatever the architecture calls it."""
    from torch import nn

    return max((module for module in model.modules() if isinstance(module, nn.ModuleList)), key=len)


def _embedding_block(model: PreTrainedModel) -> nn.Module:
    """The outermost module named for embeddings (token, position and their norm), else the token embedding alone."""
    blocks = [module for name, module in model.named_modules() if name.split(".")[-1] == "embeddings"]
    block: nn.Module = blocks[0] if blocks else model.get_input_embeddings()
    return block
