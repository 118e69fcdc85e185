"""Class weights of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tasks.core.errors import ParamsError

if TYPE_CHECKING:
    from tasks.core.arrays import Floats


def weigh_classes(
    counts: npt.NDArray[np.int64],
    names: Sequence[str],
    weights: str | Mapping[str, float],
    noun: str,
) -> Floats | None:
    """The weight of each class, (c,); None for equal weights.

    counts   (c,) occurrences of each class
    weights  'none', 'balanced' (inverse to frequency) or weights by name
    noun     what messages call a class
    Raises ParamsError if the weights by name are not for exactly `names`.
    """
    if weights == "none":
        return None
    if weights == "balanced":
        balanced: Floats = (counts.sum() / (len(names) * np.maximum(counts, 1))).astype(np.float32)
        return balanced
    assert not isinstance(weights, str)
    if set(weights) != set(names):
        raise ParamsError(
            f"finetune.class_weights: has {sorted(weights)}, but the {noun}s are {sorted(names)}.",
            f"Give each {noun} one weight.",
        )
    return np.asarray([weights[name] for name in names], np.float32)
