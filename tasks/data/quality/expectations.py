"""Checks judged by Great Expectations: columns in, for each check whether it holds and which rows miss it.

What is said of single rows is judged a batch at a time, what is said of the table as a whole on all rows of the columns it names.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.core.errors import ParamsError, did_you_mean
from tasks.data.quality.checks import Check
from tasks.data.quality.merged_results import Merged

if TYPE_CHECKING:
    from great_expectations.data_context import EphemeralDataContext

PLACE = "\x1frow_index"  # the column of the rows' numbers, by a name that no source has
_ROW_COUNT, _COLUMNS = "expect_table_row_count_to_", "expect_table_column"
# a row misses these or not, whatever the others are
_BY_ROW = {
    "expect_column_values_to_be_between", "expect_column_values_to_be_in_set", "expect_column_values_to_be_null",
    "expect_column_values_to_not_be_null", "expect_column_values_to_not_be_in_set", "expect_column_values_to_match_regex",
    "expect_column_values_to_not_match_regex", "expect_column_values_to_match_regex_list",
    "expect_column_values_to_not_match_regex_list", "expect_column_value_lengths_to_be_between",
    "expect_column_value_lengths_to_equal", "expect_column_pair_values_to_be_equal", "expect_column_pair_values_to_be_in_set",
    "expect_column_pair_values_a_to_be_greater_than_b",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a check.

    judged     rows that were looked at
    missed     places, ascending, of the rows that miss it; empty for what concerns the table as a whole
    examples   some of those places and the values that were judged there
    observed   what was found in the table as a whole, plain JSON; None for checks of single rows
    details    Great Expectations' own account, plain JSON, without its lists of all rows
    """

    check: Check
    success: bool
    judged: int
    missed: npt.NDArray[np.int64]
    examples: Mapping[int, Any] = field(default_factory=dict)
    observed: Any = None
    details: Mapping[str, Any] = field(default_factory=dict)


