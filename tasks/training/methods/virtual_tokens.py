"""Trained tokens that no text has, read along with every row: prompt tuning, P-tuning and prefix tuning for any architecture.

They are put in as embeddings, not as ids: the model is given longer rows, and what its embedding says of the new places is replaced.
An encoder keeps its first token first, for heads read it there; a model that reads left to right gets them in front.
Prefix tuning replaces the new places' states below every layer, so that each has keys and values of its own (Li & Liang 2021).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import DynamicCache

from tasks.training.networks.architecture import layer_stack, reads_left_to_right

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel
    from transformers.utils import ModelOutput


NAME = "virtual_tokens"  # of the module that a body is given


class VirtualTokens(nn.Module):
    """States of the virtual tokens, each (tokens, width): the first below the embeddings' rest, then below each layer from the second."""

    def __init__(self, states: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.states = nn.ParameterList([nn.Parameter(state) for state in states])

    def forward(self) -> list[torch.Tensor]:
        """As they are."""
        return list(self.states)


class EncodedTokens(nn.Module):
    """Virtual tokens that a small network makes of trained ones (P-tuning, Liu et al. 2021), so that they move together."""

    def __init__(self, tokens: int, width: int) -> None:
        from peft import PromptEncoder, PromptEncoderConfig

        super().__init__()
        config = PromptEncoderConfig(
            num_virtual_tokens=tokens,
            token_dim=width,
            encoder_hidden_size=width,
            num_transformer_submodules=1,
        )
        self.encoder = PromptEncoder(config)  # type: ignore[no-untyped-call]
        self.register_buffer("places", torch.arange(tokens), persistent=False)

    def forward(self) -> list[torch.Tensor]:
        """As the network makes them, below the embeddings' rest alone."""
        return [self.encoder(self.places)]


def drawn_tokens(model: PreTrainedModel, tokens: int) -> VirtualTokens:
    """Virtual tokens that start as the embeddings of some of the vocabulary, drawn at random (Lester et al. 2021)."""
    embedding = model.get_input_embeddings()
    drawn = torch.randint(len(embedding.weight), (tokens,), device=embedding.weight.device)
    return VirtualTokens([embedding.weight[drawn].detach().clone()])


def drawn_states(model: PreTrainedModel, tokens: int) -> VirtualTokens:
    """Virtual tokens for every layer that start as the states of real ones there, which beats a random start (Li & Liang 2021, 7.4)."""
    embedding, was_training = model.get_input_embeddings(), model.training
    drawn = torch.randint(len(embedding.weight), (1, tokens), device=embedding.weight.device)
    with torch.no_grad():
        states = model.eval().base_model(input_ids=drawn, output_hidden_states=True)[
            "hidden_states"
        ]
    model.train(was_training)
    below_layers = [state[0].clone() for state in states[1 : len(layer_stack(model))]]
    return VirtualTokens([embedding.weight[drawn[0]].detach().clone(), *below_layers])


def attach_tokens(model: PreTrainedModel, source: nn.Module) -> None:
    """Let the model read virtual tokens along with each row; its outputs and caches show nothing of them.

    source  makes the tokens' states, as VirtualTokens holds them; from now on a module of the body, NAME
    """
    model.base_model.add_module(NAME, source.to(model.device))
    reader = _Reader(model)
    model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: reader.replace(output, 0)
    )
    for depth, layer in enumerate(layer_stack(model)):
        layer.register_forward_pre_hook(partial(reader.before_layer, depth), with_kwargs=True)

    @wraps(model.forward)  # whoever asks for its arguments gets the model's
    def forward(input_ids: torch.Tensor, **inputs: Any) -> ModelOutput:
        return reader.read(input_ids, **inputs)

    model.forward = forward


def detach_tokens(model: PreTrainedModel) -> None:
    """The model as it was before `attach_tokens`."""
    del model.forward  # the class's own shows again
    delattr(model.base_model, NAME)


