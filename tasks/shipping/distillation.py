"""A model with fewer layers that learns to say what a fine-tuned one says, so that less has to be computed.

The student is the teacher without some of its layers, first and last kept (Sajjad et al. 2023), its embeddings rounded to 4 bits;
what it learns are the teacher's outputs on the training rows, by their squared difference (Ba & Caruana 2014). Labels are not needed,
so that it serves every problem whose outputs are no vocabulary.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.progress import Report
from tasks.encoding.batching import training_batches
from tasks.encoding.token_files import take, token_lengths
from tasks.shipping.graphs.embeddings import round_rows
from tasks.training.networks.architecture import embedding_block, layer_stack

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel

    from tasks.problems.base import Problem

BATCH_ROWS = 32
LEARNING_RATE = 2e-4  # the highest, after a tenth of the steps
MAX_GRAD_NORM = 1.0


def make_student(teacher: PreTrainedModel, layers: int) -> PreTrainedModel:
    """A copy with `layers` of its layers, evenly spread, and embeddings in steps of 4 bits, which are not trained.

    Raises ValueError where the teacher has no more layers than that.
    """
    import torch

    student = copy.deepcopy(teacher)
    stack = layer_stack(student)
    if not 1 <= layers < len(stack):
        raise ValueError(
            f"export.distilled_layers: {layers} layers, wanted from 1 to {len(stack) - 1} of the checkpoint's {len(stack)}"
        )
    kept = set(np.linspace(0, len(stack) - 1, layers).astype(int).tolist())
    for number in reversed(range(len(stack))):
        if number not in kept:
            del stack[number]
    student.config.num_hidden_layers = layers
    with torch.no_grad():
        for table in (
            module.weight for module in student.modules() if isinstance(module, torch.nn.Embedding)
        ):
            table.copy_(torch.from_numpy(round_rows(table.numpy())))
            table.requires_grad_(False)
    embedding_block(student).requires_grad_(False)
    return student


def distill(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    problem: Problem,
    rows: pa.Table,
    pad: int,
    *,
    epochs: int,
    seed: int,
    report: Report,
) -> None:
    """Train the student in place on tokenized rows, without dropout, so that what comes of it rests on the seed alone.

    The rows of a batch stay together from epoch to epoch, so that the teacher is asked once.
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
    draw, known, done = np.random.default_rng(seed), {}, 0
    for _ in range(epochs):
        for number in draw.permutation(len(batches)).tolist():
            features = take(rows, batches[number])
            batch = {
                name: torch.from_numpy(values)
                for name, values in problem.collate(features, pad).items()
            }
            if number not in known:
                with torch.no_grad():
                    known[number] = teacher(**batch)[problem.output_name]
            outputs, wanted = student(**batch)[problem.output_name], known[number]
            if outputs.ndim > 2:  # of tokens: padding has nothing to say
                there = batch["attention_mask"].bool()
                outputs, wanted = outputs[there], wanted[there]
            torch.autograd.backward(torch.nn.functional.mse_loss(outputs, wanted))
            torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done += 1
            report(done, {"progress": done / steps})
