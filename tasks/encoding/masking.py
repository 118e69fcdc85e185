"""Which tokens of a text a masked language model has to guess (Devlin et al. 2019).

A tenth of the masked tokens stay as they are and a tenth become any other, so that a model learns of what it sees too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tasks.core.errors import SourceError
from tasks.encoding.padding import pad_rows
from tasks.encoding.windows import NO_WORD

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.core.arrays import Features

SHARE = 0.15  # of the tokens
HIDDEN, OTHER = (
    0.8,
    0.1,
)  # of the masked: those that the mask token hides, those that become any other token


@dataclass(frozen=True)
class Vocabulary:
    """What masking has to know of a tokenizer: the id that masks, how many ids there are, and those that are no text."""

    mask: int
    size: int
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """SourceError for a tokenizer without a mask token."""
        special = {
            number: token.content
            for number, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        masks = [number for number, content in special.items() if "mask" in content.lower()]
        if len(masks) != 1:
            raise SourceError(
                "base_model: its tokenizer has no mask token, so it is no masked language model's.",
                "Take an encoder (BERT, RoBERTa, ...), or make one with `ratchet adapt --from-scratch`.",
            )
        return cls(masks[0], tokenizer.get_vocab_size(), frozenset(special))


def mask_row(ids: Sequence[int], vocabulary: Vocabulary) -> tuple[list[int], list[int], list[int]]:
    """(ids as the model is given them, places that it has to guess, ids that are right there), the same whenever the ids are.

    A text that has mask tokens itself asks for those, and nobody knows what is right: NO_WORD.
    """
    asked = [place for place, token in enumerate(ids) if token == vocabulary.mask]
    if asked:
        return list(ids), asked, [NO_WORD] * len(asked)
    open_places = [place for place, token in enumerate(ids) if token not in vocabulary.special]
    if not open_places:
        return list(ids), [0], [NO_WORD]  # no row is without an output
    digest = hashlib.sha256(np.asarray(ids, np.int64).tobytes()).digest()
    draw = np.random.default_rng(int.from_bytes(digest[:8]))
    count = max(1, round(SHARE * len(open_places)))
    places = sorted(draw.choice(open_places, count, replace=False).tolist())
    fates, others = draw.random(count), draw.integers(vocabulary.size, size=count)
    given = list(ids)
    for place, fate, other in zip(places, fates, others, strict=True):
        given[place] = (
            vocabulary.mask
            if fate < HIDDEN
            else int(other)
            if fate < HIDDEN + OTHER
            else given[place]
        )
    return given, places, [ids[place] for place in places]


def unmasked(features: Features) -> list[list[int]]:
    """The ids as the text has them."""
    rows = [list(ids) for ids in features["input_ids"]]
    for row, places, right in zip(rows, features["places"], features["references"], strict=True):
        for place, token in zip(places, right, strict=True):
            row[place] = token if token != NO_WORD else row[place]
    return rows


def draw_masks(
    features: Features, pad_token_id: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(ids with masks, the right ids at masked tokens and NO_WORD elsewhere), (rows, longest), drawn from torch's random state."""
    import torch

    ids = torch.from_numpy(pad_rows(unmasked(features), pad_token_id))
    maskable = torch.from_numpy(pad_rows(features["maskable"], 0)) > 0
    mask, size = features["vocabulary"][0]
    masked = (torch.rand(ids.shape) < SHARE) & maskable
    lonely = ~masked.any(1) & maskable.any(1)  # every row has something to learn
    masked[lonely, (torch.rand(ids.shape) * maskable).argmax(1)[lonely]] = True
    references = torch.where(masked, ids, NO_WORD)
    fate, others = torch.rand(ids.shape), torch.randint(size, ids.shape)
    ids = torch.where(masked & (fate < HIDDEN), mask, ids)
    ids = torch.where(masked & (fate >= HIDDEN) & (fate < HIDDEN + OTHER), others, ids)
    return ids.numpy(), references.numpy()
