"""Type aliases for arrays and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Columns = Mapping[str, Sequence[Any]]  # values of rows, by column name
Features = dict[str, list[Any]]  # encoded rows, by feature name

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
