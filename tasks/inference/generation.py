"""Token-by-token generation with a causal model; the KV cache spares reading a prefix twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.errors import ParamsError
from tasks.encoding.dialogue_encoding import DialogueEncoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.core.arrays import Floats
    from tasks.encoding.dialogues import Turn
    from tasks.inference.session import Cache, OnnxModel

ANSWER_TOKENS = 64  # maximum length of a predicted answer
ANSWER_SHARE = 0.25  # maximum share of the context for the answer; the history gets the rest
_BROKEN = "\ufffd"  # what an incomplete character decodes to


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    tokens       maximum length of an answer
    temperature  0: greedy; 1: the model's own probabilities; above 1: flatter
    top_p        sample only from the likeliest tokens that together have this probability
    seed         makes the choices reproducible; None: different choices each time
    """

    tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


def choose_token(logits: Floats, sampling: Sampling, draw: np.random.Generator) -> int:
    """Sample a token id from `logits`, (vocabulary,)."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    order = np.argsort(-logits, kind="stable")
    scaled = logits[order].astype(np.float64) / sampling.temperature
    probs = np.exp(scaled - scaled[0])
    probs /= probs.sum()
    kept = int(np.searchsorted(np.cumsum(probs), sampling.top_p)) + 1  # at least the likeliest
    return int(draw.choice(order[:kept], p=probs[:kept] / probs[:kept].sum()))


class CachedDecoder:
    """The token ids that a model has read, and its KV cache of them."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self.ids: list[int] = []
        self.cache: Cache = model.empty_cache(1)

    def read(self, ids: Sequence[int]) -> Floats:
        """Logits of the token after `ids`, (vocabulary,).

        The prefix that `ids` share with the previous call comes from the cache.
        """
        pairs = zip(self.ids, ids[:-1], strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        cache = {name: values[:, :, :shared] for name, values in self.cache.items()}
        outputs, self.cache = self.model.run_with_cache(ids[shared:], cache)
        self.ids = list(ids)
        last: Floats = outputs[-1]
        return last


class ChatModel:
    """A model in a conversation; the tokenizer truncates dialogues that exceed the context."""

    def __init__(self, tokenizer: Tokenizer, model: OnnxModel, sampling: Sampling) -> None:
        self.encoder = DialogueEncoder(tokenizer, reserve=sampling.tokens)
        context = self.encoder.longest + sampling.tokens
        if not 0 < sampling.tokens < context:
            raise ParamsError(
                f"an answer of up to {sampling.tokens} tokens: the model has room for {context}, "
                "the question included.",
                f"Give a number from 1 to {context - 1}.",
            )
        self.tokenizer, self.sampling = tokenizer, sampling
        self.ends = self.encoder.ends
        self.reader = CachedDecoder(model)
        self.draw = np.random.default_rng(sampling.seed)

    def answer(self, turns: Sequence[Turn]) -> Iterator[str]:
        """Stream the answer to a dialogue whose last turn is the user's, piece by piece."""
        generated: list[int] = []
        shown = ""
        for token in self.tokens(self.encoder.encode(turns).input_ids):
            generated.append(token)
            text = self.tokenizer.decode(generated, skip_special_tokens=True).lstrip()
            if not text.endswith(_BROKEN):
                yield text[len(shown) :]
                shown = text

    def tokens(self, ids: Sequence[int]) -> Iterator[int]:
        """Generate the tokens that follow `ids`, up to the end of the turn (exclusive)."""
        generated: list[int] = []
        while len(generated) < self.sampling.tokens:
            logits = self.reader.read([*ids, *generated])
            token = choose_token(logits, self.sampling, self.draw)
            if token in self.ends:
                return
            generated.append(token)
            yield token


def answer_tokens(wanted: int, room: int) -> int:
    """Maximum answer length, for a model whose context is `room` tokens; at least 1."""
    return max(1, min(wanted, int(ANSWER_SHARE * room)))


def answer(tokenizer: Tokenizer, model: OnnxModel, turns: Sequence[Turn], max_length: int) -> str:
    """Greedy answer to a dialogue whose last turn is the user's.

    max_length  the model's context, tokens
    """
    tokens = answer_tokens(ANSWER_TOKENS, max_length)
    return "".join(ChatModel(tokenizer, model, Sampling(tokens)).answer(turns)).strip()
