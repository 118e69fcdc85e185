"""Token-level metrics of a language model, and the reduction of its logits to what they need.

Outputs keep two numbers per token, (rows, tokens, 2 or more): LIKELIHOOD, the log-probability of
the right token, and LEAD, the right token's logit minus the best other logit. References are the
right tokens, NO_WORD where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Doubles
from tasks.core.ragged import pad_to_common_shape
from tasks.encoding.windows import IGNORE_INDEX
from tasks.scoring.statistics.draws import Draws

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import nn
    from transformers import PreTrainedModel

    from tasks.core.arrays import Array, Features, Floats

LIKELIHOOD, LEAD = 0, 1
GUESSES = 5  # likeliest tokens kept for a mask that the user's text contains
# values kept per masked token: LIKELIHOOD and LEAD; then, for a mask in the user's text, the ids of
# the likeliest tokens and their log-probabilities, else zeros
PLACE = 2 + 2 * GUESSES
MOST_NATS = 50.0  # cap on the mean loss before exponentiation, so that perplexity stays finite


def likelihoods(logits: Floats, tokens: npt.NDArray[np.int64]) -> Floats:
    """Reduce (tokens, vocabulary) to (tokens, 2); zeros where the right token is NO_WORD."""
    from scipy.special import logsumexp

    reduced = np.zeros((len(tokens), 2), np.float32)
    known = tokens != IGNORE_INDEX
    others, right = logits[known], tokens[known]
    every = np.arange(len(right))
    of_right = others[every, right]
    reduced[known, LIKELIHOOD] = of_right - logsumexp(others, -1)
    others[every, right] = -np.inf
    reduced[known, LEAD] = of_right - others.max(-1, initial=-np.inf)
    return reduced


def reduce_masked(outputs: Floats, features: Features) -> Floats:
    """Reduce (rows, tokens, vocabulary) to (rows, masked tokens, PLACE); NaN past a row's end."""
    positions = features["places"]
    right = features.get("references") or [[IGNORE_INDEX] * len(row) for row in positions]
    kept = np.full((len(positions), max(map(len, positions)), PLACE), np.nan, np.float32)
    for row, (masked, tokens) in enumerate(zip(positions, right, strict=True)):
        is_mask = np.asarray(features["input_ids"][row])[masked] == features["vocabulary"][row][0]
        kept[row, : len(masked)] = _reduce(outputs[row, masked], np.asarray(tokens), is_mask)
    return kept


def _reduce(
    logits: Floats, tokens: npt.NDArray[np.int64], is_mask: npt.NDArray[np.bool_]
) -> Floats:
    """Reduce (tokens, vocabulary) to (tokens, PLACE); zeros where nothing was hidden.

    tokens   the right ones, NO_WORD where unknown
    is_mask  whether the model saw a mask there
    """
    from scipy.special import logsumexp

    reduced = np.zeros((len(tokens), PLACE), np.float32)
    reduced[:, :2] = likelihoods(logits, tokens)
    for i in np.flatnonzero(is_mask & (tokens == IGNORE_INDEX)):
        best = np.argsort(-logits[i], kind="stable")[:GUESSES]
        reduced[i, 2:] = [*best, *(logits[i, best] - logsumexp(logits[i]))]
    return reduced


def reduce_answers(outputs: Floats, features: Features) -> Floats:
    """Reduce (rows, tokens, vocabulary) to (rows, answer tokens, 2); NaN past a row's end."""
    positions = features["places"]
    right = features.get("references") or [[IGNORE_INDEX] * len(row) for row in positions]
    kept = np.full((len(positions), max(map(len, positions)), 2), np.nan, np.float32)
    for row, (answered, tokens) in enumerate(zip(positions, right, strict=True)):
        # the logits of a token are the output at the position before it
        before = np.maximum(np.asarray(answered) - 1, 0)
        kept[row, : len(answered)] = likelihoods(outputs[row, before], np.asarray(tokens))
    return kept


