"""Trained tokens that no text has, read along with every row: prompt tuning, P-tuning and prefix tuning for any architecture.

They are put in as embeddings, not as ids: the model is given longer rows, and what its embedding says of the new places is replaced.
An encoder keeps its first token first, for heads read it there; a model that reads left to right gets them in front.
Prefix tuning replaces the new places' states below every layer, so that each has keys and values of its own (Li & Liang 2021).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tasks.core.architecture import layer_stack, reads_left_to_right

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
        config = PromptEncoderConfig(num_virtual_tokens=tokens, token_dim=width, encoder_hidden_size=width, num_transformer_submodules=1)
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
        states = model.eval().base_model(input_ids=drawn, output_hidden_states=True)["hidden_states"]
    model.train(was_training)
    below_layers = [state[0].clone() for state in states[1 : len(layer_stack(model))]]
    return VirtualTokens([embedding.weight[drawn[0]].detach().clone(), *below_layers])


class PromptedModel(nn.Module):
    """A Hugging Face model that reads virtual tokens along with each row; outputs of theirs are left out.

    source  makes the tokens' states, as VirtualTokens holds them
    """

    def __init__(self, model: PreTrainedModel, source: nn.Module) -> None:
        super().__init__()
        self.model, self.source, self.config = model, source, model.config
        self.place = 0 if reads_left_to_right(model) else 1
        self._states: list[torch.Tensor] = []  # of the call under way
        model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: self._replace(output, 0))
        for depth, layer in enumerate(layer_stack(model)):
            layer.register_forward_pre_hook(partial(self._before_layer, depth), with_kwargs=True)

    def forward(self, input_ids: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The model's outputs by name, of the same shapes as without virtual tokens."""
        self._states = self.source()
        # copies of a token that is there: some models count their padding by its id
        new = input_ids[:, :1].expand(-1, len(self._states[0]))
        outputs = self.model(input_ids=self._insert(input_ids, new), **{name: self._longer(name, value) for name, value in inputs.items()})
        length = input_ids.shape[1] + new.shape[1]
        return {name: self._shorter(value, length) for name, value in outputs.items() if isinstance(value, torch.Tensor)}

    def _longer(self, name: str, value: torch.Tensor) -> torch.Tensor:
        count = len(self._states[0])
        if name == "position_ids":
            before = torch.arange(self.place, self.place + count, device=value.device)
            return self._insert(torch.cat((value[:, : self.place], value[:, self.place :] + count), 1), before.expand(value.shape[0], -1))
        new = torch.ones_like if name == "attention_mask" else torch.zeros_like
        return self._insert(value, new(value[:, :1].expand(-1, count)))

    def _insert(self, value: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return torch.cat((value[:, : self.place], new, value[:, self.place :]), 1)

    def _shorter(self, value: torch.Tensor, length: int) -> torch.Tensor:
        if value.ndim < 3 or value.shape[1] != length:  # two axes: (rows, classes), however many there are
            return value
        return torch.cat((value[:, : self.place], value[:, self.place + len(self._states[0]) :]), 1)

    def _replace(self, states: torch.Tensor, depth: int) -> torch.Tensor:
        new = self._states[depth].to(states.dtype).expand(states.shape[0], -1, -1)  # not len(): tracing would take it for a constant
        return torch.cat((states[:, : self.place], new, states[:, self.place + new.shape[1] :]), 1)

    def _before_layer(self, depth: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if not 0 < depth < len(self._states):
            return None
        if args:
            return (self._replace(args[0], depth), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": self._replace(kwargs["hidden_states"], depth)}
