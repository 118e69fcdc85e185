"""Soft prompts: trained embeddings inserted into every input.

These are prompt tuning, P-tuning and prefix tuning, for any architecture. The model gets rows with
extra positions, whose embeddings are replaced. A causal model gets them in front; an encoder gets
them after its first token, because heads read that one. Prefix tuning replaces the states at these
positions below every layer, which gives each layer keys and values of its own (Li & Liang 2021).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import DynamicCache

from tasks.training.networks.architecture import is_causal, layer_stack, token_embeddings

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel
    from transformers.utils import ModelOutput


NAME = "virtual_tokens"  # name of the submodule added to the body


class VirtualTokens(nn.Module):
    """Trained states of the virtual tokens, each (tokens, width).

    The first replaces token embeddings (before position embeddings and norm), the others the
    inputs of the layers from the second on.
    """

    def __init__(self, states: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.states = nn.ParameterList([nn.Parameter(state) for state in states])

    def forward(self) -> list[torch.Tensor]:
        """The states, unchanged."""
        return list(self.states)


class EncodedTokens(nn.Module):
    """Virtual tokens from a small network, which couples them (P-tuning, Liu et al. 2021)."""

    def __init__(self, tokens: int, width: int) -> None:
        from peft import PromptEncoder, PromptEncoderConfig

        super().__init__()
        config = PromptEncoderConfig(
            num_virtual_tokens=tokens,
            token_dim=width,
            encoder_hidden_size=width,
            num_transformer_submodules=1,
        )
        self.encoder = PromptEncoder(config)
        self.register_buffer("places", torch.arange(tokens), persistent=False)

    def forward(self) -> list[torch.Tensor]:
        """The network's output, in place of token embeddings only."""
        return [self.encoder(self.places)]


def drawn_tokens(model: PreTrainedModel, tokens: int) -> VirtualTokens:
    """Virtual tokens initialized to embeddings of random vocabulary tokens (Lester et al. 2021)."""
    embeddings = token_embeddings(model)
    ids = torch.randint(len(embeddings), (tokens,), device=embeddings.device)
    return VirtualTokens([embeddings[ids].detach().clone()])


def drawn_states(model: PreTrainedModel, tokens: int) -> VirtualTokens:
    """Virtual tokens for every layer, initialized to the states of random vocabulary tokens there.

    This beats random states (Li & Liang 2021, 7.4).
    """
    embeddings, was_training = token_embeddings(model), model.training
    ids = torch.randint(len(embeddings), (1, tokens), device=embeddings.device)
    with torch.no_grad():
        outputs = model.eval().base_model(input_ids=ids, output_hidden_states=True)
    model.train(was_training)
    layer_inputs = outputs["hidden_states"][1 : len(layer_stack(model))]
    below_layers = [state[0].clone() for state in layer_inputs]
    return VirtualTokens([embeddings[ids[0]].detach().clone(), *below_layers])


def attach_tokens(model: PreTrainedModel, source: nn.Module) -> None:
    """Insert virtual tokens into each row the model reads; they are hidden from outputs and caches.

    source  module that returns the tokens' states in the layout of VirtualTokens; it becomes the
            body's submodule NAME
    """
    model.base_model.add_module(NAME, source.to(model.device))
    inserter = _Inserter(model)
    model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: inserter.replace(output, 0)
    )
    for depth, layer in enumerate(layer_stack(model)):
        layer.register_forward_pre_hook(partial(inserter.before_layer, depth), with_kwargs=True)

    @wraps(model.forward)  # keeps the signature for code that inspects the arguments
    def forward(input_ids: torch.Tensor, **inputs: Any) -> ModelOutput:
        return inserter.run(input_ids, **inputs)

    model.forward = forward


def detach_tokens(model: PreTrainedModel) -> None:
    """Undo `attach_tokens`."""
    del model.forward  # uncovers the method of the class
    delattr(model.base_model, NAME)


