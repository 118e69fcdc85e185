"""Classifiers whose head reads a pooled state instead of what the architecture's own head reads.

A sentence encoder was trained with one way of pooling its last layer (Reimers & Gurevych 2019); its
[CLS] state, which BERT's own head reads through a further layer, was trained for nothing.
"""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from tasks.core.errors import SourceError
from tasks.core.foreign import foreign_file
from tasks.data.sources.base_models import POOLING_FILE

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

Pooling = Literal["mean", "cls", "last"]
KEY = "ratchet_pooling"  # in a checkpoint's config.json; without it the architecture's own head
OWN = "own"
# keys of sentence-transformers' 1_Pooling/config.json
_DECLARED: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}


def declared_pooling(base: Path) -> str:
    """What the base model's own 1_Pooling/config.json names; `own` without one, or for a mixture.

    Format: sentence-transformers' Pooling module.
    """
    file = base / POOLING_FILE
    if not file.is_file():
        return OWN
    with foreign_file(f"{file}: cannot be read", "Set finetune.pooling to mean, cls or last."):
        declared = dict(json.loads(file.read_text(encoding="utf-8")))
    modes = [name for name, value in declared.items() if name.startswith("pooling_mode_") and value]
    return _DECLARED.get(modes[0], OWN) if len(modes) == 1 else OWN


def pooled_classifier(
    config: PretrainedConfig, base: Path, pooling: str
) -> type[PreTrainedModel] | None:
    """The class of a classifier over the body of `config`; None: the architecture's own.

    base     the model's directory, for its declaration
    pooling  `own`: as the model's files say, which may be a checkpoint of such a classifier;
             `auto`: as its 1_Pooling says; or a Pooling
    Sets the key in `config`.
    """
    from transformers import AutoModel

    chosen = getattr(config, KEY, OWN)
    if pooling != OWN and (pooling != "auto" or chosen == OWN):
        chosen = declared_pooling(base) if pooling == "auto" else pooling
    if chosen == OWN:
        return None
    if chosen not in get_args(Pooling):
        raise SourceError(
            f"{base / 'config.json'}: {KEY} is {str(chosen)[:100]!r}, "
            f"wanted one of {', '.join(get_args(Pooling))}.",
            "Set finetune.pooling, or use the model's files as they were written.",
        )
    setattr(config, KEY, chosen)
    return _class_over(AutoModel._model_mapping[type(config)])


@cache
def _class_over(body: Any) -> type[PreTrainedModel]:
    import torch
    from transformers.modeling_outputs import SequenceClassifierOutput

    prefix = body.base_model_prefix

    class PooledClassifier(body.__mro__[1]):  # type: ignore[misc]
        """Body, pooling, dropout and one linear layer."""

        def __init__(self, config: PretrainedConfig) -> None:
            super().__init__(config)
            has_pooler = "add_pooling_layer" in inspect.signature(body.__init__).parameters
            options = {"add_pooling_layer": False} if has_pooler else {}
            setattr(self, prefix, body(config, **options))
            self.dropout = torch.nn.Dropout(_head_dropout(config))
            self.classifier = torch.nn.Linear(config.hidden_size, len(config.id2label or ()))
            self.post_init()

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **inputs: Any
        ) -> SequenceClassifierOutput:
            states = self.base_model(input_ids=input_ids, attention_mask=attention_mask, **inputs)[
                0
            ]
            pooled = pool(states, attention_mask, getattr(self.config, KEY))
            return SequenceClassifierOutput(logits=self.classifier(self.dropout(pooled)))

    PooledClassifier.__name__ = f"Pooled{body.__name__.removesuffix('Model')}Classifier"
    return cast("type[PreTrainedModel]", PooledClassifier)


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One vector a row, (rows, width), of the last layer's states, (rows, tokens, width).

    mask  1 for tokens, 0 for padding, which follows them
    """
    from torch.nn import functional

    if pooling == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    if pooling == "last":
        # 1 where the next position holds no token, 0 elsewhere
        last = weights - functional.pad(weights[:, 1:], (0, 0, 0, 1))
        return (states * last).sum(1)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def _head_dropout(config: PretrainedConfig) -> float:
    keys = ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob", "resid_pdrop")
    found = (getattr(config, key, None) for key in keys)
    return float(next((value for value in found if value is not None), 0.0))
