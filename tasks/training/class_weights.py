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
    wanted: str | Mapping[str, float],
    what: str,
) -> Floats | None:
    """The weight of each class, (c,); None for equal weights.

    counts  (c,) occurrences of each class
    wanted  'none', 'balanced' (inverse to frequency) or weights by name
    what    word for a class in error messages
    Raises ParamsError if the weights by name are not for exactly `names`.
    """
    if wanted == "none":
        return None
    if wanted == "balanced":
        balanced: Floats = (counts.sum() / (len(names) * np.maximum(counts, 1))).astype(np.float32)
        return balanced
    assert not isinstance(wanted, str)
    if set(wanted) != set(names):
        raise ParamsError(
            f"finetune.class_weights: has {sorted(wanted)}, but the {what}s are {sorted(names)}.",
            f"Give each {what} one weight.",
        )
    return np.asarray([wanted[name] for name in names], np.float32)
