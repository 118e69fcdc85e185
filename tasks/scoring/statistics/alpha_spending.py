"""How often the same test rows have judged, and what significance that leaves.

A test set that judges night after night is learnt by whoever retries until it agrees. The level is therefore spent: look k at the
same rows is tested at `significance` * k^-1.6 / zeta(1.6). These levels add up to the significance over all looks, however many
there will be and however they depend on each other, so the chance of any false claim stays under it (alpha-spending, the online
Bonferroni rule: Foster & Stine 2008; the series k^-1.6: Tian & Ramdas 2021, "Online control of the familywise error rate").

Test sets change as data arrives: a look counts by the share of the present rows that it judged. That share is estimated from
sketches, the smallest hashes of each set's texts (bottom-k, Bar-Yossef et al. 2002), short enough to stand in the ledger.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

EXPONENT = 1.6
SKETCH = 128  # hashes kept: a share is known to about 4 points (standard error)


def level_of_look(significance: float, look: int) -> float:
    """One-sided level at which the look-th judgement (1, 2, ...) by the same rows is tested."""
    from scipy.special import zeta

    return float(significance * look**-EXPONENT / zeta(EXPONENT))


def sketch_rows(positions: npt.NDArray[np.float64]) -> list[str]:
    """The smallest hashes of distinct texts, sorted; `positions` are those of tasks.data.duplicates.normalization."""
    smallest = np.unique(positions)[:SKETCH]
    return [f"{int(position * 2.0**52):013x}" for position in smallest.tolist()]


def fingerprint_rows(positions: npt.NDArray[np.float64]) -> str:
    """Digest of a set of texts, whatever their order."""
    return hashlib.sha256(np.sort(positions).tobytes()).hexdigest()


def overlap(present: Sequence[str], past: Sequence[str]) -> float:
    """Estimated share of the present rows that were in the past set, in [0, 1]; both are sketches."""
    if not present or not past:
        return 0.0
    # a full sketch says nothing of hashes above its largest
    limit = min(max(sketch) if len(sketch) >= SKETCH else "g" for sketch in (present, past))
    known = [value for value in present if value <= limit]
    return len(set(known) & set(past)) / len(known) if known else 0.0


def next_look(present: Sequence[str], past: Sequence[Sequence[str]]) -> int:
    """The number of the look that comes now: one more than the times the present rows have judged, part looks added up."""
    return 1 + math.ceil(sum(overlap(present, sketch) for sketch in past) - 1e-9)
