"""Many bootstrap resamples at once, for statistics computed from sums over rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Doubles


@dataclass(frozen=True)
class Draws:
    """How often each of n rows is in each of r resamples.

    counts  (r, u): how often each unit was drawn
    units   (n,) int in [0, u): the unit of each row, if several rows are drawn as one; None: each
            row is a unit
    """

    counts: Doubles
    units: npt.NDArray[np.int64] | None = None

    @classmethod
    def once(cls, rows: int) -> Self:
        """A single resample that has every row once."""
        return cls(np.ones((1, rows)))

    def sums(self, values: npt.NDArray[Any]) -> Doubles:
        """Sums over the rows of each resample: (r,) of (n,), or (r, k) of (n, k).

        Rows of a unit are summed first, so that the cost depends on the number of units.
        """
        values = values.astype(np.float64)
        if self.units is not None:
            from scipy.sparse import csr_array

            rows, units = len(self.units), self.counts.shape[1]
            membership = csr_array(
                (np.ones(rows), self.units, np.arange(rows + 1)), shape=(rows, units)
            )
            values = membership.T @ values
        sums: Doubles = self.counts @ values
        return sums

    def sizes(self) -> Doubles:
        """Number of rows in each resample, (r,)."""
        sizes = self.counts
        if self.units is not None:
            sizes = sizes * np.bincount(self.units, minlength=sizes.shape[1])
        return np.asarray(sizes.sum(1))

    def of_rows(self) -> Doubles:
        """How often each row is in each resample, (r, n)."""
        return self.counts if self.units is None else self.counts[:, self.units]


Resampled = Callable[[Draws], dict[str, Doubles]]  # draws -> each metric of every resample, (r,)
