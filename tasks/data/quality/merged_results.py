"""Merges one expectation's results on many batches into the result on all rows together.

Great Expectations judges one data frame in memory; this keeps memory flat as the rows grow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.data.quality.checks import Check

EXAMPLES = 20  # rows per check in the report
_ALIKE = 4  # of those, rows with the same value; a message names three
_PARTIAL = 20  # values that Great Expectations shows
_COUNTS = "partial_unexpected_counts"
_COUNTED = 100_000  # distinct values; beyond that, the rarer half is dropped


class Merged:
    """The merged results of an expectation.

    details    Great Expectations' result, plain JSON, without its lists of all unexpected values
    examples   row index -> value, the first few rows of each value
    """

    def __init__(self, check: Check) -> None:
        self.details: dict[str, Any] = {}
        self.examples: dict[int, Any] = {}
        self._mostly = check.kwargs.get("mostly", 1)
        self._one_column = "column" in check.kwargs
        self._places: list[npt.NDArray[np.int64]] = []
        self._countable = True
        self._counts: Counter[Any] = Counter()
        self._alike: Counter[Any] = Counter()

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Indices of all failing rows."""
        self._places = [np.concatenate([np.zeros(0, np.int64), *self._places])]
        return self._places[0]

    def add(
        self,
        result: dict[str, Any],
        row_indices: npt.NDArray[np.int64],
        values: pa.ChunkedArray | None,
    ) -> None:
        """Merge a batch's result; `values` are those judged at its failing rows, if known."""
        self._places.append(row_indices)
        self._choose_examples(row_indices, values)
        unexpected = result["result"].pop("unexpected_list", None) or []
        self._count(result["result"], unexpected)
        self.details = self._sum(result) if self.details else result

    def _count(self, result: Mapping[str, Any], unexpected: Sequence[Any]) -> None:
        # Great Expectations counts hashable values only: no lists, but pairs, which are tuples
        # until JSON turns them into lists
        self._countable = self._countable and (_COUNTS in result or not self._one_column)
        if self._countable:
            self._counts.update(
                tuple(value) if isinstance(value, list) else value for value in unexpected
            )
        if len(self._counts) > _COUNTED:
            self._counts = Counter(dict(self._counts.most_common(_COUNTED // 2)))

    def _sum(self, next_result: dict[str, Any]) -> dict[str, Any]:
        """Add the next batch's result to the sum of the earlier ones.

        Mirrors great_expectations.expectations.expectation._format_map_output.
        """
        before, more = self.details["result"], next_result["result"]
        total = {
            key: before[key] + more[key]
            for key in ("element_count", "unexpected_count", "missing_count")
            if key in before
        }
        elements, unexpected = total["element_count"], total["unexpected_count"]
        missing = total.get("missing_count")
        present = elements - (missing or 0)
        shares = {"unexpected_percent": _percent(unexpected, present)}
        if missing is not None:
            shares |= {
                "missing_percent": _percent(missing, elements),
                "unexpected_percent_total": _percent(unexpected, elements),
                "unexpected_percent_nonmissing": _percent(unexpected, present),
            }
        for key in ("partial_unexpected_list", "partial_unexpected_index_list"):
            if key in before:
                total[key] = [*before[key], *more[key]][:_PARTIAL]
        before.pop(_COUNTS, None)
        if self._countable:
            total |= self._most_common()
        success = not present or (float(present) - unexpected) / float(present) >= self._mostly
        return self.details | {"success": success, "result": before | total | shares}

    def _most_common(self) -> dict[str, Any]:
        try:
            top = sorted(self._counts.most_common(_PARTIAL), key=lambda pair: (-pair[1], pair[0]))
        except TypeError:  # values that cannot be sorted: Great Expectations omits the counts
            return {}
        return {
            _COUNTS: [
                {"value": [*value] if isinstance(value, tuple) else value, "count": count}
                for value, count in top
            ]
        }

    def _choose_examples(
        self, row_indices: npt.NDArray[np.int64], values: pa.ChunkedArray | None
    ) -> None:
        if len(self.examples) >= EXAMPLES or not len(row_indices):
            return
        if values is None:
            self.examples |= dict.fromkeys(row_indices[: EXAMPLES - len(self.examples)].tolist())
            return
        if pa.types.is_nested(values.type):
            texts = [None if value is None else str(value) for value in values.to_pylist()]
            values = pa.chunked_array([pa.array(texts, pa.string())])
        encoded = values.combine_chunks().dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        for row_index, code in zip(row_indices.tolist(), encoded.indices.to_pylist(), strict=True):
            value = None if code is None else distinct[code]
            self._alike[value] += 1
            if self._alike[value] <= _ALIKE:
                self.examples[row_index] = value
                if len(self.examples) == EXAMPLES:
                    break


def _percent(part: int, whole: int) -> float | None:
    return part / whole * 100 if whole else None
