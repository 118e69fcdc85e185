"""What a problem type sets in a base model's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# the names differ between architectures; only those that the base has are set
_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout", "attention_dropout", "seq_classif_dropout",
)  # fmt: skip


def base_config(directory: Path, dropout: float | None, labels: Sequence[str] = ()) -> PretrainedConfig:
    """The configuration of a base model or a checkpoint, with these labels on its outputs (none: it has none) and this dropout."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    if labels:
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
    if dropout is not None:
        for key in _DROPOUTS:
            if hasattr(config, key):
                setattr(config, key, dropout)
    return config
