"""Every way to fine-tune: what `finetune.method` makes of a model before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import ParamsError, did_you_mean
from tasks.params.finetuning import FinetuneParams
from tasks.training.methods.tuning import AdaLoraTuning, PeftTuning, Tuning
from tasks.training.networks.architecture import (
    embedding_block,
    feed_forward_outputs,
    freeze,
    head_parameters,
    linear_modules,
    linear_shape,
    untrained_parameters,
)

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Ground:
    """What a method is applied to.

    head   parameters that are trained beside what the method adds, by name
    steps  optimizer steps of the whole run, on which AdaLoRA's schedule rests
    """

    model: PreTrainedModel
    head: dict[str, nn.Parameter]
    params: FinetuneParams
    steps: int

    @property
    def linears(self) -> dict[str, nn.Module]:
        """The modules that the method changes: all linear ones of the body with pretrained weights, or those that params.yaml names."""
        trained = {name.rpartition(".")[0] for name in self.head}
        found = {
            name: module
            for name, module in linear_modules(self.model).items()
            if name not in trained
        }
        wanted = self.params.sizes.target_modules
        return found if wanted == "auto" else {name: found[name] for name in _named(found, wanted)}


def apply_method(model: PreTrainedModel, base: Path, params: FinetuneParams, steps: int) -> Tuning:
    """The model as `method` trains it: just what is to be trained requires gradients. What is added is drawn from torch's random state.

    base   the directory that the model was loaded from, which tells the weights of its head that are new
    steps  optimizer steps of the whole run
    Raises ParamsError where the method makes no sense for this model.
    """
    head = head_parameters(model) if model.get_output_embeddings() is None else {}
    ground = Ground(model, head | untrained_parameters(model, base), params, steps)
    if params.adds:
        model.requires_grad_(False)
    tuning = METHODS[params.method](ground)
    for parameter in ground.head.values() if params.adds else ():
        parameter.requires_grad_(True)
    if params.freeze_embeddings:
        embedding_block(model).requires_grad_(False)
    return tuning


def _own_weights(ground: Ground) -> Tuning:
    """Full fine-tuning, with as much frozen as params.yaml says; `frozen` that says nothing freezes all but the head."""
    model, params = ground.model, ground.params
    unsaid = params.method == "frozen" and not params.freeze_layers and not params.freeze_embeddings
    if params.freeze_layers != "all" and not unsaid:
        freeze(model, embeddings=params.freeze_embeddings, layers=params.freeze_layers)
        return Tuning(model)
    head = head_parameters(model) | ground.head
    if not head:
        raise ParamsError(
            f"finetune.method: {type(model).__name__} has no head of its own (its output layer is its embedding): "
            "with all else frozen nothing is trained.",
            "Set finetune.freeze_layers to a number of layers, or take another method.",
        )
    model.requires_grad_(False)
    for parameter in head.values():
        parameter.requires_grad_(True)
    return Tuning(model)


def _lora(ground: Ground, **options: Any) -> Tuning:
    from peft import LoraConfig, LoraModel

    sizes = ground.params.sizes
    config = LoraConfig(
        r=sizes.rank, lora_alpha=sizes.alpha, lora_dropout=sizes.dropout, target_modules=list(ground.linears),
        fan_in_fan_out=_transposed(ground.linears.values()), **options,
    )  # fmt: skip
    return PeftTuning(ground.model, LoraModel(ground.model, config, "default"))


def _dora(ground: Ground) -> Tuning:
    return _lora(ground, use_dora=True)


def _rslora(ground: Ground) -> Tuning:
    return _lora(ground, use_rslora=True)


def _qlora(ground: Ground) -> Tuning:
    from tasks.training.methods.qlora import QloraTuning, quantize

    quantize(ground.model, ground.linears)
    tuning = _lora(ground)
    assert isinstance(tuning, PeftTuning)
    return QloraTuning(ground.model, tuning.tuner)


def _adalora(ground: Ground) -> Tuning:
    from peft import AdaLoraConfig, AdaLoraModel

    sizes, steps = ground.params.sizes, ground.steps
    steps = max(steps, 2)  # peft judges the triplets by the steps before the last
    # the schedule of the paper's runs, in shares of all steps: train all triplets, take some away, train what is left
    config = AdaLoraConfig(
        init_r=sizes.rank + max(1, sizes.rank // 2), target_r=sizes.rank, tinit=steps // 10, tfinal=steps // 3,
        deltaT=max(1, steps // 100), total_step=steps, lora_alpha=sizes.alpha, lora_dropout=sizes.dropout,
        target_modules=list(ground.linears), fan_in_fan_out=_transposed(ground.linears.values()),
    )  # fmt: skip
    return AdaLoraTuning(ground.model, AdaLoraModel(ground.model, config, "default"))  # type: ignore[no-untyped-call]


def _ia3(ground: Ground) -> Tuning:
    from peft import IA3Config, IA3Model

    linears = ground.linears
    # no name tells keys and values from the rest in every architecture: all outputs are scaled, and what goes into the
    # feed-forward part's end, as in the paper (Liu et al. 2022)
    config = IA3Config(
        target_modules=list(linears), feedforward_modules=[name for name in feed_forward_outputs(ground.model) if name in linears],
        fan_in_fan_out=_transposed(linears.values()),
    )  # fmt: skip
    return PeftTuning(ground.model, IA3Model(ground.model, config, "default"))


def _prefix(ground: Ground) -> Tuning:
    from tasks.training.methods.virtual_tokens import drawn_states

    return _tokens(ground, drawn_states(ground.model, ground.params.sizes.virtual_tokens))


def _prompt(ground: Ground) -> Tuning:
    from tasks.training.methods.virtual_tokens import drawn_tokens

    return _tokens(ground, drawn_tokens(ground.model, ground.params.sizes.virtual_tokens))


def _p_tuning(ground: Ground) -> Tuning:
    from tasks.training.methods.virtual_tokens import EncodedTokens

    width = ground.model.get_input_embeddings().weight.shape[1]
    return _tokens(ground, EncodedTokens(ground.params.sizes.virtual_tokens, width))


def _tokens(ground: Ground, source: nn.Module) -> Tuning:
    from tasks.training.methods.additions import PromptTuning
    from tasks.training.methods.virtual_tokens import attach_tokens

    attach_tokens(ground.model, source)
    return PromptTuning(ground.model)


def _adapter(ground: Ground) -> Tuning:
    from tasks.training.methods.additions import BottleneckTuning
    from tasks.training.methods.bottleneck import Bottleneck, attach_bottleneck

    modules = linear_modules(ground.model)
    for name in feed_forward_outputs(ground.model):
        attach_bottleneck(
            modules[name],
            Bottleneck(linear_shape(modules[name])[1], ground.params.sizes.bottleneck),
        )
    return BottleneckTuning(ground.model)


def _bitfit(ground: Ground) -> Tuning:
    biases = [
        parameter
        for name, parameter in ground.model.base_model.named_parameters()
        if name.split(".")[-1] == "bias"
    ]
    if not biases:
        raise ParamsError(
            f"finetune.method: {type(ground.model).__name__} has no biases, which are all that bitfit trains.",
            "Take another method, such as lora or ia3.",
        )
    for bias in biases:
        bias.requires_grad_(True)
    return Tuning(ground.model)


METHODS: dict[str, Callable[[Ground], Tuning]] = {
    "full": _own_weights,
    "frozen": _own_weights,
    "lora": _lora,
    "adalora": _adalora,
    "dora": _dora,
    "rslora": _rslora,
    "qlora": _qlora,
    "ia3": _ia3,
    "prefix-tuning": _prefix,
    "prompt-tuning": _prompt,
    "p-tuning": _p_tuning,
    "adapter": _adapter,
    "bitfit": _bitfit,
}


def _transposed(modules: Iterable[nn.Module]) -> bool:
    """Whether weights lie as (inputs, outputs), as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in modules)


def _named(found: dict[str, nn.Module], wanted: tuple[str, ...]) -> list[str]:
    ends = {
        name: [full for full in found if full == name or full.endswith(f".{name}")]
        for name in wanted
    }
    unknown = [name for name, fulls in ends.items() if not fulls]
    known = sorted({full.rpartition(".")[2] for full in found})
    if unknown:
        lines = " ".join(
            f"no linear layer is called '{name}'.{did_you_mean(name, known)}" for name in unknown
        )
        raise ParamsError(
            f"finetune.sizes.target_modules: {lines}",
            f"The base model has: {', '.join(known)}. Or set it to auto.",
        )
    return list(dict.fromkeys(full for fulls in ends.values() for full in fulls))