def concerns_rows(check: Check) -> bool:
    """Whether the expectation holds or not for single rows, so that those that miss it can be named."""
    from great_expectations.expectations.expectation import (
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )

    return issubclass(
        _kind(check), (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
    )


def require_known(checks: Sequence[Check]) -> None:
    """Raise a ParamsError that names every expectation that does not exist or has wrong arguments."""
    problems = []
    for check in checks:
        try:
            _expectation(check)
        except ParamsError as error:
            problems.append(f"  {check.name}: {error.message}")
    if problems:
        raise ParamsError(
            "validate.expectations:\n" + "\n".join(problems),
            "Great Expectations' gallery lists them all: https://greatexpectations.io/expectations",
        )


class Judge:
    """Judges checks on rows that come in batches.

    labels   a table of the rows' labels, one a row: what a check says of one of its columns as a whole is judged on it
    columns  the columns that a user knows: what a check says of the table's columns is judged on them
    """

    def __init__(self, checks: Sequence[Check], labels: pa.Table, columns: pa.Table) -> None:
        self._checks, self._labels, self._columns = list(checks), labels, columns
        self._by_row = [check for check in checks if check.type in _BY_ROW]
        self._of_labels = [
            check
            for check in checks
            if not concerns_rows(check) and check.kwargs.get("column") in labels.column_names
        ]
        self._of_count = [
            check
            for check in checks
            if check.type.startswith(_ROW_COUNT) and "row_condition" not in check.kwargs
        ]
        self._of_columns = [check for check in checks if check.type.startswith(_COLUMNS)]
        judged = [*self._by_row, *self._of_labels, *self._of_count, *self._of_columns]
        self._whole = [check for check in checks if check not in judged]
        self._found: dict[int, Merged] = {}
        self._parts: list[pa.Table] = []  # what the whole is judged on
        self._rows = 0

    def mentions(self, column: str) -> bool:
        """Whether a check may be about the column's rows."""
        return any(_mentions(check, column) for check in (*self._by_row, *self._whole))

    def see(self, rows: pa.Table) -> None:
        """The next rows, with the column PLACE. Raises ParamsError where an expectation cannot be computed on these columns."""
        self._rows += len(rows)
        self._judge(self._by_row, rows)
        if self._whole:
            self._parts.append(rows.select(_named(self._whole, rows)))

    def outcomes(self) -> list[Outcome]:
        """The outcome of each check, in order, when all rows were seen."""
        if not self._rows:
            return []
        self._judge(self._of_labels, self._labels)
        self._judge(self._of_columns, self._columns)
        self._count()
        if self._parts:
            self._judge(self._whole, pa.concat_tables(self._parts))
        return [self._outcome(number, check) for number, check in enumerate(self._checks)]

    def _judge(self, checks: Sequence[Check], rows: pa.Table) -> None:
        import great_expectations as gx

        if not checks:
            return
        numbers = [self._checks.index(check) for check in checks]
        suite = gx.ExpectationSuite(
            "ratchet",
            expectations=[_expectation(self._checks[number], number) for number in numbers],
        )
        result_format = {
            "result_format": "COMPLETE",
            "unexpected_index_column_names": [PLACE],
            "return_unexpected_index_query": False,
        }
        with _quiet():
            # whole numbers stay whole in a batch with nulls, as they are in one without
            frame = rows.select(_named(checks, rows)).to_pandas(integer_object_nulls=True)
            batch = self._batches.get_batch({"dataframe": frame})
            result = batch.validate(suite, result_format=result_format)
        for one in result.results:  # in an order of Great Expectations' own
            found = one.to_json_dict()
            number = found["expectation_config"]["meta"]["number"]
            check = self._checks[number]
            if message := _exception(found["exception_info"]):
                raise ParamsError(
                    f"validate.expectations: {check.type} cannot be computed: {message}",
                    "Check its `kwargs` and the columns they name.",
                )
            places = np.unique(
                np.array(
                    [
                        entry[PLACE]
                        for entry in found["result"].pop("unexpected_index_list", None) or []
                    ],
                    np.int64,
                )
            )
            merged = self._found.setdefault(number, Merged(check))
            merged.add(found, places, _values(check, rows, places))

    def _count(self) -> None:
        """What is said of how many rows there are: Great Expectations is told the number, for it makes a hash of a frame, rows and all."""
        for check in self._of_count:
            number = self._checks.index(check)
            expectation = _expectation(check, number)
            needed = expectation.get_validation_dependencies(
                runtime_configuration={}
            ).get_metric_configurations()
            result = expectation.metrics_validate(
                {configuration.id: self._rows for configuration in needed}
            )
            merged = self._found.setdefault(number, Merged(check))
            merged.add(result.to_json_dict(), np.zeros(0, np.int64), None)

    @cached_property
    def _batches(self) -> Any:
        """Great Expectations' way from a data frame to what it judges."""
        return (
            _context()
            .data_sources.add_pandas("rows")
            .add_dataframe_asset("rows")
            .add_batch_definition_whole_dataframe("rows")
        )

    def _outcome(self, number: int, check: Check) -> Outcome:
        merged = self._found[number]
        result = merged.details["result"]
        observed = result.get("observed_value")
        for key in (
            "missing_list",
            "partial_missing_list",
        ):  # of a set that should be there; comes in no order
            if result.get(key):
                result[key] = sorted(result[key], key=str)
                observed = {"missing": result[key]}
        return Outcome(
            check,
            merged.details["success"],
            self._rows,
            merged.places,
            merged.examples,
            observed,
            merged.details,
        )


def _named(checks: Sequence[Check], rows: pa.Table) -> list[str]:
    return [
        name
        for name in rows.column_names
        if name == PLACE or any(_mentions(check, name) for check in checks)
    ]


def _values(check: Check, rows: pa.Table, places: npt.NDArray[np.int64]) -> pa.ChunkedArray | None:
    """What was judged at these places; None where it was not one column, or where there are none."""
    column = check.kwargs.get("column")
    if column not in rows.column_names or not len(places):
        return None
    return rows[column].take(pa.array(np.searchsorted(rows[PLACE].to_numpy(), places)))


def _context() -> EphemeralDataContext:
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    # told in code: a stage does not depend on the environment
    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(), analytics_enabled=False
        ),
    )
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # of values that it tries to parse, of regular expressions with groups: nothing that a user could act on
        warnings.filterwarnings("ignore", category=UserWarning, module=r"great_expectations\..*")
        warnings.filterwarnings(
            "ignore", category=DeprecationWarning, module=r"great_expectations\..*"
        )
        yield


def _kind(check: Check) -> type:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    try:
        return get_expectation_impl(check.type)  # type: ignore[no-any-return]
    except ExpectationNotFoundError:
        near = did_you_mean(check.type, list_registered_expectation_implementations())
        raise ParamsError(f"no expectation is called '{check.type}'.{near}") from None


def _expectation(check: Check, number: int = 0) -> Any:
    kind = _kind(check)
    known = getattr(kind, "__fields__", {}) or inspect.signature(kind).parameters
    unknown = [key for key in check.kwargs if key not in known]
    if unknown:
        raise ParamsError(
            f"'{unknown[0]}' is no argument of {check.type}.{did_you_mean(unknown[0], known)}"
        )
    try:
        return kind(**check.kwargs, meta={"number": number})
    except (ValueError, TypeError) as error:  # pydantic's ValidationError is a ValueError
        raise ParamsError(" ".join(str(error).split())[:300]) from None


def _mentions(check: Check, column: str) -> bool:
    if check.type.startswith(_COLUMNS):  # a column that it does not name may be one too many
        return True
    if not any(key.startswith("column") for key in check.kwargs):
        return not check.type.startswith(_ROW_COUNT) or "row_condition" in check.kwargs
    return json.dumps(column, ensure_ascii=False)[1:-1] in json.dumps(
        dict(check.kwargs), ensure_ascii=False, default=str
    )


def _exception(info: Mapping[str, Any]) -> str:
    """The first exception's message; '' where there was none."""
    for entry in [info] if "raised_exception" in info else info.values():
        if entry["raised_exception"]:
            return " ".join(str(entry["exception_message"]).split())[:300]
    return ""