class _Reader:
    """What stands between a model's caller and the model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.forward = model, model.forward
        self.place = 0 if reads_left_to_right(model) else 1
        self.states: list[torch.Tensor] = []  # what is put in by the call under way

    def read(
        self, input_ids: torch.Tensor, past_key_values: Cache | None = None, **inputs: Any
    ) -> ModelOutput:
        """The model's outputs, of the same shapes as without virtual tokens; a cache that was given is left as it is."""
        self.states = self.model.base_model.get_submodule(NAME)()
        count = len(self.states[0])
        if past_key_values is None or not past_key_values.get_seq_length():
            # copies of a token that is there: some models count their padding by its id
            longer = self._insert(input_ids, input_ids[:, :1].expand(-1, count))
            outputs = self.forward(
                input_ids=longer,
                **{name: self._longer(name, value, count) for name, value in inputs.items()},
            )
            for name in [
                name for name, value in outputs.items() if isinstance(value, torch.Tensor)
            ]:
                outputs[name] = self._shorter(outputs[name], longer.shape[1], count)
        else:
            cache = self._behind_tokens(past_key_values, count)
            further = {name: _further(name, value, count) for name, value in inputs.items()}
            outputs = self.forward(input_ids=input_ids, past_key_values=cache, **further)
        self.states = []
        if self.place == 0 and outputs.get("past_key_values") is not None:
            outputs["past_key_values"] = DynamicCache(
                [
                    (layer.keys[:, :, count:], layer.values[:, :, count:])
                    for layer in _layers(outputs)
                ]
            )
        found: ModelOutput = outputs
        return found

    def _behind_tokens(self, past: Cache, count: int) -> DynamicCache:
        """The virtual tokens' keys and values, which rest on nothing that follows, and behind them those of the past."""
        ids = torch.zeros(1, count, dtype=torch.int64, device=past.layers[0].keys.device)
        tokens = _layers(self.forward(input_ids=ids, use_cache=True))
        self.states = []  # they are in the cache now
        rows = past.layers[0].keys.shape[0]
        return DynamicCache([
            tuple(
                torch.cat((new.expand(rows, -1, -1, -1), old), 2)
                for new, old in ((layer.keys, before.keys), (layer.values, before.values))
            )
            for layer, before in zip(tokens, past.layers, strict=True)
        ])  # fmt: skip

    def _longer(self, name: str, value: Any, count: int) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if value.ndim == 4:
            return _longer_mask(value, count)
        if name == "position_ids":
            before = torch.arange(self.place, self.place + count, device=value.device)
            return self._insert(
                torch.cat((value[:, : self.place], value[:, self.place :] + count), 1),
                before.expand(value.shape[0], -1),
            )
        new = torch.ones_like if name == "attention_mask" else torch.zeros_like
        return self._insert(value, new(value[:, :1].expand(-1, count)))

    def _insert(self, value: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return torch.cat((value[:, : self.place], new, value[:, self.place :]), 1)

    def _shorter(self, value: torch.Tensor, length: int, count: int) -> torch.Tensor:
        if (
            value.ndim < 3 or value.shape[1] != length
        ):  # two axes: (rows, classes), however many there are
            return value
        return torch.cat((value[:, : self.place], value[:, self.place + count :]), 1)

    def replace(self, states: torch.Tensor, depth: int) -> torch.Tensor | None:
        """The states of longer rows, those of the virtual tokens put in."""
        if not self.states:
            return None
        # the number of rows by shape, not by len(): tracing would take it for a constant
        new = self.states[depth].to(states.dtype).expand(states.shape[0], -1, -1)
        return torch.cat((states[:, : self.place], new, states[:, self.place + new.shape[1] :]), 1)

    def before_layer(
        self, depth: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Any] | None:
        """The arguments of a layer, with that depth's states put in."""
        if not 0 < depth < len(self.states):
            return None
        if args:
            return (self.replace(args[0], depth), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": self.replace(kwargs["hidden_states"], depth)}


def _layers(outputs: ModelOutput) -> Sequence[Any]:
    layers: Sequence[Any] = outputs["past_key_values"].layers
    return layers


def _further(name: str, value: Any, count: int) -> Any:
    """An input of tokens that stand behind `count` others in the cache."""
    if name == "position_ids":
        return value + count
    if name != "attention_mask" or value is None:
        return value
    seen = torch.ones_like(value[..., :1]) if value.ndim == 2 else torch.zeros_like(value[..., :1])
    return torch.cat((seen.expand(*[-1] * (value.ndim - 1), count), value), -1)


def _longer_mask(mask: torch.Tensor, count: int) -> torch.Tensor:
    """What is added to the attention, (rows, 1, tokens, tokens), of rows that read left to right, with virtual tokens in front."""
    unseen = torch.finfo(mask.dtype).min / 2  # half: other masks may be added
    rows, _, tokens, total = mask.shape
    among = torch.full((count, count), unseen, dtype=mask.dtype, device=mask.device).triu(1)
    above = torch.cat(
        (among.expand(rows, 1, -1, -1), mask.new_full((rows, 1, count, total), unseen)), -1
    )
    return torch.cat((above, torch.cat((mask.new_zeros(rows, 1, tokens, count), mask), -1)), 2)
