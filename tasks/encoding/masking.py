"""Token masking for masked language models (Devlin et al. 2019).

A tenth of the masked tokens keep their id and a tenth get a random one, so that a model also
learns about tokens it can see.
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
from tasks.encoding.windows import IGNORE_INDEX

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.core.arrays import Features

SHARE = 0.15  # of all tokens that are masked
# shares of the masked tokens that become the mask token and a random token
HIDDEN, OTHER = 0.8, 0.1


@dataclass(frozen=True)
class Vocabulary:
    """What masking needs from a tokenizer: the mask token's id, its size and the special ids."""

    mask: int
    size: int
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Raises SourceError unless the tokenizer has exactly one mask token."""
        special = {
            token_id: token.content
            for token_id, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        masks = [token_id for token_id, content in special.items() if "mask" in content.lower()]
        if len(masks) != 1:
            raise SourceError(
                "base_model: its tokenizer has no mask token, so this is not a masked language "
                "model.",
                "Use an encoder (BERT, RoBERTa, ...), or make one with "
                "`ratchet adapt --from-scratch`.",
            )
        return cls(masks[0], tokenizer.get_vocab_size(), frozenset(special))


def mask_row(ids: Sequence[int], vocabulary: Vocabulary) -> tuple[list[int], list[int], list[int]]:
    """(masked ids, indices to predict, correct ids there), a function of the ids alone.

    If the text itself contains mask tokens, those are the ones to predict; the correct ids are
    unknown: NO_WORD.
    """
    asked = [index for index, token in enumerate(ids) if token == vocabulary.mask]
    if asked:
        return list(ids), asked, [IGNORE_INDEX] * len(asked)
    maskable = [index for index, token in enumerate(ids) if token not in vocabulary.special]
    if not maskable:
        return list(ids), [0], [IGNORE_INDEX]  # every row needs an output
    digest = hashlib.sha256(np.asarray(ids, np.int64).tobytes()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8]))
    count = max(1, round(SHARE * len(maskable)))
    places = sorted(rng.choice(maskable, count, replace=False).tolist())
    fates, random_ids = rng.random(count), rng.integers(vocabulary.size, size=count)
    masked = list(ids)
    for index, fate, random_id in zip(places, fates, random_ids, strict=True):
        if fate < HIDDEN:
            masked[index] = vocabulary.mask
        elif fate < HIDDEN + OTHER:
            masked[index] = int(random_id)
    return masked, places, [ids[index] for index in places]


def unmasked(features: Features) -> list[list[int]]:
    """The ids before masking."""
    rows = [list(ids) for ids in features["input_ids"]]
    for row, places, correct in zip(rows, features["places"], features["references"], strict=True):
        for index, token in zip(places, correct, strict=True):
            row[index] = token if token != IGNORE_INDEX else row[index]
    return rows


def draw_masks(
    features: Features, pad_token_id: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Mask anew from torch's random state: (masked ids, references), (rows, longest) each.

    References are the correct ids at masked tokens and NO_WORD elsewhere.
    """
    import torch

    ids = torch.from_numpy(pad_rows(unmasked(features), pad_token_id))
    maskable = torch.from_numpy(pad_rows(features["maskable"], 0)) > 0
    mask, size = features["vocabulary"][0]
    masked = (torch.rand(ids.shape) < SHARE) & maskable
    unmasked_rows = ~masked.any(1) & maskable.any(1)  # every row needs something to learn
    masked[unmasked_rows, (torch.rand(ids.shape) * maskable).argmax(1)[unmasked_rows]] = True
    references = torch.where(masked, ids, IGNORE_INDEX)
    fate, random_ids = torch.rand(ids.shape), torch.randint(size, ids.shape)
    ids = torch.where(masked & (fate < HIDDEN), mask, ids)
    ids = torch.where(masked & (fate >= HIDDEN) & (fate < HIDDEN + OTHER), random_ids, ids)
    return ids.numpy(), references.numpy()
