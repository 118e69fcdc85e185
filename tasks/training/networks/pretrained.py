"""A problem type's model from a base model's or a checkpoint's directory; no weight of it is drawn at random unless it is the head's."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import SourceError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# the names differ between architectures; only those that the base has are set
_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout", "attention_dropout", "seq_classif_dropout",
)  # fmt: skip
# what older files hold beside weights
_BUFFERS = ("position_ids", "attn.bias", "attn.masked_bias", "inv_freq")
_SHOWN = 3  # weights that a message names


def load_pretrained(
    kind: Any,
    directory: Path,
    dropout: float | None,
    labels: Sequence[str] = (),
    problem_type: str | None = None,
) -> PreTrainedModel:
    """The model: safetensors only, no remote code, float32, attention as it can be traced and fused.

    kind          one of transformers' Auto classes
    labels        of its outputs; empty: it has none
    problem_type  as Hugging Face calls it, of a classifier
    Raises SourceError for files that cannot be read, and for weights that are missing or of another shape, the head's aside.
    """
    with _read_errors(directory):
        config = _config(directory, dropout, labels)
        if problem_type is not None:
            config.problem_type = problem_type
        declared = tuple(config.architectures or ())
        # a head for other labels has another shape, and is drawn anew; `check_weights` refuses any other difference
        model, loading = kind.from_pretrained(
            directory, config=config, trust_remote_code=False, use_safetensors=True, dtype="float32", attn_implementation="eager",
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    check_weights(model, loading, str(directory), complete=type(model).__name__ in declared)
    loaded: PreTrainedModel = model
    return loaded


def check_weights(
    model: PreTrainedModel, loading: Mapping[str, Any], where: str, *, complete: bool
) -> None:
    """Raise SourceError where a weight that the files should hold was drawn at random instead.

    loading   transformers' loading info
    complete  the files say that they hold this very model, head included; else the head may be missing, and a pooler that
              transformers builds such a body without as well. A head of other shapes is a head for other labels.
    """
    body = {id(parameter) for parameter in model.base_model.parameters()}
    names = dict(model.named_parameters())
    inside = {name for name, parameter in names.items() if id(parameter) in body}
    wanted = set(names) if complete else inside - _absent_by_design(model, loading)
    lost = sorted(wanted & set(loading["missing_keys"]))
    reshaped = sorted(
        (name, tuple(found), tuple(made))
        for name, found, made in loading["mismatched_keys"]
        if name in inside
    )
    if lost:
        unused = sorted(loading["unexpected_keys"])
        raise SourceError(
            f"{where}: {len(lost)} of the {len(wanted)} weights that {type(model).__name__} wants are not in its files: {_some(lost)}."
            f"{f' They hold {len(unused)} that it does not know: {_some(unused)}.' if unused else ''}",
            "Training would start them at random. Take the model's complete files, as `save_pretrained` writes them.",
        )
    if spare := _spare_of_body(model, loading["unexpected_keys"]):
        raise SourceError(
            f"{where}: its files hold {len(spare)} weights that a model of its config.json does not have: {_some(spare)}.",
            "They would be left out. Take config.json and the weights of one model.",
        )
    if reshaped:
        shapes = [f"{name} {list(found)}, wanted {list(made)}" for name, found, made in reshaped]
        raise SourceError(
            f"{where}: {len(shapes)} of its weights do not have the shapes that its config.json says: {_some(shapes)}.",
            "Take config.json and the weights of one model.",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _absent_by_design(model: PreTrainedModel, loading: Mapping[str, Any]) -> set[str]:
    """The optional weights, where the files have none of them, nor what may be one under another name."""
    optional = _optional(model)
    renamed = any("pool" in name for name in loading["unexpected_keys"])
    return optional if optional <= set(loading["missing_keys"]) and not renamed else set()


def _spare_of_body(model: PreTrainedModel, unexpected: Sequence[str]) -> list[str]:
    """Names that belong to a part of the body that the model has, such as a layer beyond its last; buffers of older files aside."""
    parts = {name for name, _ in model.base_model.named_children()}
    prefix = f"{model.base_model_prefix}."
    return sorted(
        name
        for name in unexpected
        if name.removeprefix(prefix).split(".")[0] in parts and not name.endswith(_BUFFERS)
    )


def _optional(model: PreTrainedModel) -> set[str]:
    """Weights of the body that transformers itself can build it without: a pooler, which a base may lack by design."""
    import torch

    body: Any = model.base_model
    if "add_pooling_layer" not in inspect.signature(type(body).__init__).parameters:
        return set()
    with torch.device("meta"):
        plain = {
            name for name, _ in type(body)(body.config, add_pooling_layer=False).named_parameters()
        }
    ours = {id(parameter): name for name, parameter in model.named_parameters()}
    return {ours[id(parameter)] for name, parameter in body.named_parameters() if name not in plain}


@contextmanager
def _read_errors(directory: Path) -> Iterator[None]:
    """What transformers and safetensors say of files that they cannot read, as a SourceError."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except (ValueError, KeyError, SafetensorError, StrictDataclassError) as error:
        raise _unreadable(directory, error) from error
    except OSError as error:
        if error.errno is not None:  # the system's own refusal, such as no permission
            raise
        raise _unreadable(directory, error) from error


def _unreadable(directory: Path, error: Exception) -> SourceError:
    said = " ".join(str(error).split())[:300] or type(error).__name__
    return SourceError(
        f"{directory}: its files cannot be read as a model: {said}",
        "Take a model as `save_pretrained` writes it.",
    )


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
