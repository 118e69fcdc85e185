"""A problem type's model from a base model's or a checkpoint's directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# the names differ between architectures; only those that the base has are set
_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout", "attention_dropout", "seq_classif_dropout",
)  # fmt: skip


def load_pretrained(
    kind: Any, directory: Path, dropout: float | None, labels: Sequence[str] = (), problem_type: str | None = None
) -> PreTrainedModel:
    """The model: safetensors only, no remote code, float32, attention as it can be traced and fused.

    kind          one of transformers' Auto classes
    labels        of its outputs; empty: it has none
    problem_type  as Hugging Face calls it, of a classifier
    """
    config = _config(directory, dropout, labels)
    if problem_type is not None:
        config.problem_type = problem_type
    model: PreTrainedModel = kind.from_pretrained(
        directory, config=config, trust_remote_code=False, use_safetensors=True, dtype="float32", attn_implementation="eager"
    )
    return model


def _config(directory: Path, dropout: float | None, labels: Sequence[str]) -> PretrainedConfig:
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
