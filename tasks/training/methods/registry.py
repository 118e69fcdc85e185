"""All fine-tuning methods: how `finetune.method` prepares a model for training."""

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
    token_embeddings,
    untrained_parameters,
)

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class MethodContext:
    """The inputs of a method.

    head   parameters to train besides what the method adds, by name
    steps  optimizer steps of the whole run, for AdaLoRA's schedule
    """

    model: PreTrainedModel
    head: dict[str, nn.Parameter]
    params: FinetuneParams
    steps: int

    @property
    def linears(self) -> dict[str, nn.Module]:
        """The modules to change: `target_modules`, or all pretrained linear ones of the body."""
        head_modules = {name.rpartition(".")[0] for name in self.head}
        linears = linear_modules(self.model)
        modules = {name: linears[name] for name in linears if name not in head_modules}
        targets = self.params.sizes.target_modules
        if targets == "auto":
            return modules
        return {name: modules[name] for name in _matching_names(modules, targets)}


def apply_method(model: PreTrainedModel, base: Path, params: FinetuneParams, steps: int) -> Tuning:
    """Prepare the model for training by `method`; only trained parameters require gradients.

    base   directory that the model was loaded from; shows which of the head's weights are new
    steps  optimizer steps of the whole run
    Added weights are initialized from torch's random state.
    Raises ParamsError if the method does not work with this model.
    """
    head = head_parameters(model) if model.get_output_embeddings() is None else {}
    ground = MethodContext(model, head | untrained_parameters(model, base), params, steps)
    if params.adds:
        model.requires_grad_(False)
    tuning = METHODS[params.method](ground)
    for parameter in ground.head.values() if params.adds else ():
        parameter.requires_grad_(True)
    if params.freeze_embeddings:
        embedding_block(model).requires_grad_(False)
    return tuning


def _full(ground: MethodContext) -> Tuning:
    """Fine-tune the model's own weights except the frozen ones.

    `frozen` without freeze_layers or freeze_embeddings freezes everything except the head.
    """
    model, params = ground.model, ground.params
    if not params.head_only:
        assert params.freeze_layers != "all"
        freeze(model, embeddings=params.freeze_embeddings, layers=params.freeze_layers)
        return Tuning(model)
    head = head_parameters(model) | ground.head
    if not head:
        raise ParamsError(
            f"finetune.method: {type(model).__name__} has no head of its own (its output layer is "
            "its embedding), so freezing everything else leaves nothing to train.",
            "Set finetune.freeze_layers to a number of layers, or use another method.",
        )
    model.requires_grad_(False)
    for parameter in head.values():
        parameter.requires_grad_(True)
    return Tuning(model)


def _lora(ground: MethodContext, **options: Any) -> Tuning:
    from peft import LoraConfig, LoraModel

    sizes = ground.params.sizes
    config = LoraConfig(
        r=sizes.rank, lora_alpha=sizes.alpha, lora_dropout=sizes.dropout,
        target_modules=list(ground.linears),
        fan_in_fan_out=_transposed(ground.linears.values()), **options,
    )  # fmt: skip
    return PeftTuning(ground.model, LoraModel(ground.model, config, "default"))


def _dora(ground: MethodContext) -> Tuning:
    return _lora(ground, use_dora=True)


def _rslora(ground: MethodContext) -> Tuning:
    return _lora(ground, use_rslora=True)


def _qlora(ground: MethodContext) -> Tuning:
    from tasks.training.methods.qlora import QloraTuning, quantize

    quantize(ground.model, ground.linears)
    tuning = _lora(ground)
    assert isinstance(tuning, PeftTuning)
    return QloraTuning(ground.model, tuning.tuner)


