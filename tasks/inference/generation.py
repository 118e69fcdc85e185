"""A causal model's answers, token by token; what was read once is not read again."""

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
    from tasks.inference.predictor import Predictor
    from tasks.inference.session import Cache, OnnxModel

ANSWER_TOKENS = 64  # of a prediction's answer, at most
ANSWER_SHARE = 0.25  # of the model's room, at most: the rest is history's
_BROKEN = "\ufffd"  # what the bytes of half a character are decoded to


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    tokens       of an answer, at most
    temperature  0: always the likeliest; 1: as probable as the model says; above: more surprising
    top_p        only the likeliest tokens that together have this probability
    seed         the same choices again; None: others each time
    """

    tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


def choose_token(logits: Floats, sampling: Sampling, draw: np.random.Generator) -> int:
    """One of (vocabulary,)."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    order = np.argsort(-logits, kind="stable")
    scaled = logits[order].astype(np.float64) / sampling.temperature
    shares = np.exp(scaled - scaled[0])
    shares /= shares.sum()
    kept = int(np.searchsorted(np.cumsum(shares), sampling.top_p)) + 1  # at least the likeliest
    return int(draw.choice(order[:kept], p=shares[:kept] / shares[:kept].sum()))


class Reader:
    """A text that a model has read, and what it keeps of it."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self.ids: list[int] = []
        self.cache: Cache = model.nothing_read(1)

    def read(self, ids: Sequence[int]) -> Floats:
        """What the model puts out for the token after `ids`, (vocabulary,); of them it reads what it has not read just before."""
        same = sum(
            1
            for _ in takewhile(
                lambda pair: pair[0] == pair[1], zip(self.ids, ids[:-1], strict=False)
            )
        )
        cache = {name: values[:, :, :same] for name, values in self.cache.items()}
        outputs, self.cache = self.model.read_on(ids[same:], cache)
        self.ids = list(ids)
        last: Floats = outputs[-1]
        return last


class Speaker:
    """A model in a conversation; the tokenizer truncates where the model has no more room."""

    def __init__(self, tokenizer: Tokenizer, model: OnnxModel, sampling: Sampling) -> None:
        self.encoder = DialogueEncoder(tokenizer, reserve=sampling.tokens)
        longest = self.encoder.longest + sampling.tokens
        if not 0 < sampling.tokens < longest:
            raise ParamsError(
                f"an answer of up to {sampling.tokens} tokens: the model has room for {longest}, the question included.",
                f"Give a number from 1 to {longest - 1}.",
            )
        self.tokenizer, self.sampling = tokenizer, sampling
        self.ends = self.encoder.ends
        self.reader = Reader(model)
        self.draw = np.random.default_rng(sampling.seed)

    def answer(self, turns: Sequence[Turn]) -> Iterator[str]:
        """Pieces of the answer to a dialogue that ends with the user, as they come."""
        said: list[int] = []
        shown = ""
        for token in self.tokens(self.encoder.encode(turns).input_ids):
            said.append(token)
            text = self.tokenizer.decode(said, skip_special_tokens=True).lstrip()
            if not text.endswith(_BROKEN):
                yield text[len(shown) :]
                shown = text

    def tokens(self, ids: Sequence[int]) -> Iterator[int]:
        """The tokens that follow some, up to the one that ends a turn."""
        said: list[int] = []
        while len(said) < self.sampling.tokens:
            token = choose_token(self.reader.read([*ids, *said]), self.sampling, self.draw)
            if token in self.ends:
                return
            said.append(token)
            yield token


def answer_tokens(wanted: int, room: int) -> int:
    """How many tokens an answer may have of a model that has room for so many."""
    return max(1, min(wanted, int(ANSWER_SHARE * room)))


def answer(predictor: Predictor, turns: Sequence[Turn]) -> str:
    """What a bundle's model answers to a dialogue that ends with the user, each token the likeliest."""
    tokens = answer_tokens(ANSWER_TOKENS, predictor.info.settings.max_length)
    return "".join(
        Speaker(predictor.tokenizer, predictor.model, Sampling(tokens)).answer(turns)
    ).strip()
