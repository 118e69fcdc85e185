"""Distillation: train a student with fewer layers to reproduce a fine-tuned teacher's outputs.

The student is the teacher with some layers dropped, first and last kept (Sajjad et al. 2023), and
its embeddings rounded to 4 bits. It minimizes the squared difference to the teacher's outputs on
the training rows (Ba & Caruana 2014). That needs no labels, so it works for every problem whose
outputs are not a vocabulary.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.progress import Report
from tasks.encoding.batching import training_batches
from tasks.encoding.encoder import OUTPUT_NAME
from tasks.encoding.token_files import take, token_lengths
from tasks.shipping.graphs.embeddings import round_rows
from tasks.training.networks.architecture import embedding_block, layer_stack

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel

    from tasks.encoding.encoder import Encoder

BATCH_ROWS = 32
LEARNING_RATE = 2e-4  # peak, after a warm-up of a tenth of the steps
MAX_GRAD_NORM = 1.0


def make_student(teacher: PreTrainedModel, layers: int) -> PreTrainedModel:
    """A copy with `layers` evenly spaced layers and frozen embeddings rounded to 4 bits.

    Raises ValueError unless `layers` is at least 1 and below the teacher's number of layers.
    """
    import torch

    student = copy.deepcopy(teacher)
    stack = layer_stack(student)
    if not 1 <= layers < len(stack):
        raise ValueError(
            f"export.distilled_layers: {layers} layers, "
            f"wanted from 1 to {len(stack) - 1} of the checkpoint's {len(stack)}"
        )
    kept = set(np.linspace(0, len(stack) - 1, layers).astype(int).tolist())
    for layer in reversed(range(len(stack))):
        if layer not in kept:
            del stack[layer]
    student.config.num_hidden_layers = layers
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, torch.nn.Embedding):
                module.weight.copy_(torch.from_numpy(round_rows(module.weight.numpy())))
                module.weight.requires_grad_(False)
    embedding_block(student).requires_grad_(False)
    return student


def distill(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    encoder: Encoder,
    rows: pa.Table,
    pad: int,
    *,
    epochs: int,
    seed: int,
    report: Report,
) -> None:
    """Train the student in place on tokenized rows, without dropout: the seed decides the result.

    Batches keep their rows in every epoch, so the teacher runs once per batch.
    """
    import torch
    from transformers import get_linear_schedule_with_warmup

    batches = training_batches(token_lengths(rows), BATCH_ROWS, seed=seed, epoch=0)
    steps = epochs * len(batches)
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    student.eval()
    teacher.eval()
    draw, targets, step = np.random.default_rng(seed), {}, 0
    for _ in range(epochs):
        for batch_index in draw.permutation(len(batches)).tolist():
            inputs = encoder.collate(take(rows, batches[batch_index]), pad)
            batch = {name: torch.from_numpy(values) for name, values in inputs.items()}
            if batch_index not in targets:
                with torch.no_grad():
                    targets[batch_index] = teacher(**batch)[OUTPUT_NAME]
            outputs, target = student(**batch)[OUTPUT_NAME], targets[batch_index]
            if outputs.ndim > 2:  # one output per token: leave out the padding
                mask = batch["attention_mask"].bool()
                outputs, target = outputs[mask], target[mask]
            torch.autograd.backward(torch.nn.functional.mse_loss(outputs, target))
            torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            report(step, {"progress": step / steps})
