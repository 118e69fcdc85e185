"""Dialogues to token ids, and which of those a model learns to say: the assistant's, each turn with the token that ends it.

History is kept as far as it fits: whole oldest exchanges are dropped first. Of an exchange that alone is too long the answer loses its
end, and where even half of the room does not hold the question, the question its beginning.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.encoding.chat_template import ChatTemplate
from tasks.encoding.dialogues import ASSISTANT, USER, Turn, without_oldest
from tasks.encoding.windows import NO_WORD

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.core.arrays import Features


@dataclass(frozen=True)
class Dialogue:
    """A dialogue's tokens.

    learned  ascending places in `input_ids` of the assistant's tokens
    cut      whether something was dropped or cut
    """

    input_ids: list[int]
    learned: list[int]
    cut: bool


class DialogueEncoder:
    """A tokenizer and its chat template; cuts at the length at which the tokenizer was told to truncate.

    reserve  tokens that are to be left of it for an answer
    """

    def __init__(self, tokenizer: Tokenizer, reserve: int = 0) -> None:
        self.tokenizer, self.template = tokenizer, ChatTemplate.of(tokenizer)
        self.longest: int = (
            tokenizer.truncation["max_length"] if tokenizer.truncation else sys.maxsize
        ) - reserve
        self.special = {
            number
            for number, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        }

    def encode(self, turns: Sequence[Turn]) -> Dialogue:
        """The tokens of a dialogue; if it ends with the user, the beginning of an answer is asked for."""
        shorter = [list(turns)]
        while (rest := without_oldest(shorter[-1])) is not None:
            shorter.append(rest)
        # the fewer exchanges the fewer tokens: a search by halves, for dialogues may have a hundred turns
        fitting = bisect_left(
            shorter, True, key=lambda some: len(self._tokens(some)[0]) <= self.longest
        )
        kept = shorter[min(fitting, len(shorter) - 1)]
        ids, spans = self._tokens(kept)
        learned = [] if not ids else self._learned(kept, ids, spans)
        given, left = _cut(ids or [0], learned, self.longest)
        return Dialogue(given, left, len(kept) < len(turns) or len(given) < len(ids))

    @property
    def ends(self) -> set[int]:
        """The tokens that end an answer: what the template ends one with, and what ends texts."""
        said = self.encode([{"role": USER, "content": "a"}, {"role": ASSISTANT, "content": "a"}])
        ends = {said.input_ids[place] for place in said.learned[-1:]} & self.special
        eos = self.tokenizer.token_to_id(self.template.tokens.get("eos_token", ""))
        return ends if eos is None else ends | {eos}

    def _text(self, turns: Sequence[Turn]) -> str:
        return self.template.render(turns, ask=not turns or turns[-1]["role"] == USER)

    def _tokens(self, turns: Sequence[Turn]) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids, characters of each) of the whole text, though the tokenizer may have cut it."""
        encoding = self.tokenizer.encode(
            self._text(turns), add_special_tokens=False
        )  # the template writes them
        parts = (encoding, *encoding.overflowing)
        return [token for part in parts for token in part.ids], [
            span for part in parts for span in part.offsets
        ]

    def _learned(
        self, turns: Sequence[Turn], ids: Sequence[int], spans: Sequence[tuple[int, int]]
    ) -> list[int]:
        """Places of the assistant's tokens; an answer that the template writes otherwise once others follow is not learnt."""
        whole = self._text(turns)
        learned: list[int] = []
        for number, turn in enumerate(turns):
            if turn["role"] != ASSISTANT:
                continue
            before = self.template.render(turns[:number], ask=True)
            if whole.startswith(before):
                end = _common(whole, self.template.render(turns[: number + 1], ask=False))
                learned += self._answer(ids, spans, len(before), end)
        return [
            place for place in learned if place > 0
        ]  # nothing stands before the first that could tell it

    def _answer(
        self, ids: Sequence[int], spans: Sequence[tuple[int, int]], start: int, end: int
    ) -> list[int]:
        """Places of the tokens between two characters, up to the last special one: what a template writes behind that, nobody says."""
        inside = [
            place for place, (first, last) in enumerate(spans) if start <= first and last <= end
        ]
        special = [place for place in inside if ids[place] in self.special]
        return [place for place in inside if place <= special[-1]] if special else inside


def _common(text: str, other: str) -> int:
    """Characters that both begin with."""
    differing = (
        place
        for place, (ours, theirs) in enumerate(zip(text, other, strict=False))
        if ours != theirs
    )
    return next(differing, min(len(text), len(other)))


def _cut(ids: list[int], learned: list[int], longest: int) -> tuple[list[int], list[int]]:
    """(ids, learned) of one exchange, at most `longest` tokens."""
    if len(ids) <= longest:
        return ids, learned
    first = learned[0] if learned else len(ids)
    answer = min(len(ids) - first, max(longest - first, longest // 2))
    start = max(first + answer - longest, 0)
    kept = ids[start : start + longest]
    return kept, [place - start for place in learned if start < place < start + len(kept)]


def encode_dialogues(tokenizer: Tokenizer, dialogues: Sequence[Sequence[Turn]]) -> Features:
    """`input_ids`, `truncated`, `places` of what is to be said, and `references`, what is right there, if any row has an answer.

    No row is without a place: where nothing is to be said it is the first, and nobody knows what is right there.
    """
    encoder = DialogueEncoder(tokenizer)
    found = [encoder.encode(turns) for turns in dialogues]
    features: Features = {
        "input_ids": [one.input_ids for one in found],
        "truncated": [one.cut for one in found],
        "places": [one.learned or [0] for one in found],
    }
    if any(one.learned for one in found):
        features["references"] = [
            [one.input_ids[place] for place in one.learned] or [NO_WORD] for one in found
        ]
    return features


def next_tokens(features: Features) -> list[list[int]]:
    """Of each row at each token the one that follows, where that is to be learnt; NO_WORD everywhere else."""
    rows = []
    for ids, places, right in zip(
        *(features[name] for name in ("input_ids", "places", "references")), strict=True
    ):
        row = [NO_WORD] * len(ids)
        for place, token in zip(places, right, strict=True):
            row[max(place - 1, 0)] = token
        rows.append(row)
    return rows
