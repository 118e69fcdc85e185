"""Predict with a torch model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.core.progress import Report, silent
from tasks.core.ragged import gather
from tasks.encoding.batching import inference_batches
from tasks.encoding.encoder import OUTPUT_NAME

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.core.arrays import Features, Floats
    from tasks.encoding.encoder import Collator


def predict_torch(
    model: PreTrainedModel,
    collator: Collator,
    features: Features,
    pad_token_id: int,
    device: str = "cpu",
    *,
    batch_rows: int = 256,
    report: Report = silent,
) -> Floats:
    """Outputs, (rows, ...) in the rows' order; the model's training mode is restored."""
    import torch

    lengths = np.fromiter(map(len, features["input_ids"]), np.int64, len(features["input_ids"]))
    outputs: list[Floats] = []
    order: list[np.ndarray] = []
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for rows in inference_batches(lengths, collator.batch_tokens, batch_rows):
            batch = {name: [values[i] for i in rows] for name, values in features.items()}
            arrays = collator.collate(batch, pad_token_id)
            inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
            raw = model(**inputs)[OUTPUT_NAME].float().cpu().numpy()
            outputs.append(collator.reduce(raw, batch))
            order.append(rows)
            report(len(order), {"progress": sum(map(len, order)) / len(lengths)})
    model.train(was_training)
    return gather(outputs, order)