def _adalora(ground: MethodContext) -> Tuning:
    from peft import AdaLoraConfig, AdaLoraModel

    sizes, steps = ground.params.sizes, ground.steps
    steps = max(steps, 2)  # peft rates the triplets by the steps before the last
    # the schedule of the paper's runs, as shares of all steps: train all triplets, prune, then
    # train the rest
    config = AdaLoraConfig(
        init_r=sizes.rank + max(1, sizes.rank // 2), target_r=sizes.rank,
        tinit=steps // 10, tfinal=steps // 3, deltaT=max(1, steps // 100), total_step=steps,
        lora_alpha=sizes.alpha, lora_dropout=sizes.dropout, target_modules=list(ground.linears),
        fan_in_fan_out=_transposed(ground.linears.values()),
    )  # fmt: skip
    return AdaLoraTuning(ground.model, AdaLoraModel(ground.model, config, "default"))


def _ia3(ground: MethodContext) -> Tuning:
    from peft import IA3Config, IA3Model

    linears = ground.linears
    # keys and values have no common name across architectures, so all linear modules have their
    # outputs scaled; the last of a feed-forward block has its inputs scaled, as in the paper (Liu
    # et al. 2022)
    feed_forward = [name for name in feed_forward_outputs(ground.model) if name in linears]
    config = IA3Config(
        target_modules=list(linears), feedforward_modules=feed_forward,
        fan_in_fan_out=_transposed(linears.values()),
    )  # fmt: skip
    return PeftTuning(ground.model, IA3Model(ground.model, config, "default"))


def _prefix(ground: MethodContext) -> Tuning:
    from tasks.training.methods.virtual_tokens import drawn_states

    return _tokens(ground, drawn_states(ground.model, ground.params.sizes.virtual_tokens))


def _prompt(ground: MethodContext) -> Tuning:
    from tasks.training.methods.virtual_tokens import drawn_tokens

    return _tokens(ground, drawn_tokens(ground.model, ground.params.sizes.virtual_tokens))


def _p_tuning(ground: MethodContext) -> Tuning:
    from tasks.training.methods.virtual_tokens import EncodedTokens

    width = token_embeddings(ground.model).shape[1]
    return _tokens(ground, EncodedTokens(ground.params.sizes.virtual_tokens, width))


def _tokens(ground: MethodContext, source: nn.Module) -> Tuning:
    from tasks.training.methods.additions import PromptTuning
    from tasks.training.methods.virtual_tokens import attach_tokens

    attach_tokens(ground.model, source)
    return PromptTuning(ground.model)


def _adapter(ground: MethodContext) -> Tuning:
    from tasks.training.methods.additions import BottleneckTuning
    from tasks.training.methods.bottleneck import Bottleneck, attach_bottleneck

    modules = linear_modules(ground.model)
    for name in feed_forward_outputs(ground.model):
        _, width = linear_shape(modules[name])
        attach_bottleneck(modules[name], Bottleneck(width, ground.params.sizes.bottleneck))
    return BottleneckTuning(ground.model)


def _bitfit(ground: MethodContext) -> Tuning:
    biases = [
        parameter
        for name, parameter in ground.model.base_model.named_parameters()
        if name.split(".")[-1] == "bias"
    ]
    if not biases:
        raise ParamsError(
            f"finetune.method: {type(ground.model).__name__} has no biases, and bitfit trains only "
            "biases.",
            "Use another method, such as lora or ia3.",
        )
    for bias in biases:
        bias.requires_grad_(True)
    return Tuning(ground.model)


METHODS: dict[str, Callable[[MethodContext], Tuning]] = {
    "full": _full,
    "frozen": _full,
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
    """Whether weights are stored as (inputs, outputs), as in GPT-2."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in modules)


def _matching_names(modules: dict[str, nn.Module], targets: tuple[str, ...]) -> list[str]:
    """Full names of the modules whose names end with one of the targets."""
    matches = {
        target: [name for name in modules if name == target or name.endswith(f".{target}")]
        for target in targets
    }
    unknown = [target for target, names in matches.items() if not names]
    known = sorted({name.rpartition(".")[2] for name in modules})
    if unknown:
        problems = " ".join(
            f"no linear layer is called '{name}'.{did_you_mean(name, known)}" for name in unknown
        )
        raise ParamsError(
            f"finetune.sizes.target_modules: {problems}",
            f"The base model has: {', '.join(known)}. Or set it to auto.",
        )
    return list(dict.fromkeys(name for names in matches.values() for name in names))
