"""How well a language model guesses tokens: what is kept of its outputs for each, and the numbers over many.

Of a token LIKELIHOOD and LEAD are kept, (rows, tokens, 2 or more): log-probability of the right token, and how far that is above the
best of the others. References are the right tokens, NO_WORD where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Doubles
from tasks.core.ragged import as_wide
from tasks.encoding.windows import NO_WORD
from tasks.scoring.statistics.draws import Draws

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import nn
    from transformers import PreTrainedModel

    from tasks.core.arrays import Array, Features, Floats

LIKELIHOOD, LEAD = 0, 1
GUESSES = 5  # the likeliest tokens, kept where a text itself asks
# what is kept of a masked token: LIKELIHOOD and LEAD; then, where a text asks, the ids of the likeliest tokens
# and their log-probabilities, else zeros
PLACE = 2 + 2 * GUESSES
MOST_NATS = 50.0  # a perplexity beyond is not told from this one


def likelihoods(logits: Floats, tokens: npt.NDArray[np.int64]) -> Floats:
    """(tokens, 2) of (tokens, vocabulary); zeros where the right token is NO_WORD."""
    from scipy.special import logsumexp

    found = np.zeros((len(tokens), 2), np.float32)
    known = tokens != NO_WORD
    others, right = logits[known], tokens[known]
    every = np.arange(len(right))
    of_right = others[every, right]
    found[known, LIKELIHOOD] = of_right - logsumexp(others, -1)
    others[every, right] = -np.inf
    found[known, LEAD] = of_right - others.max(-1, initial=-np.inf)
    return found


def keep_places(outputs: Floats, features: Features) -> Floats:
    """(rows, tokens, vocabulary) to (rows, masked tokens, PLACE); NaN past a row's masked tokens."""
    places = features["places"]
    right = features.get("references") or [[NO_WORD] * len(row) for row in places]
    kept = np.full((len(places), max(map(len, places)), PLACE), np.nan, np.float32)
    for row, (where, tokens) in enumerate(zip(places, right, strict=True)):
        asked = np.asarray(features["input_ids"][row])[where] == features["vocabulary"][row][0]
        kept[row, : len(where)] = _places(outputs[row, where], np.asarray(tokens), asked)
    return kept


def _places(logits: Floats, tokens: npt.NDArray[np.int64], asked: npt.NDArray[np.bool_]) -> Floats:
    """What is kept of some tokens' logits, (tokens, PLACE); zeros where nothing was hidden.

    tokens  the right ones, NO_WORD where nobody knows
    asked   whether the model saw a mask there
    """
    from scipy.special import logsumexp

    found = np.zeros((len(tokens), PLACE), np.float32)
    found[:, :2] = likelihoods(logits, tokens)
    for place in np.flatnonzero(asked & (tokens == NO_WORD)):
        best = np.argsort(-logits[place], kind="stable")[:GUESSES]
        found[place, 2:] = [*best, *(logits[place, best] - logsumexp(logits[place]))]
    return found


def keep_answers(outputs: Floats, features: Features) -> Floats:
    """(rows, tokens, vocabulary) to (rows, tokens to say, 2); NaN past a row's."""
    places = features["places"]
    right = features.get("references") or [[NO_WORD] * len(row) for row in places]
    kept = np.full((len(places), max(map(len, places)), 2), np.nan, np.float32)
    for row, (where, tokens) in enumerate(zip(places, right, strict=True)):
        before = np.maximum(
            np.asarray(where) - 1, 0
        )  # a token is said by what the one before it puts out
        kept[row, : len(where)] = likelihoods(outputs[row, before], np.asarray(tokens))
    return kept


def token_metrics(
    outputs: Floats, references: Array
) -> Callable[[Draws], tuple[Doubles, Doubles, Doubles]]:
    """(share guessed right, mean log-loss in nats, e to it) over all tokens of each resample, (r,) each."""
    there = references != NO_WORD
    losses = -np.where(there, outputs[..., LIKELIHOOD], 0).astype(np.float64).sum(1)
    columns = np.stack([there.sum(1), losses, (there & (outputs[..., LEAD] > 0)).sum(1)], 1)

    def of(draws: Draws) -> tuple[Doubles, Doubles, Doubles]:
        tokens, loss, right = draws.sums(columns).T
        tokens = np.maximum(tokens, 1)
        return right / tokens, loss / tokens, np.exp(np.minimum(loss / tokens, MOST_NATS))

    return of


def perplexity(likelihood: Floats) -> float | None:
    """Of one row's tokens; None where there are none."""
    return (
        math.exp(min(-float(likelihood.astype(np.float64).mean()), MOST_NATS))
        if len(likelihood)
        else None
    )


def loss_details(outputs: Floats, references: Array) -> dict[str, Any]:
    """`tokens` guessed, and `losses`: how many of them have which log-loss, in nats."""
    losses = -outputs[..., LIKELIHOOD][references != NO_WORD]
    counts, edges = np.histogram(losses, bins=20, range=(0, max(float(losses.max(initial=0)), 1.0)))
    return {
        "tokens": len(losses),
        "losses": {"edges": [round(float(edge), 4) for edge in edges], "counts": counts.tolist()},
    }


def same_guesses(outputs: Floats, others: Floats) -> tuple[float, float]:
    """(share of tokens that both guess right or both wrong, largest difference of the right one's probability)."""
    outputs, others = as_wide(outputs, others)
    there = ~np.isnan(outputs[..., LIKELIHOOD])
    same = (outputs[..., LEAD] > 0) == (others[..., LEAD] > 0)
    moved = np.abs(np.exp(outputs[..., LIKELIHOOD]) - np.exp(others[..., LIKELIHOOD]))
    return float(same[there].mean()), float(moved[there].max(initial=0.0))


def mostly_right(outputs: Floats, references: Array) -> npt.NDArray[np.bool_]:
    """Rows of whose tokens at least half are guessed right."""
    there = references != NO_WORD
    right: npt.NDArray[np.bool_] = 2 * (there & (outputs[..., LEAD] > 0)).sum(1) >= np.maximum(
        there.sum(1), 1
    )
    return right


def guess_loss(
    outputs: torch.Tensor, references: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
    """Mean cross-entropy where references are no NO_WORD; `outputs` are (rows, tokens, vocabulary), or those of such tokens alone.

    Where none is, there is nothing to learn, and the mean of nothing is no number: 0.
    """
    from torch.nn.functional import cross_entropy

    there = references != NO_WORD
    if not there.any():
        return outputs.sum() * 0
    guessed = outputs[there] if outputs.ndim > references.ndim else outputs
    return cross_entropy(guessed, references[there], label_smoothing=label_smoothing)


@contextmanager
def vocabulary_only_where(model: PreTrainedModel, there: torch.Tensor) -> Iterator[None]:
    """Within, the layer that makes a vocabulary of a state is given those of the tokens `there`, (rows, tokens), and no others.

    It is as much work as all of a small encoder's layers, and one token in seven is masked: a step took 1.45 times as long with all of
    them (benchmarks/TRIED.md). The outputs are (those tokens, vocabulary).
    """

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
        return inputs[0][there] if inputs[0].shape[:-1] == there.shape else None

    layer = model.get_output_embeddings()
    handle = layer.register_forward_pre_hook(keep) if layer is not None else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def losses_figure(details: Mapping[str, Any]) -> Figure:
    """How many tokens have which log-loss."""
    from tasks.reports.plots import histogram_figure

    return histogram_figure(
        details["losses"]["edges"], details["losses"]["counts"], "log-loss (nats)", "tokens"
    )
