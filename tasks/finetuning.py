"""Fine-tune a base model on token ids; the best checkpoint by the validation metric is kept."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.core.errors import ParamsError
from tasks.core.files import sha256_file, sha256_json
from tasks.core.memory import peak_memory_mb
from tasks.core.progress import Report
from tasks.core.seeds import seed_everything
from tasks.data.sources.base_models import other_sha256, weights_sha256
from tasks.data.sources.fetching import resolve_model
from tasks.encoding.token_files import (
    UNLABELLED_TOKENS,
    TokensInfo,
    load_tokenizer,
    read_features,
    read_tokens,
)
from tasks.params.finetuning import FinetuneParams
from tasks.params.schema import BaseModelParams
from tasks.problems import Problem, load_problem
from tasks.reports.stage_reports import (
    LearningCurveReport,
    SelfTrainingReport,
    StartReport,
    TrainingReport,
)
from tasks.scoring.learning_curve import VALIDATION_ROWS, learning_curve
from tasks.training.contrastive import require_pairs
from tasks.training.inputs import TrainingInputs, TrainingState, all_references
from tasks.training.label_names import with_label_names
from tasks.training.loop import Trainer
from tasks.training.methods.adapter_files import AdapterFacts, load_adapter, save_adapter
from tasks.training.methods.checkpoints import ADAPTER, save_checkpoint, take_additions
from tasks.training.methods.compatibility import check_positions
from tasks.training.methods.registry import apply_method
from tasks.training.methods.tuning import Tuning
from tasks.training.networks.architecture import untrained_parameters
from tasks.training.networks.device import pick_device
from tasks.training.networks.label_transfer import carry_over, checkpoint_labels, output_labels
from tasks.training.networks.pooling import declared_pooling
from tasks.training.networks.weights import load_trained
from tasks.training.replay import replayed_rows
from tasks.training.resume_point import BEST, prepare_work_dir
from tasks.training.solved_head import (
    SolvedHead,
    embedded,
    sampled,
    solve_head,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.core.arrays import Floats


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
    """Write the checkpoint with the tokenizer's files beside it, and a TrainingReport.

    training/methods/checkpoints.py describes the checkpoint.
    start   the `checkpoint` to continue from and the `tokens` it was trained on; None: base model
    work    state of a killed run, which this run resumes with the same result as without the kill
    Raises TrainingError when the loss diverges, ParamsError for values that this model or machine
    cannot handle.
    """
    problem_type = load_problem(problem)
    base = resolve_model(base_model, root, cache)
    device = pick_device(device)
    base_sha256, base_files = weights_sha256(base), other_sha256(base)
    adapter = root / finetune.adapter if finetune.adapter else None
    identity = {
        "params": finetune.model_dump(mode="json"), "labels": labels,
        "seed": seed, "device": device,
        "pooling": finetune.pooling == "auto" and declared_pooling(base),
        "base": base_sha256, "base_files": base_files, **_contents(tokens, start, adapter),
    }  # fmt: skip
    prepare_work_dir(work, sha256_json(identity))
    model, train, origin = _starting_point(
        problem_type, base, start, tokens, labels, finetune, seed
    )
    info = TokensInfo.read(tokens)
    if finetune.label_names:
        tokenizer = load_tokenizer(tokens / "tokenizer", info.max_length)
        train = with_label_names(train, problem_type, tokenizer, labels)
    check_positions(model, finetune, info.max_length)
    if finetune.gradient_checkpointing:
        # reentrant checkpointing passes no gradients to layers above frozen embeddings
        model.activation_checkpointing_enable({"use_reentrant": False})
    weights = _class_weights(problem_type, train, labels, finetune)
    if start is None:
        problem_type.objective.start_head(untrained_parameters(model, base), train, weights)
    inputs = TrainingInputs(
        problem_type.objective,
        problem_type.encoding,
        problem_type.scoring,
        labels,
        train,
        read_features(tokens / "validation.arrow"),
        info.pad_token_id,
        finetune,
        weights,
        seed,
        device,
        work,
        read_tokens(tokens / UNLABELLED_TOKENS) if finetune.self_training else None,
    )
    if finetune.contrastive:
        require_pairs(inputs.references)
    solved = None
    # a champion's head is the better start, unless nothing else is trained
    if finetune.starts_solved and (start is None or finetune.head_only):
        solved = solve_head(model, inputs)
    curve = _learning_curve(problem_type, model, inputs, solved)
    trained_on = origin.checkpoint_sha256 if origin else base_sha256
    facts = AdapterFacts.of_run(trained_on, base_model.path, problem, labels, finetune)
    tuning = apply_method(model, base, finetune, inputs.total_steps)
    if adapter:
        load_adapter(tuning.model, adapter, facts)
    if start is not None:
        take_additions(tuning, start / "checkpoint", facts)
    run = _train(tuning, inputs, report)
    _write_checkpoint(tuning, inputs, facts, tokens, checkpoint)
    told = None if solved is None else solved.self_training
    run.report(base_sha256, base_files, origin, told, curve).write(training_report)


@dataclass(frozen=True)
class FinishedRun:
    """A run of training, this process's seconds of it, and (all, trained) parameters."""

    trainer: Trainer
    progress: TrainingState
    seconds: float
    parameters: tuple[int, int]

    def report(
        self,
        base_sha256: str,
        base_files: dict[str, str],
        start: StartReport | None,
        self_training: SelfTrainingReport | None,
        learning_curve: LearningCurveReport | None,
    ) -> TrainingReport:
        """The run's report."""
        progress, trainer, inputs = self.progress, self.trainer, self.trainer.inputs
        told = progress.self_training
        of_last_head = None if told is None else SelfTrainingReport.model_validate(told)
        epochs = (progress.step + 1 - trainer.first_step) / trainer.steps_per_epoch
        return TrainingReport(
            curve=progress.curve,
            evaluations=progress.evaluations,
            best_step=progress.best_step,
            stopped_early=progress.stopped_early,
            steps=progress.step,
            total_steps=trainer.total_steps,
            accumulation=progress.accumulation,
            out_of_memory=progress.out_of_memory,
            self_training=self_training or of_last_head,
            learning_curve=learning_curve,
            device=inputs.device,
            base_sha256=base_sha256,
            base_files=base_files,
            start=start,
            method=inputs.params.method,
            seconds=round(self.seconds, 1),
            seconds_per_epoch=round(self.seconds / epochs, 2) if epochs else None,
            peak_memory_mb=peak_memory_mb(inputs.device),
            parameters=self.parameters[0],
            trained_parameters=self.parameters[1],
        )


