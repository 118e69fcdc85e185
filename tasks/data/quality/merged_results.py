"""Great Expectations' results of one expectation on batch after batch of rows, as if all had come at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.data.quality.checks import Check

EXAMPLES = 20  # rows of a check that the report shows
_ALIKE = 4  # of them with the same value; a message names three
_PARTIAL = 20  # values that Great Expectations shows
_COUNTS = "partial_unexpected_counts"
_COUNTED = 100_000  # different values; of more the rarest are no longer counted


class Merged:
    """The sum of an expectation's results.

    details    Great Expectations' account, plain JSON, without its lists of all unexpected values
    examples   place -> value, the first few of each value
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
        """Of all rows that miss it."""
        self._places = [np.concatenate([np.zeros(0, np.int64), *self._places])]
        return self._places[0]

    def add(
        self, found: dict[str, Any], places: npt.NDArray[np.int64], values: pa.ChunkedArray | None
    ) -> None:
        """A batch's result, the places of its rows that miss, and what was judged there if that is known."""
        self._places.append(places)
        self._choose_examples(places, values)
        unexpected = found["result"].pop("unexpected_list", None) or []
        self._count(found["result"], unexpected)
        self.details = self._sum(found) if self.details else found

    def _count(self, result: Mapping[str, Any], unexpected: Sequence[Any]) -> None:
        # Great Expectations counts what can be hashed: not lists, but pairs, tuples that JSON makes lists of
        self._countable = self._countable and (_COUNTS in result or not self._one_column)
        if self._countable:
            self._counts.update(
                tuple(value) if isinstance(value, list) else value for value in unexpected
            )
        if len(self._counts) > _COUNTED:
            self._counts = Counter(dict(self._counts.most_common(_COUNTED // 2)))

    def _sum(self, found: dict[str, Any]) -> dict[str, Any]:
        """The next batch's result added to that of those before (great_expectations.expectations.expectation._format_map_output)."""
        before, more = self.details["result"], found["result"]
        total = {
            key: before[key] + more[key]
            for key in ("element_count", "unexpected_count", "missing_count")
            if key in before
        }
        elements, unexpected, missing = (
            total["element_count"],
            total["unexpected_count"],
            total.get("missing_count"),
        )
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
            most = sorted(self._counts.most_common(_PARTIAL), key=lambda pair: (-pair[1], pair[0]))
        except TypeError:  # of no order: Great Expectations leaves them out
            return {}
        return {
            _COUNTS: [
                {"value": [*value] if isinstance(value, tuple) else value, "count": count}
                for value, count in most
            ]
        }

    def _choose_examples(
        self, places: npt.NDArray[np.int64], values: pa.ChunkedArray | None
    ) -> None:
        if len(self.examples) >= EXAMPLES or not len(places):
            return
        if values is None:
            self.examples |= dict.fromkeys(places[: EXAMPLES - len(self.examples)].tolist())
            return
        if pa.types.is_nested(values.type):
            values = pa.chunked_array(
                [
                    pa.array(
                        [None if value is None else str(value) for value in values.to_pylist()],
                        pa.string(),
                    )
                ]
            )
        codes = values.combine_chunks().dictionary_encode()
        known = codes.dictionary.to_pylist()
        for place, code in zip(places.tolist(), codes.indices.to_pylist(), strict=True):
            value = None if code is None else known[code]
            self._alike[value] += 1
            if self._alike[value] <= _ALIKE:
                self.examples[place] = value
                if len(self.examples) == EXAMPLES:
                    break


def _percent(part: int, whole: int) -> float | None:
    return part / whole * 100 if whole else None
