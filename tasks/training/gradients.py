"""Gradients of a batch, computed in as many parts as memory requires."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.arrays import Indices
from tasks.core.errors import TrainingError
from tasks.core.memory import free_cached_memory, is_out_of_memory
from tasks.core.progress import LINES, Report
from tasks.core.seeds import random_state, set_random_state
from tasks.encoding.encoder import OUTPUT_NAME
from tasks.encoding.token_files import take
from tasks.training.frozen_cache import FrozenPrefix
from tasks.training.inputs import TrainingInputs, TrainingState
from tasks.training.methods.tuning import Tuning
from tasks.training.networks.device import in_bfloat16
from tasks.training.solved_head import head_inputs_as_outputs, output_layer

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


class Gradients:
    """Computes the loss and its gradients.

    network  the model as prepared by `accelerator`
    prefix   cache of the frozen layers' outputs; None without one
    report   told when memory runs out
    """

    def __init__(
        self,
        tuning: Tuning,
        inputs: TrainingInputs,
        accelerator: Accelerator,
        network: torch.nn.Module,
        prefix: FrozenPrefix | None,
        report: Report,
    ) -> None:
        import torch

        self.tuning, self.inputs, self.network = tuning, inputs, network
        self.accelerator, self.prefix, self.report = accelerator, prefix, report
        self.device = accelerator.device
        # accelerate has one precision per process, so each run sets its own
        bfloat16 = in_bfloat16(inputs.params.precision, inputs.device)
        self.precision = partial(torch.autocast, self.device.type, torch.bfloat16, enabled=bfloat16)
        losses, weights = inputs.objective.losses, inputs.class_weights
        self.loss = losses[inputs.params.loss or next(iter(losses))]
        self.compared_at = output_layer(tuning.model) if inputs.params.contrastive else None
        self.class_weights = None if weights is None else torch.from_numpy(weights).to(self.device)

    def accumulate(self, rows: Indices, state: TrainingState) -> float:
        """Add a batch's gradients to the parameters'; its mean loss.

        When memory runs out, `state.accumulation` is doubled.
        """
        while True:
            rng_state = random_state()
            parts = np.array_split(rows, min(state.accumulation, len(rows)))
            try:
                return self._accumulate_parts(parts, len(rows))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._use_smaller_parts(state, len(rows), error)
            # start the step over, so that the result is that of small parts from the start
            self.network.zero_grad(set_to_none=True)
            free_cached_memory()
            set_random_state(rng_state)

    def _accumulate_parts(self, parts: list[Indices], count: int) -> float:
        losses = []
        for part in parts:
            loss = self._loss(part) * (len(part) / count)
            self.accelerator.backward(loss)
            losses.append(float(loss.detach()))
        penalty = self.tuning.penalty()
        if penalty is not None:
            self.accelerator.backward(penalty)
        return sum(losses)

    def _loss(self, rows: Indices) -> torch.Tensor:
        import torch

        inputs, device = self.inputs, self.device
        batch, targets = inputs.encoder.training_batch(
            take(inputs.train, rows), inputs.pad_token_id
        )
        tensors = {name: torch.from_numpy(values).to(device) for name, values in batch.items()}
        references = torch.from_numpy(targets).to(device)
        only_needed = inputs.objective.skip_unused_outputs(self.tuning.model, references)
        cached: AbstractContextManager[None] = nullcontext()
        compared: AbstractContextManager[None] = nullcontext()
        if self.prefix:
            cached = self.prefix.over(batch, device)
        if self.compared_at:
            compared = head_inputs_as_outputs(self.tuning.model, self.compared_at)
        with self.precision(), only_needed, cached, compared:
            outputs = self.network(**tensors)[OUTPUT_NAME]
            return self.loss(
                outputs.float(),
                references,
                label_smoothing=inputs.params.label_smoothing,
                class_weights=self.class_weights,
            )

    def _use_smaller_parts(self, state: TrainingState, count: int, error: BaseException) -> None:
        step, total_steps = state.step + 1, self.inputs.total_steps
        if state.accumulation >= count:
            raise TrainingError(
                f"out of memory at step {step} of {total_steps}, with a single row at a time: "
                f"{' '.join(str(error).split())[:200]}",
                "Lower tokenize.max_length, set finetune.gradient_checkpointing to true, train "
                "fewer weights (finetune.method: lora), or use a smaller base_model.",
            ) from error
        state.accumulation *= 2
        state.out_of_memory.append({"step": step, "accumulation": state.accumulation})
        LINES.warning(
            "finetune   out of memory at step %d: batches of %d rows are computed in %d parts from "
            "now on",
            step,
            self.inputs.params.batch_size,
            state.accumulation,
        )
        share = state.step / total_steps
        self.report(step, {"progress": share, "accumulation": state.accumulation})