class _Inserter:
    """Wraps a model's forward method: inserts the virtual tokens, then removes their outputs."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.forward = model, model.forward
        self.start = 0 if is_causal(model) else 1  # index of the first virtual token
        self.states: list[torch.Tensor] = []  # inserted by the current call

    def run(
        self, input_ids: torch.Tensor, past_key_values: Cache | None = None, **inputs: Any
    ) -> ModelOutput:
        """The model's outputs, shaped as without virtual tokens; a given cache is not modified."""
        self.states = self.model.base_model.get_submodule(NAME)()
        count = len(self.states[0])
        if past_key_values is None or not past_key_values.get_seq_length():
            # copies of an existing token, since some models detect padding by its id
            longer = self._insert(input_ids, input_ids[:, :1].expand(-1, count))
            extended = {name: self._extend(name, value, count) for name, value in inputs.items()}
            outputs = self.forward(input_ids=longer, **extended)
            for name, value in list(outputs.items()):
                if isinstance(value, torch.Tensor):
                    outputs[name] = self._remove(value, longer.shape[1], count)
        else:
            cache = self._prepend_to_cache(past_key_values, count)
            shifted = {name: _shift(name, value, count) for name, value in inputs.items()}
            outputs = self.forward(input_ids=input_ids, past_key_values=cache, **shifted)
        self.states = []
        if self.start == 0 and outputs.get("past_key_values") is not None:
            layers = _keys_and_values(outputs["past_key_values"])
            outputs["past_key_values"] = DynamicCache(
                [(keys[:, :, count:], values[:, :, count:]) for keys, values in layers]
            )
        shortened: ModelOutput = outputs
        return shortened

    def _prepend_to_cache(self, past: Cache, count: int) -> DynamicCache:
        """A cache of the virtual tokens followed by the past.

        Their keys and values do not depend on later tokens, so they are computed anew.
        """
        past_layers = _keys_and_values(past)
        past_keys, _ = past_layers[0]
        ids = torch.zeros(1, count, dtype=torch.int64, device=past_keys.device)
        layers = _keys_and_values(self.forward(input_ids=ids, use_cache=True)["past_key_values"])
        self.states = []  # they are in the cache now
        rows = past_keys.shape[0]
        return DynamicCache([
            tuple(
                torch.cat((new.expand(rows, -1, -1, -1), old), 2)
                for new, old in zip(layer, past_layer, strict=True)
            )
            for layer, past_layer in zip(layers, past_layers, strict=True)
        ])  # fmt: skip

    def _extend(self, name: str, value: Any, count: int) -> Any:
        """A model input with values for the virtual tokens."""
        if not isinstance(value, torch.Tensor):
            return value
        if value.ndim == 4:
            return _extend_mask(value, count)
        if name == "position_ids":
            new = torch.arange(self.start, self.start + count, device=value.device)
            shifted = torch.cat((value[:, : self.start], value[:, self.start :] + count), 1)
            return self._insert(shifted, new.expand(value.shape[0], -1))
        fill = torch.ones_like if name == "attention_mask" else torch.zeros_like
        return self._insert(value, fill(value[:, :1].expand(-1, count)))

    def _insert(self, value: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return torch.cat((value[:, : self.start], new, value[:, self.start :]), 1)

    def _remove(self, value: torch.Tensor, length: int, count: int) -> torch.Tensor:
        # two axes are (rows, classes), even if there happen to be `length` classes
        if value.ndim < 3 or value.shape[1] != length:
            return value
        return torch.cat((value[:, : self.start], value[:, self.start + count :]), 1)

    def replace(self, states: torch.Tensor, depth: int) -> torch.Tensor | None:
        """The states of extended rows, with those of the virtual tokens replaced."""
        if not self.states:
            return None
        # rows by shape, not by len(), which tracing would turn into a constant
        new = self.states[depth].to(states.dtype).expand(states.shape[0], -1, -1)
        return torch.cat((states[:, : self.start], new, states[:, self.start + new.shape[1] :]), 1)

    def before_layer(
        self, depth: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Any] | None:
        """The arguments of a layer, with the virtual tokens' states of its depth replaced."""
        if not 0 < depth < len(self.states):
            return None
        if args:
            return (self.replace(args[0], depth), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": self.replace(kwargs["hidden_states"], depth)}


def _keys_and_values(cache: Cache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The keys and the values of each layer, (rows, heads, tokens, width)."""
    layers: Sequence[Any] = cache.layers
    return [(layer.keys, layer.values) for layer in layers]


def _shift(name: str, value: Any, count: int) -> Any:
    """A model input of tokens that follow `count` virtual ones in the cache."""
    if name == "position_ids":
        return value + count
    if name != "attention_mask" or value is None:
        return value
    column = value[..., :1]
    visible = torch.ones_like(column) if value.ndim == 2 else torch.zeros_like(column)
    return torch.cat((visible.expand(*[-1] * (value.ndim - 1), count), value), -1)


def _extend_mask(mask: torch.Tensor, count: int) -> torch.Tensor:
    """A causal additive attention mask, (rows, 1, tokens, tokens), with virtual tokens in front."""
    hidden = torch.finfo(mask.dtype).min / 2  # halved: other masks may be added to it
    rows, _, tokens, total = mask.shape
    causal = torch.full((count, count), hidden, dtype=mask.dtype, device=mask.device).triu(1)
    from_virtual = torch.cat(
        (causal.expand(rows, 1, -1, -1), mask.new_full((rows, 1, count, total), hidden)), -1
    )
    from_text = torch.cat((mask.new_zeros(rows, 1, tokens, count), mask), -1)
    return torch.cat((from_virtual, from_text), 2)