def _learning_curve(
    problem: Problem, model: PreTrainedModel, inputs: TrainingInputs, solved: SolvedHead | None
) -> LearningCurveReport | None:
    """Of a recipe for few labels, on the base model as it is; None for others."""
    params = inputs.params
    for_few = params.head_start == "solved" and (params.head_only or params.contrastive)
    one_class = problem.rows.label_column == "label"
    if not for_few or not one_class or params.start_from == "champion":
        return None
    features = solved.features if solved else sampled(inputs.train, inputs.seed)
    held_out = sampled(pa.table(inputs.validation), inputs.seed, VALIDATION_ROWS)
    *vectors, validation = embedded(model, inputs, *([] if solved else [features]), held_out)
    references = inputs.encoder.references(features)
    numbers = np.asarray(features["row"])
    return learning_curve(
        (solved.vectors if solved else vectors[0], references, numbers),
        (validation, inputs.encoder.references(held_out)),
        problem.scoring,
        inputs.labels,
        inputs.class_weights,
        inputs.seed,
    )


def _train(tuning: Tuning, inputs: TrainingInputs, report: Report) -> FinishedRun:
    sizes = [(weight.numel(), weight.requires_grad) for weight in tuning.model.parameters()]
    parameters = (
        sum(size for size, _ in sizes),
        sum(size for size, is_trained in sizes if is_trained),
    )
    trainer = Trainer(tuning, inputs, report)
    started = time.perf_counter()
    progress = trainer.run()
    return FinishedRun(trainer, progress, time.perf_counter() - started, parameters)


