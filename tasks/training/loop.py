"""The training loop: keeps the best weights; resumes after a kill with an identical result."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tasks.core.arrays import Indices
from tasks.core.errors import TrainingError
from tasks.core.files import atomic_path
from tasks.core.progress import LINES, Report
from tasks.encoding.batching import paired_batches, training_batches
from tasks.encoding.token_files import token_lengths
from tasks.training.frozen_cache import FrozenPrefix
from tasks.training.gradients import Gradients
from tasks.training.inputs import TrainingInputs, TrainingState
from tasks.training.methods.tuning import Tuning
from tasks.training.networks.architecture import disable_dropout, frozen_depth
from tasks.training.networks.torch_outputs import predict_torch
from tasks.training.networks.weights import save_trained
from tasks.training.optimizer import parameter_groups
from tasks.training.resume_point import BEST, ResumePoint
from tasks.training.solved_head import solve_head

CURVE_POINTS = 200  # points of the learning curve over the whole run
FROZEN = "frozen"  # in the run's directory: cached outputs of the frozen layers


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
        self.accelerator = Accelerator(mixed_precision="no", cpu=inputs.device == "cpu")
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
        self.gradients = Gradients(
            tuning, inputs, self.accelerator, self.model, self.prefix, report
        )
        self.resume_point = ResumePoint(inputs.work, tuning, self.optimizer, self.scheduler)

    def run(self) -> TrainingState:
        """Train to the end, resuming from the last checkpoint; best weights go to `work`/BEST."""
        if resumed := self.resume_point.load():
            self.progress = resumed
            LINES.info(
                "finetune   resumes an interrupted training at step %d of %d",
                resumed.step,
                self.total_steps,
            )
        self.first_step = self.progress.step + 1
        evaluate_every = max(1, self.steps_per_epoch // self.inputs.params.evaluations_per_epoch)
        if self.inputs.params.contrastive:  # until the head is solved there is nothing to evaluate
            evaluate_every = self.total_steps
        save_every = max(1, self.steps_per_epoch // self.inputs.params.checkpoints_per_epoch)
        self._train_mode()
        if not self.total_steps:
            self._evaluate()
            self._save()
        for rows in self._remaining_batches():
            self._step(rows)
            step = self.progress.step
            is_last = step == self.total_steps
            if is_last or step % evaluate_every == 0:
                self._evaluate()
            is_due = step % save_every == 0 and self.resume_point.is_affordable
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
            batches = self._batches(epoch)
            yield from batches[done : done + self.total_steps - self.progress.step]

    def _batches(self, epoch: int) -> list[Indices]:
        inputs = self.inputs
        size, order = inputs.params.batch_size, {"seed": inputs.seed, "epoch": epoch}
        if inputs.params.contrastive:
            return paired_batches(self.lengths, inputs.references, size, **order)
        return training_batches(self.lengths, size, **order)

    def _step(self, rows: Indices) -> None:
        progress = self.progress
        loss = self.gradients.accumulate(rows, progress)
        progress.step += 1
        learning_rate = float(self.scheduler.get_last_lr()[0])
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} at step {progress.step} of {self.total_steps} "
                f"(learning rate {learning_rate:.2g}).",
                "Lower finetune.learning_rate, raise finetune.warmup_share, or lower "
                "finetune.max_grad_norm.",
            )
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.inputs.params.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.tuning.after_step(progress.step)
        self.optimizer.zero_grad(set_to_none=True)
        progress.pending_losses.append(loss)
        self._report_step(learning_rate)

    def _report_step(self, learning_rate: float) -> None:
        progress = self.progress
        share = progress.step / self.total_steps
        metrics = {"progress": share, "loss": progress.pending_losses[-1]}
        every = max(1, self.total_steps // CURVE_POINTS)
        if progress.step % every == 0 or progress.step == self.total_steps:
            epoch = progress.step / self.steps_per_epoch
            metrics |= progress.add_point(epoch, learning_rate)
        self.report(progress.step, metrics)

    def _evaluate(self) -> None:
        inputs, progress = self.inputs, self.progress
        model, device = self.accelerator.unwrap_model(self.model), str(self.accelerator.device)
        if inputs.params.contrastive:
            told = solve_head(model, inputs).self_training
            progress.self_training = None if told is None else told.model_dump()
        outputs = predict_torch(
            model, inputs.encoder, inputs.validation, inputs.pad_token_id, device
        )
        self._train_mode()
        metrics, name = inputs.validate(outputs), inputs.metric
        score = inputs.metrics.metric_signs[name] * metrics[name]
        if progress.add_evaluation(progress.step / self.steps_per_epoch, metrics, score):
            with atomic_path(inputs.work / BEST) as new:
                save_trained(self.tuning.model, new)
        patience = inputs.params.early_stopping_patience
        progress.stopped_early = bool(patience) and progress.without_gain >= patience
        reported = {"progress": progress.step / self.total_steps if self.total_steps else 1.0}
        for metric, value in ({name: metrics[name]} | metrics).items():  # the deciding one first
            reported[f"validation_{metric}"] = value
        self.report(progress.step, reported)

    def _save(self) -> None:
        if self.prefix:
            self.prefix.save()
        self.resume_point.save(self.progress)
