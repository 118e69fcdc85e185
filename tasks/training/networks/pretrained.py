"""Load a model from the directory of a base model or checkpoint.

Only the weights of a head may start at random; any other missing weight is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.errors import SourceError
from tasks.core.foreign import foreign_file
from tasks.training.networks.pooling import OWN, pooled_classifier

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

ProblemType = Literal[
    "regression", "single_label_classification", "multi_label_classification"
]  # fmt: skip
# configuration keys, which differ between architectures; only those that a base has are set
_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",
    "dropout", "attention_dropout", "seq_classif_dropout",
)  # fmt: skip
# buffers that older files store along with the weights
_BUFFERS = ("position_ids", "attn.bias", "attn.masked_bias", "inv_freq")
_SHOWN = 3  # weights that a message lists


def load_pretrained(
    auto_class: Any,
    directory: Path,
    dropout: float | None,
    labels: Sequence[str] = (),
    problem_type: ProblemType | None = None,
    pooling: str = OWN,
) -> PreTrainedModel:
    """Load a model: safetensors only, no remote code, float32, eager (traceable) attention.

    auto_class    one of transformers' Auto classes
    labels        labels of its outputs; empty if it has none
    problem_type  Hugging Face's name for the kind of classification
    pooling       what the head of a classifier reads: see networks/pooling.py
    Raises SourceError for unreadable files, and for missing or mis-shaped weights outside the head.
    """
    what = f"{directory}: its files cannot be read as a model"
    with foreign_file(what, "Use a model as written by `save_pretrained`."):
        config = _config(directory, dropout, labels)
        if problem_type is not None:
            config.problem_type = problem_type
            auto_class = pooled_classifier(config, directory, pooling) or auto_class
        declared = tuple(config.architectures or ())
        # a head for other labels has another shape and is reinitialized; `check_weights` rejects
        # all other mismatches
        model, loading = auto_class.from_pretrained(
            directory, config=config, trust_remote_code=False, use_safetensors=True,
            dtype="float32", attn_implementation="eager", output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    check_weights(model, loading, str(directory), complete=type(model).__name__ in declared)
    loaded: PreTrainedModel = model
    return loaded


def check_weights(
    model: PreTrainedModel, loading: Mapping[str, Any], where: str, *, complete: bool
) -> None:
    """Raise SourceError if a weight that the files should hold was initialized at random instead.

    loading   transformers' loading info
    complete  whether the files claim to hold this very model, head included. If not, the head may
              be missing, and so may a pooler that transformers can build the body without.
    A head with other shapes is accepted: it is for other labels.
    """
    body = {id(parameter) for parameter in model.base_model.parameters()}
    parameters = dict(model.named_parameters())
    inside = {name for name, parameter in parameters.items() if id(parameter) in body}
    required = set(parameters) if complete else inside - _absent_by_design(model, loading)
    missing = sorted(required & set(loading["missing_keys"]))
    reshaped = sorted(
        (name, tuple(stored), tuple(wanted))
        for name, stored, wanted in loading["mismatched_keys"]
        if name in inside
    )
    if missing:
        unused = sorted(loading["unexpected_keys"])
        unknown = f" They hold {len(unused)} unknown ones: {_shown(unused)}." if unused else ""
        raise SourceError(
            f"{where}: {len(missing)} of the {len(required)} weights of {type(model).__name__} "
            f"are not in its files: {_shown(missing)}.{unknown}",
            "Training would start them at random. Use the model's complete files, as written by "
            "`save_pretrained`.",
        )
    if extra := _unused_body_weights(model, loading["unexpected_keys"]):
        raise SourceError(
            f"{where}: its files hold {len(extra)} weights that its config.json has no place for: "
            f"{_shown(extra)}.",
            "They would be ignored. Use config.json and weights of the same model.",
        )
    if reshaped:
        shapes = [
            f"{name} {list(stored)}, wanted {list(wanted)}" for name, stored, wanted in reshaped
        ]
        raise SourceError(
            f"{where}: {len(shapes)} of its weights do not have the shapes in its config.json: "
            f"{_shown(shapes)}.",
            "Use config.json and weights of the same model.",
        )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _absent_by_design(model: PreTrainedModel, loading: Mapping[str, Any]) -> set[str]:
    """The optional weights if the files hold none of them, under this or possibly another name."""
    optional = _optional_weights(model)
    renamed = any("pool" in name for name in loading["unexpected_keys"])
    return optional if optional <= set(loading["missing_keys"]) and not renamed else set()


def _unused_body_weights(model: PreTrainedModel, unexpected: Sequence[str]) -> list[str]:
    """Unexpected weights in parts of the body that the model has, such as layers past its last.

    Buffers of older files do not count.
    """
    parts = {name for name, _ in model.base_model.named_children()}
    prefix = f"{model.base_model_prefix}."
    return sorted(
        name
        for name in unexpected
        if name.removeprefix(prefix).split(".")[0] in parts and not name.endswith(_BUFFERS)
    )


def _optional_weights(model: PreTrainedModel) -> set[str]:
    """Weights that transformers can build the body without: those of a pooler, if any."""
    import torch

    body: Any = model.base_model
    if "add_pooling_layer" not in inspect.signature(type(body).__init__).parameters:
        return set()
    with torch.device("meta"):
        plain = dict(type(body)(body.config, add_pooling_layer=False).named_parameters())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)] for name, parameter in body.named_parameters() if name not in plain
    }


def _config(directory: Path, dropout: float | None, labels: Sequence[str]) -> PretrainedConfig:
    from transformers import AutoConfig

    config: PretrainedConfig = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    if labels:
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
    if dropout is not None:
        for key in _DROPOUTS:
            if hasattr(config, key):
                setattr(config, key, dropout)
    return config
