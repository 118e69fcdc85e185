"""Encode dialogues; the tokens to learn are the assistant's, each turn with its end token.

A dialogue that is too long drops its oldest exchanges whole. If a single exchange is still too
long, the answer loses its end; if the question exceeds half the length, it loses its beginning.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.encoding.chat_template import ChatTemplate
from tasks.encoding.dialogues import ASSISTANT, USER, Turn, without_oldest
from tasks.encoding.windows import IGNORE_INDEX

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.core.arrays import Features


@dataclass(frozen=True)
class Dialogue:
    """An encoded dialogue.

    learned  ascending indices in `input_ids` of the assistant's tokens
    cut      whether anything was dropped or truncated
    """

    input_ids: list[int]
    learned: list[int]
    cut: bool


class DialogueEncoder:
    """A tokenizer with its chat template; cuts to the tokenizer's truncation length.

    reserve  tokens of that length to keep free for an answer
    """

    def __init__(self, tokenizer: Tokenizer, reserve: int = 0) -> None:
        self.tokenizer, self.template = tokenizer, ChatTemplate.of(tokenizer)
        limit = tokenizer.truncation["max_length"] if tokenizer.truncation else sys.maxsize
        self.longest: int = limit - reserve
        added = tokenizer.get_added_tokens_decoder()
        self.special = {token_id for token_id, token in added.items() if token.special}

    def encode(self, turns: Sequence[Turn]) -> Dialogue:
        """Encode a dialogue; one that ends with the user also gets the opening of an answer."""
        candidates = [list(turns)]
        while (shorter := without_oldest(candidates[-1])) is not None:
            candidates.append(shorter)
        # binary search, as dialogues may have a hundred turns: fewer exchanges, fewer tokens
        fitting = bisect_left(
            candidates,
            True,
            key=lambda candidate: len(self._tokens(candidate)[0]) <= self.longest,
        )
        kept = candidates[min(fitting, len(candidates) - 1)]
        ids, spans = self._tokens(kept)
        learned = [] if not ids else self._learned(kept, ids, spans)
        cut_ids, cut_learned = _cut(ids or [0], learned, self.longest)
        cut = len(kept) < len(turns) or len(cut_ids) < len(ids)
        return Dialogue(cut_ids, cut_learned, cut)

    @property
    def ends(self) -> set[int]:
        """Ids of the tokens that end an answer: the template's end of turn and end-of-text."""
        sample = self.encode([{"role": USER, "content": "a"}, {"role": ASSISTANT, "content": "a"}])
        ends = {sample.input_ids[index] for index in sample.learned[-1:]} & self.special
        eos = self.tokenizer.token_to_id(self.template.tokens.get("eos_token", ""))
        return ends if eos is None else ends | {eos}

    def _text(self, turns: Sequence[Turn]) -> str:
        asks = not turns or turns[-1]["role"] == USER
        return self.template.render(turns, add_generation_prompt=asks)

    def _tokens(self, turns: Sequence[Turn]) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids, character span of each) of the whole text, even past the tokenizer's limit."""
        # the template already writes the special tokens
        encoding = self.tokenizer.encode(self._text(turns), add_special_tokens=False)
        parts = (encoding, *encoding.overflowing)
        ids = [token for part in parts for token in part.ids]
        return ids, [span for part in parts for span in part.offsets]

    def _learned(
        self, turns: Sequence[Turn], ids: Sequence[int], spans: Sequence[tuple[int, int]]
    ) -> list[int]:
        """Indices of the assistant's tokens.

        An answer that the template renders differently once more turns follow is left out.
        """
        text = self._text(turns)
        learned: list[int] = []
        for number, turn in enumerate(turns):
            if turn["role"] != ASSISTANT:
                continue
            before = self.template.render(turns[:number], add_generation_prompt=True)
            if text.startswith(before):
                rendered = self.template.render(turns[: number + 1], add_generation_prompt=False)
                end = _common_length(text, rendered)
                learned += self._answer(ids, spans, len(before), end)
        # the first token has no context to be predicted from
        return [index for index in learned if index > 0]

    def _answer(
        self, ids: Sequence[int], spans: Sequence[tuple[int, int]], start: int, end: int
    ) -> list[int]:
        """Indices of the tokens between two characters, up to the last special token.

        What a template writes after that token is never part of an answer.
        """
        inside = [
            index for index, (first, last) in enumerate(spans) if start <= first and last <= end
        ]
        special = [index for index in inside if ids[index] in self.special]
        return [index for index in inside if index <= special[-1]] if special else inside


def _common_length(left: str, right: str) -> int:
    """Number of leading characters that the two texts share."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(left), len(right)))


def _cut(ids: list[int], learned: list[int], longest: int) -> tuple[list[int], list[int]]:
    """(ids, learned) of one exchange, at most `longest` tokens."""
    if len(ids) <= longest:
        return ids, learned
    first = learned[0] if learned else len(ids)
    answer = min(len(ids) - first, max(longest - first, longest // 2))
    start = max(first + answer - longest, 0)
    kept = ids[start : start + longest]
    return kept, [index - start for index in learned if start < index < start + len(kept)]


def encode_dialogues(tokenizer: Tokenizer, dialogues: Sequence[Sequence[Turn]]) -> Features:
    """`input_ids`, `truncated` and `places`, the indices of the tokens to predict.

    If any row has an answer also `references`, the ids of those tokens. Every row has a place: one
    with nothing to predict has its first token's, with NO_WORD as the reference.
    """
    encoder = DialogueEncoder(tokenizer)
    encoded = [encoder.encode(turns) for turns in dialogues]
    features: Features = {
        "input_ids": [dialogue.input_ids for dialogue in encoded],
        "truncated": [dialogue.cut for dialogue in encoded],
        "places": [dialogue.learned or [0] for dialogue in encoded],
    }
    if any(dialogue.learned for dialogue in encoded):
        features["references"] = [
            [dialogue.input_ids[index] for index in dialogue.learned] or [IGNORE_INDEX]
            for dialogue in encoded
        ]
    return features


def next_tokens(features: Features) -> list[list[int]]:
    """For each token of each row the next one, where it is to be learned; NO_WORD elsewhere."""
    columns = (features[name] for name in ("input_ids", "places", "references"))
    rows = []
    for ids, places, references in zip(*columns, strict=True):
        row = [IGNORE_INDEX] * len(ids)
        for index, token in zip(places, references, strict=True):
            row[max(index - 1, 0)] = token
        rows.append(row)
    return rows
