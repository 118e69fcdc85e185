"""Supervised contrastive loss: rows of one class come close, rows of others move apart.

Khosla et al. 2020, "Supervised Contrastive Learning", the loss L_out. Each batch is its own set of
comparisons, so the cost grows with the rows, not with their pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.core.errors import DataError

if TYPE_CHECKING:
    import torch

    from tasks.core.arrays import Array

TEMPERATURE = 0.1  # as in the paper


def require_pairs(classes: Array) -> None:
    """Raise DataError if no class, (rows,), has two rows: there would be nothing to learn from."""
    if np.bincount(classes).max(initial=0) < 2:
        raise DataError(
            "finetune.loss: contrastive compares rows of one label, and no label has two training "
            "rows.",
            "Add rows, set finetune.label_names to true, or finetune.loss to null with "
            "finetune.method frozen.",
        )


def supervised_contrastive(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    label_smoothing: float,
    class_weights: torch.Tensor | None,
) -> torch.Tensor:
    """Mean loss of the rows that share their class with another of the batch; 0 without any.

    outputs        (rows, width), what the output layer reads
    targets        (rows,) class of each row
    class_weights  not used here: they weigh the rows of the head that is solved afterwards
    """
    import torch
    from torch.nn import functional

    if len(outputs) < 2:
        return 0 * outputs.sum()
    itself = torch.eye(len(outputs), dtype=torch.bool, device=outputs.device)
    unit = functional.normalize(outputs, dim=1)
    similar = (unit @ unit.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    log_shares = similar - similar.logsumexp(1, keepdim=True)
    same_class = (targets[:, None] == targets) & ~itself
    others = same_class.sum(1)
    losses = -log_shares.masked_fill(~same_class, 0).sum(1) / others.clamp(min=1)
    return losses.sum() / (others > 0).sum().clamp(min=1)