def token_metrics(
    outputs: Floats, references: Array
) -> Callable[[Draws], tuple[Doubles, Doubles, Doubles]]:
    """(accuracy, mean log-loss in nats, perplexity) over all tokens of each resample, (r,) each."""
    known = references != IGNORE_INDEX
    losses = -np.where(known, outputs[..., LIKELIHOOD], 0).astype(np.float64).sum(1)
    columns = np.stack([known.sum(1), losses, (known & (outputs[..., LEAD] > 0)).sum(1)], 1)

    def of(draws: Draws) -> tuple[Doubles, Doubles, Doubles]:
        tokens, loss, right = draws.sums(columns).T
        tokens = np.maximum(tokens, 1)
        return right / tokens, loss / tokens, np.exp(np.minimum(loss / tokens, MOST_NATS))

    return of


def perplexity(likelihood: Floats) -> float | None:
    """Perplexity of one row's tokens; None if it has none."""
    if not len(likelihood):
        return None
    return math.exp(min(-float(likelihood.astype(np.float64).mean()), MOST_NATS))


def loss_details(outputs: Floats, references: Array) -> dict[str, Any]:
    """`tokens`, the number scored, and `losses`, the histogram of their log-loss in nats."""
    losses = -outputs[..., LIKELIHOOD][references != IGNORE_INDEX]
    counts, edges = np.histogram(losses, bins=20, range=(0, max(float(losses.max(initial=0)), 1.0)))
    return {
        "tokens": len(losses),
        "losses": {"edges": [round(float(edge), 4) for edge in edges], "counts": counts.tolist()},
    }


def token_agreement(outputs: Floats, others: Floats) -> tuple[float, float]:
    """Agreement of two models on the same tokens.

    Returns (share of tokens that both guess right or both wrong, largest difference of the right
    token's probability).
    """
    outputs, others = pad_to_common_shape(outputs, others)
    present = ~np.isnan(outputs[..., LIKELIHOOD])
    same = (outputs[..., LEAD] > 0) == (others[..., LEAD] > 0)
    moved = np.abs(np.exp(outputs[..., LIKELIHOOD]) - np.exp(others[..., LIKELIHOOD]))
    return float(same[present].mean()), float(moved[present].max(initial=0.0))


def mostly_right(outputs: Floats, references: Array) -> npt.NDArray[np.bool_]:
    """Rows with at least half of their tokens guessed right."""
    known = references != IGNORE_INDEX
    hits = (known & (outputs[..., LEAD] > 0)).sum(1)
    right: npt.NDArray[np.bool_] = 2 * hits >= np.maximum(known.sum(1), 1)
    return right


def token_cross_entropy(
    outputs: torch.Tensor, references: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
    """Mean cross-entropy over the tokens whose reference is not NO_WORD; 0 if there are none.

    outputs  (rows, tokens, vocabulary), or (tokens, vocabulary) of those tokens alone
    """
    from torch.nn.functional import cross_entropy

    known = references != IGNORE_INDEX
    if not known.any():
        return outputs.sum() * 0  # the mean of no tokens would be NaN
    logits = outputs[known] if outputs.ndim > references.ndim else outputs
    return cross_entropy(logits, references[known], label_smoothing=label_smoothing)


@contextmanager
def logits_only_at(model: PreTrainedModel, selected: torch.Tensor) -> Iterator[None]:
    """Compute logits only of the tokens where `selected`, (rows, tokens), is true.

    Within the context the model's outputs are (selected tokens, vocabulary). The output embedding
    costs as much as all layers of a small encoder, and only one token in seven is masked: computing
    all logits made a step take 1.45 times as long (benchmarks/TRIED.md).
    """

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
        return inputs[0][selected] if inputs[0].shape[:-1] == selected.shape else None

    layer = model.get_output_embeddings()
    handle = layer.register_forward_pre_hook(keep) if layer is not None else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def losses_figure(details: Mapping[str, Any]) -> Figure:
    """Histogram of the tokens' log-loss."""
    from tasks.reports.plots import histogram_figure

    return histogram_figure(
        details["losses"]["edges"], details["losses"]["counts"], "log-loss (nats)", "tokens"
    )
