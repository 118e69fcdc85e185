"""Alpha spending: the significance level that is left after repeated looks at the same test rows.

Retrying until a fixed test set agrees overfits to it. Each look therefore spends part of the level:
look k at the same rows is tested at `significance` * k^-1.6 / zeta(1.6). These levels sum to the
significance over any number of looks, however they depend on each other, so the chance of any false
claim stays below it (online Bonferroni: Foster & Stine 2008; the series k^-1.6: Tian & Ramdas 2021,
"Online control of the familywise error rate").

Test sets change as data arrives, so a look counts by the share of the present rows that it judged.
That share is estimated from sketches, the smallest hashes of each set's texts (bottom-k, Bar-Yossef
et al. 2002), which are short enough to keep in the ledger.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

EXPONENT = 1.6
SKETCH = 128  # hashes kept: a share's standard error is about 4 percentage points


def level_of_look(significance: float, look: int) -> float:
    """One-sided level of the look-th test (1, 2, ...) on the same rows."""
    from scipy.special import zeta

    return float(significance * look**-EXPONENT / zeta(EXPONENT))


def sketch_rows(positions: npt.NDArray[np.float64]) -> list[str]:
    """The smallest hashes of the distinct texts, sorted.

    positions  of the texts, from tasks.data.duplicates.normalization
    """
    smallest = np.unique(positions)[:SKETCH]
    return [f"{int(position * 2.0**52):013x}" for position in smallest.tolist()]


def fingerprint_rows(positions: npt.NDArray[np.float64]) -> str:
    """Digest of a set of texts, independent of their order."""
    return hashlib.sha256(np.sort(positions).tobytes()).hexdigest()


def overlap(present: Sequence[str], past: Sequence[str]) -> float:
    """Estimated share of the present rows that the past set has, in [0, 1]; both are sketches."""
    if not present or not past:
        return 0.0
    # a full sketch knows nothing of hashes above its largest; "g" is above every hex digit
    limit = min(max(sketch) if len(sketch) >= SKETCH else "g" for sketch in (present, past))
    comparable = [digest for digest in present if digest <= limit]
    return len(set(comparable) & set(past)) / len(comparable) if comparable else 0.0


def next_look(present: Sequence[str], past: Sequence[Sequence[str]]) -> int:
    """Number of the next look: 1 plus the past looks, each counted by its `overlap`, rounded up."""
    return 1 + math.ceil(sum(overlap(present, sketch) for sketch in past) - 1e-9)
