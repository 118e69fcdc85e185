"""How much each class counts in the loss."""

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
    """The weight of each class, (c,); None where all count alike.

    counts  (c,): how often each is the right one
    wanted  'none', 'balanced' (the rarer, the more), or its weight by name; ParamsError where that names others than `names`
    what    a class is called
    """
    if wanted == "none":
        return None
    if wanted == "balanced":
        balanced: Floats = (counts.sum() / (len(names) * np.maximum(counts, 1))).astype(np.float32)
        return balanced
    assert not isinstance(wanted, str)
    if set(wanted) != set(names):
        raise ParamsError(
            f"finetune.class_weights: names {sorted(wanted)}, the {what}s are {sorted(names)}.",
            f"Give every {what} one weight.",
        )
    return np.asarray([wanted[name] for name in names], np.float32)
