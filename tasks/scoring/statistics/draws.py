"""Rows drawn with replacement, many resamples at once, for statistics that are made of sums over rows."""

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
    units   (n,) int, in [0, u): the unit of each row, where several rows are drawn as one; None: each row is a unit
    """

    counts: Doubles
    units: npt.NDArray[np.int64] | None = None

    @classmethod
    def once(cls, rows: int) -> Self:
        """The one resample that has every row once."""
        return cls(np.ones((1, rows)))

    def sums(self, values: npt.NDArray[Any]) -> Doubles:
        """(r,) or (r, k): the sum of `values`, (n,) or (n, k), over the rows of each resample.

        Rows of one unit are added up first, so that the cost is that of the units.
        """
        values = values.astype(np.float64)
        if self.units is not None:
            from scipy.sparse import csr_array

            rows, units = len(self.units), self.counts.shape[1]
            values = (
                csr_array((np.ones(rows), self.units, np.arange(rows + 1)), shape=(rows, units)).T
                @ values
            )
        found: Doubles = self.counts @ values
        return found

    def sizes(self) -> Doubles:
        """(r,): rows in each resample."""
        sizes = (
            self.counts
            if self.units is None
            else self.counts * np.bincount(self.units, minlength=self.counts.shape[1])
        )
        return np.asarray(sizes.sum(1))

    def of_rows(self) -> Doubles:
        """(r, n): how often each row is in each resample."""
        return self.counts if self.units is None else self.counts[:, self.units]


Resampled = Callable[[Draws], dict[str, Doubles]]  # each metric of every resample, (r,) each
