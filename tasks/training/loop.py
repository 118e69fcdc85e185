"""The training loop: keeps the best weights; resumes after a kill with an identical result."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Indices
from tasks.core.errors import TrainingError
from tasks.core.files import atomic_path, read_json, write_json
from tasks.core.memory import free_cached_memory, is_out_of_memory
from tasks.core.progress import LINES, Report
from tasks.core.seeds import random_state, set_random_state
from tasks.encoding.batching import training_batches
from tasks.encoding.encoder import OUTPUT_NAME
from tasks.encoding.token_files import take, token_lengths
from tasks.training.frozen_cache import FrozenPrefix
from tasks.training.inputs import TrainingInputs, TrainingState
from tasks.training.methods.tuning import Tuning
from tasks.training.networks.architecture import disable_dropout, frozen_depth
from tasks.training.networks.device import in_bfloat16
from tasks.training.networks.torch_outputs import predict_torch
from tasks.training.networks.weights import load_trained, save_trained
from tasks.training.optimizer import parameter_groups

if TYPE_CHECKING:
    import torch


# a large model's checkpoints would take a third of a short training
MAX_CHECKPOINT_SHARE = 0.05  # of the training time
CURVE_POINTS = 200  # points of the learning curve over the whole run
# in the run's directory
BEST = "best/trained.safetensors"  # trained weights at the best evaluation
LAST = "last"  # checkpoint that a killed run resumes from
FROZEN = "frozen"  # cached outputs of the frozen layers


class Trainer:
    """One run of AdamW over length-bucketed batches."""

    def __init__(self, tuning: Tuning, inputs: TrainingInputs, report: Report) -> None:
        import torch
        from accelerate import Accelerator
        from transformers import get_scheduler

        self.tuning, self.inputs, self.report = tuning, inputs, report
        params = inputs.params
        self.lengths = token_lengths(inputs.train)
        self.steps_per_epoch, self.total_steps = inputs.steps_per_epoch, inputs.total_steps
        # accelerate has one precision per process, so _loss sets each run's own
        self.accelerator = Accelerator(mixed_precision="no", cpu=inputs.device == "cpu")
        bfloat16 = in_bfloat16(params.precision, inputs.device)
        self.precision = partial(
            torch.autocast, self.accelerator.device.type, torch.bfloat16, enabled=bfloat16
        )
        optimizer = torch.optim.AdamW(
            parameter_groups(tuning, params), fused=inputs.device != "mps"
        )
        name = "constant_with_warmup" if params.scheduler == "constant" else params.scheduler
        warmup_steps = round(params.warmup_share * self.total_steps)
        self.scheduler = get_scheduler(
            name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=self.total_steps
        )
        self.model, self.optimizer = self.accelerator.prepare(tuning.model, optimizer)
        self.progress = TrainingState(accumulation=params.accumulation)
        self.frozen = 0 if params.adds else frozen_depth(tuning.model)
        self.prefix = self._open_prefix() if self.frozen else None
        weights = inputs.class_weights
        losses = inputs.objective.losses
        self.loss = losses[params.loss or next(iter(losses))]
        self.last_checkpoint = 0.0  # end of the last one, in monotonic seconds
        self.checkpoint_seconds = 0.0  # that it took
        self.class_weights = (
            None if weights is None else torch.from_numpy(weights).to(self.accelerator.device)
        )

    def run(self) -> TrainingState:
        """Train to the end, resuming from the last checkpoint; best weights go to `work`/BEST."""
        self._resume()
        self.first_step = self.progress.step + 1
        evaluate_every = max(1, self.steps_per_epoch // self.inputs.params.evaluations_per_epoch)
        save_every = max(1, self.steps_per_epoch // self.inputs.params.checkpoints_per_epoch)
        self._train_mode()
        for rows in self._remaining_batches():
            self._step(rows)
            step = self.progress.step
            is_last = step == self.total_steps
            if is_last or step % evaluate_every == 0:
                self._evaluate()
            is_due = step % save_every == 0 and self._can_afford_checkpoint()
            if is_last or self.progress.stopped_early or is_due:
                self._save()
            if self.progress.stopped_early:
                break
        if self.prefix:
            self.prefix.detach()
        return self.progress

    def _train_mode(self) -> None:
        """Training mode, but no dropout in frozen bottom layers: their outputs must not change."""
        self.model.train()
        if self.frozen:
            disable_dropout(self.tuning.model, self.frozen)

    def _open_prefix(self) -> FrozenPrefix | None:
        """Cache of the frozen layers' outputs; None if too large or if no later epoch reads it."""
        inputs, model = self.inputs, self.tuning.model
        if self.total_steps <= self.steps_per_epoch or inputs.encoder.random_inputs:
            return None
        # both in tokens
        capacity = int(inputs.params.frozen_cache_mb * 1e6 / (4 * model.config.hidden_size))
        needed = int(self.lengths.sum())
        if needed > capacity:
            return None
        max_tokens = min(capacity, 2 * needed)  # twice: windows may overlap
        return FrozenPrefix(model, self.frozen, inputs.work / FROZEN, max_tokens)

    def _remaining_batches(self) -> Iterator[Indices]:
        if self.progress.stopped_early:
            return
        while self.progress.step < self.total_steps:
            epoch, done = divmod(self.progress.step, self.steps_per_epoch)
            batches = training_batches(
                self.lengths, self.inputs.params.batch_size, seed=self.inputs.seed, epoch=epoch
            )
            yield from batches[done : done + self.total_steps - self.progress.step]

    def _step(self, rows: Indices) -> None:
        params, progress = self.inputs.params, self.progress
        loss = self._backward(rows)
        progress.step += 1
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} at step {progress.step} of {self.total_steps} "
                f"(learning rate {self._learning_rate():.2g}).",
                "Lower finetune.learning_rate, raise finetune.warmup_share, or lower "
                "finetune.max_grad_norm.",
            )
        self.accelerator.clip_grad_norm_(self.model.parameters(), params.max_grad_norm)
        learning_rate = self._learning_rate()
        self.optimizer.step()
        self.scheduler.step()
        self.tuning.after_step(progress.step)
        self.optimizer.zero_grad(set_to_none=True)
        progress.pending_losses.append(loss)
        self._report_step(learning_rate)

    def _backward(self, rows: Indices) -> float:
        """Accumulate a batch's gradients in as many parts as memory requires; its mean loss."""
        while True:
            rng_state = random_state()
            parts = np.array_split(rows, min(self.progress.accumulation, len(rows)))
            try:
                return self._backward_in_parts(parts, len(rows))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._use_smaller_parts(len(rows), error)
            # start the step over, so that the result is that of small parts from the start
            self.optimizer.zero_grad(set_to_none=True)
            free_cached_memory()
            set_random_state(rng_state)

    def _backward_in_parts(self, parts: list[Indices], count: int) -> float:
        losses = []
        for part in parts:
            loss = self._loss(part) * (len(part) / count)
            self.accelerator.backward(loss)
            losses.append(float(loss.detach()))
        penalty = self.tuning.penalty()
        if penalty is not None:
            self.accelerator.backward(penalty)
        return sum(losses)

    def _use_smaller_parts(self, count: int, error: BaseException) -> None:
        progress, step = self.progress, self.progress.step + 1
        if progress.accumulation >= count:
            raise TrainingError(
                f"out of memory at step {step} of {self.total_steps}, with a single row at a time: "
                f"{' '.join(str(error).split())[:200]}",
                "Lower tokenize.max_length, set finetune.gradient_checkpointing to true, train "
                "fewer weights (finetune.method: lora), or use a smaller base_model.",
            ) from error
        progress.accumulation *= 2
        progress.out_of_memory.append({"step": step, "accumulation": progress.accumulation})
        LINES.warning(
            "finetune   out of memory at step %d: batches of %d rows are computed in %d parts from "
            "now on",
            step,
            self.inputs.params.batch_size,
            progress.accumulation,
        )
        share = progress.step / self.total_steps
        self.report(step, {"progress": share, "accumulation": progress.accumulation})

    def _loss(self, rows: Indices) -> torch.Tensor:
        import torch

        inputs = self.inputs
        features = take(inputs.train, rows)
        batch, targets = inputs.encoder.training_batch(features, inputs.pad_token_id)
        device = self.accelerator.device
        tensors = {name: torch.from_numpy(values).to(device) for name, values in batch.items()}
        references = torch.from_numpy(targets).to(device)
        only_needed = inputs.objective.skip_unused_outputs(self.tuning.model, references)
        cached = self.prefix.over(batch, device) if self.prefix else nullcontext()
        with self.precision(), only_needed, cached:
            outputs = self.model(**tensors)[OUTPUT_NAME]
            return self.loss(
                outputs.float(),
                references,
                label_smoothing=inputs.params.label_smoothing,
                class_weights=self.class_weights,
            )

    def _learning_rate(self) -> float:
        return float(self.scheduler.get_last_lr()[0])

    def _report_step(self, learning_rate: float) -> None:
        progress = self.progress
        share = progress.step / self.total_steps
        metrics = {"progress": share, "loss": progress.pending_losses[-1]}
        every = max(1, self.total_steps // CURVE_POINTS)
        if progress.step % every == 0 or progress.step == self.total_steps:
            mean_loss = sum(progress.pending_losses) / len(progress.pending_losses)
            point = {
                "epoch": progress.step / self.steps_per_epoch,
                "loss": mean_loss,
                "learning_rate": learning_rate,
            }
            progress.curve.append({"step": progress.step, **point})
            progress.pending_losses.clear()
            metrics |= point
        self.report(progress.step, metrics)

    def _evaluate(self) -> None:
        inputs, progress = self.inputs, self.progress
        outputs = predict_torch(
            self.accelerator.unwrap_model(self.model),
            inputs.encoder,
            inputs.validation,
            inputs.pad_token_id,
            str(self.accelerator.device),
        )
        self._train_mode()
        references = inputs.encoder.references(inputs.validation)
        metrics = inputs.metrics.metrics(outputs, references, inputs.labels)
        epoch = progress.step / self.steps_per_epoch
        progress.evaluations.append({"step": progress.step, "epoch": epoch, **metrics})
        name = inputs.params.early_stopping_metric or inputs.metrics.metric
        if name not in metrics:
            raise TrainingError(
                f"finetune.early_stopping_metric: the validation rows give no {name}.",
                f"Set it to one of {', '.join(metrics)}.",
            )
        score = inputs.metrics.metric_signs[name] * metrics[name]
        if score > progress.best_score:
            progress.best_score, progress.best_step, progress.without_gain = score, progress.step, 0
            with atomic_path(inputs.work / BEST) as new:
                save_trained(self.tuning.model, new)
        else:
            progress.without_gain += 1
        patience = inputs.params.early_stopping_patience
        progress.stopped_early = bool(patience) and progress.without_gain >= patience
        reported = {"progress": progress.step / self.total_steps}
        for metric, value in ({name: metrics[name]} | metrics).items():  # the deciding one first
            reported[f"validation_{metric}"] = value
        self.report(progress.step, reported)

    def _can_afford_checkpoint(self) -> bool:
        """Whether checkpoints stay below their share of the training time."""
        training_seconds = time.monotonic() - self.last_checkpoint
        return self.checkpoint_seconds <= MAX_CHECKPOINT_SHARE * training_seconds

    def _save(self) -> None:
        import torch

        started = time.monotonic()
        if self.prefix:
            self.prefix.save()
        with atomic_path(self.inputs.work / LAST) as new:
            save_trained(self.tuning.model, new / "trained.safetensors")
            state = {
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "random": random_state(),
                "tuning": self.tuning.state(),
            }
            torch.save(state, new / "state.pt")
            best_score = str(self.progress.best_score)  # JSON has no -inf
            write_json(new / "progress.json", asdict(self.progress) | {"best_score": best_score})
        self.last_checkpoint = time.monotonic()
        self.checkpoint_seconds = self.last_checkpoint - started

    def _resume(self) -> None:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        last, best = self.inputs.work / LAST, self.inputs.work / BEST
        if not last.exists():
            return
        try:
            saved: Mapping[str, Any] = read_json(last / "progress.json")
            progress = TrainingState(**{**saved, "best_score": float(saved["best_score"])})
            state = torch.load(last / "state.pt", map_location="cpu", weights_only=True)
            for weights in [last / "trained.safetensors", *([best] if progress.best_step else [])]:
                load_file(weights)  # all must be readable before any is loaded
        except (
            OSError,
            EOFError,
            ValueError,
            TypeError,
            RuntimeError,
            UnpicklingError,
            SafetensorError,
        ) as error:
            LINES.warning(
                "finetune   starts over: an interrupted run's checkpoint cannot be read: %s", error
            )
            shutil.rmtree(last)
            return
        load_trained(self.tuning.model, last / "trained.safetensors")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.tuning.load_state(state["tuning"])
        set_random_state(state["random"])
        self.progress = progress


def prepare_work_dir(work: Path, identity: str) -> None:
    """Keep the files in `work` if an earlier run had the same inputs; clear them otherwise."""
    identity_file = work / "identity"
    if identity_file.is_file() and identity_file.read_bytes() == identity.encode():
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with atomic_path(identity_file) as new:
        new.write_text(identity, encoding="utf-8")
