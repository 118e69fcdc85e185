"""A torch model's outputs for many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.core.progress import Report, silent
from tasks.core.ragged import gather
from tasks.encoding.batching import inference_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.core.arrays import Features, Floats
    from tasks.problems.base import Problem


def predict_torch(
    model: PreTrainedModel,
    problem: Problem,
    features: Features,
    pad_token_id: int,
    device: str = "cpu",
    *,
    batch_rows: int = 256,
    report: Report = silent,
) -> Floats:
    """Outputs in the rows' order, first axis the rows; the model is left in the mode it was in."""
    import torch

    lengths = np.fromiter(map(len, features["input_ids"]), np.int64, len(features["input_ids"]))
    outputs: list[Floats] = []
    order: list[np.ndarray] = []
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for rows in inference_batches(lengths, problem.batch_tokens, batch_rows):
            chosen = {name: [values[i] for i in rows] for name, values in features.items()}
            batch = problem.collate(chosen, pad_token_id)
            inputs = {name: torch.from_numpy(values).to(device) for name, values in batch.items()}
            outputs.append(
                problem.reduce(model(**inputs)[problem.output_name].float().cpu().numpy(), chosen)
            )
            order.append(rows)
            report(len(order), {"progress": sum(map(len, order)) / len(lengths)})
    model.train(was_training)
    return gather(outputs, order)