def _write_checkpoint(
    tuning: Tuning, inputs: TrainingInputs, facts: AdapterFacts, tokens: Path, checkpoint: Path
) -> None:
    """Write the best weights, with the tokenizer's files beside them."""
    load_trained(tuning.model, inputs.work / BEST)
    if inputs.params.adds:
        save_adapter(tuning.model, checkpoint / ADAPTER, facts)
    save_checkpoint(tuning, checkpoint)
    # with a tokenizer the checkpoint can itself serve as a base model
    shutil.copytree(tokens / "tokenizer", checkpoint, dirs_exist_ok=True)


def _contents(tokens: Path, start: Path | None, adapter: Path | None) -> dict[str, Any]:
    """Digests of every input file that affects the result."""
    files = [tokens / "train.arrow", tokens / "validation.arrow", tokens / UNLABELLED_TOKENS]
    return {
        "tokens": [sha256_file(file) for file in files if file.is_file()],
        "start": start
        and [*_hashes(start / "checkpoint"), sha256_file(start / "tokens" / "train.arrow")],
        "adapter": adapter and _hashes(adapter),
    }


def _class_weights(
    problem: Problem, train: pa.Table, labels: tuple[str, ...], finetune: FinetuneParams
) -> Floats | None:
    if finetune.class_weights == "none":  # saves reading the rows' references
        return None
    references = all_references(problem.encoding, train)
    return problem.objective.class_weights(references, labels, finetune.class_weights)


def _hashes(directory: Path) -> list[str]:
    return [sha256_file(file) for file in sorted(directory.rglob("*")) if file.is_file()]


def _check_tokenizer(tokens: Path, start: Path) -> None:
    base, champion = (
        load_tokenizer(directory / "tokenizer").to_str() for directory in (tokens, start / "tokens")
    )
    if base != champion:
        raise ParamsError(
            "finetune.start_from: the champion's tokenizer differs from the base model's.",
            "Set finetune.start_from to base, or base_model to the model that the champion was "
            "trained from.",
        )


def _starting_point(
    problem: Problem,
    base: Path,
    start: Path | None,
    tokens: Path,
    labels: tuple[str, ...],
    finetune: FinetuneParams,
    seed: int,
) -> tuple[PreTrainedModel, pa.Table, StartReport | None]:
    """The model, the rows to train it on and, if it continues from `start`, `start`'s report."""
    seed_everything(seed)
    model = problem.objective.load_model(base, labels, finetune.dropout, finetune.pooling)
    train = read_tokens(tokens / "train.arrow")
    if start is None:
        return model, train, None
    _check_tokenizer(tokens, start)
    return model, *_continue(model, train, start, problem, finetune, seed)


def _continue(
    model: PreTrainedModel,
    train: pa.Table,
    start: Path,
    problem: Problem,
    finetune: FinetuneParams,
    seed: int,
) -> tuple[pa.Table, StartReport]:
    """Load the start's weights; (rows to train on, `start` of the training report)."""
    old_labels = problem.objective.labels_of(checkpoint_labels(start / "checkpoint"))
    carried = carry_over(
        model, problem.objective.load_model(start / "checkpoint", old_labels, finetune.dropout)
    )
    new_labels = problem.objective.labels_of(output_labels(model.config))
    renumbered = [new_labels.index(label) if label in new_labels else None for label in old_labels]
    old_train = read_tokens(start / "tokens" / "train.arrow")
    rows, counts = replayed_rows(train, old_train, renumbered, finetune.replay_share, seed)
    return rows, StartReport(
        checkpoint_sha256=weights_sha256(start / "checkpoint"),
        labels=asdict(carried),
        rows=asdict(counts),
    )
