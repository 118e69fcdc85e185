"""A causal model's answers, token by token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.dialogue_encodings import DialogueEncoder

if TYPE_CHECKING:
    from tasks.core.dialogues import Turn
    from tasks.core.predictor import Predictor
    from tasks.problems.base import Floats

ANSWER_TOKENS = 64  # of an answer, at most
ANSWER_SHARE = 0.25  # of the model's room, at most: the rest is history's


def answer(predictor: Predictor, turns: Sequence[Turn]) -> str:
    """What a bundle's model answers to a dialogue that ends with the user."""
    limit = max(1, min(ANSWER_TOKENS, int(ANSWER_SHARE * predictor.info.settings.max_length)))
    encoder = DialogueEncoder(predictor.tokenizer, reserve=limit)

    def last_logits(ids: Sequence[int]) -> Floats:
        batch = predictor.problem.collate({"input_ids": [list(ids)]}, predictor.info.settings.pad_token_id)
        logits: Floats = predictor.model.run(batch)[0, -1]
        return logits

    said = greedy_tokens(last_logits, encoder.encode(turns).input_ids, encoder.ends, limit)
    return predictor.tokenizer.decode(said, skip_special_tokens=True).strip()


def greedy_tokens(last_logits: Callable[[Sequence[int]], Floats], ids: Sequence[int], ends: Collection[int], limit: int) -> list[int]:
    """The likeliest next tokens, one after the other, up to the first that ends a turn; at most `limit`.

    last_logits  what the model puts out for the token after some, (vocabulary,)
    """
    said: list[int] = []
    while len(said) < limit:
        token = int(np.argmax(last_logits([*ids, *said])))
        if token in ends:
            break
        said.append(token)
    return said
