"""Checks run by Great Expectations: columns in; out come each check's result and failing rows.

Checks that judge each row on its own run batch by batch; the others run once, on all rows of the
columns they name.
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

PLACE = "\x1frow_index"  # column of row indices, under a name that no source uses
_ROW_COUNT, _COLUMNS = "expect_table_row_count_to_", "expect_table_column"
# whether a row fails these depends on that row alone
_BY_ROW = {
    "expect_column_values_to_be_between", "expect_column_values_to_be_in_set",
    "expect_column_values_to_be_null", "expect_column_values_to_not_be_null",
    "expect_column_values_to_not_be_in_set", "expect_column_values_to_match_regex",
    "expect_column_values_to_not_match_regex", "expect_column_values_to_match_regex_list",
    "expect_column_values_to_not_match_regex_list", "expect_column_value_lengths_to_be_between",
    "expect_column_value_lengths_to_equal", "expect_column_pair_values_to_be_equal",
    "expect_column_pair_values_to_be_in_set", "expect_column_pair_values_a_to_be_greater_than_b",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Result of a check.

    judged     number of rows checked
    missed     indices of the failing rows, ascending; empty for aggregate checks
    examples   some of those indices, with the values judged there
    observed   observed value of an aggregate check, plain JSON; None for row-level checks
    details    Great Expectations' own result, plain JSON, without its lists of all rows
    """

    check: Check
    success: bool
    judged: int
    missed: npt.NDArray[np.int64]
    examples: Mapping[int, Any] = field(default_factory=dict)
    observed: Any = None
    details: Mapping[str, Any] = field(default_factory=dict)


def concerns_rows(check: Check) -> bool:
    """Whether the expectation is row-level, so that the failing rows can be named."""
    from great_expectations.expectations.expectation import (
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )

    row_level = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
    return issubclass(_expectation_class(check), row_level)


def require_known(checks: Sequence[Check]) -> None:
    """Raise a ParamsError naming every expectation that is unknown or has invalid arguments."""
    problems = []
    for check in checks:
        try:
            _expectation(check)
        except ParamsError as error:
            problems.append(f"  {check.name}: {error.message}")
    if problems:
        raise ParamsError(
            "validate.expectations:\n" + "\n".join(problems),
            "The gallery lists all expectations: https://greatexpectations.io/expectations",
        )


class CheckRunner:
    """Runs checks on rows that come in batches.

    labels   table with one row per label: aggregate checks on its columns are judged on it
    columns  the columns a user knows: checks on the table's columns are judged on them
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
        self._on_all_rows = [check for check in checks if check not in judged]
        self._merged: dict[int, Merged] = {}  # by index of the check
        self._batches_kept: list[pa.Table] = []  # for the checks on all rows
        self._rows = 0

    def mentions(self, column: str) -> bool:
        """Whether any check may read the column's rows."""
        return any(_mentions(check, column) for check in (*self._by_row, *self._on_all_rows))

    def see(self, rows: pa.Table) -> None:
        """Check the next rows, which have the column PLACE.

        Raises ParamsError if an expectation cannot be computed on these columns.
        """
        self._rows += len(rows)
        self._judge(self._by_row, rows)
        if self._on_all_rows:
            self._batches_kept.append(rows.select(_columns_read(self._on_all_rows, rows)))

    def outcomes(self) -> list[Outcome]:
        """The outcome of each check, in order, once all rows were seen; none without rows."""
        if not self._rows:
            return []
        self._judge(self._of_labels, self._labels)
        self._judge(self._of_columns, self._columns)
        self._count()
        if self._batches_kept:
            self._judge(self._on_all_rows, pa.concat_tables(self._batches_kept))
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
            # integers stay integers in a batch with nulls, as they are in one without
            frame = rows.select(_columns_read(checks, rows)).to_pandas(integer_object_nulls=True)
            batch = self._batch_definition.get_batch({"dataframe": frame})
            validation = batch.validate(suite, result_format=result_format)
        for expectation_result in validation.results:  # in Great Expectations' own order
            result = expectation_result.to_json_dict()
            number = result["expectation_config"]["meta"]["number"]
            check = self._checks[number]
            if message := _exception(result["exception_info"]):
                raise ParamsError(
                    f"validate.expectations: {check.type} cannot be computed: {message}",
                    "Check its `kwargs` and the columns they name.",
                )
            failed = result["result"].pop("unexpected_index_list", None) or []
            row_indices = np.unique(np.array([entry[PLACE] for entry in failed], np.int64))
            merged = self._merged.setdefault(number, Merged(check))
            merged.add(result, row_indices, _values(check, rows, row_indices))

    def _count(self) -> None:
        """Run the row-count checks by passing the count: computing it would hash a whole frame."""
        for check in self._of_count:
            number = self._checks.index(check)
            expectation = _expectation(check, number)
            dependencies = expectation.get_validation_dependencies(runtime_configuration={})
            metrics = {metric.id: self._rows for metric in dependencies.get_metric_configurations()}
            result = expectation.metrics_validate(metrics)
            merged = self._merged.setdefault(number, Merged(check))
            merged.add(result.to_json_dict(), np.zeros(0, np.int64), None)

    @cached_property
    def _batch_definition(self) -> Any:
        """Great Expectations' definition that turns a data frame into a batch to validate."""
        return (
            _context()
            .data_sources.add_pandas("rows")
            .add_dataframe_asset("rows")
            .add_batch_definition_whole_dataframe("rows")
        )

    def _outcome(self, number: int, check: Check) -> Outcome:
        merged = self._merged[number]
        result = merged.details["result"]
        observed = result.get("observed_value")
        # missing members of a set, in arbitrary order
        for key in ("missing_list", "partial_missing_list"):
            if result.get(key):
                result[key] = sorted(result[key], key=str)
                observed = {"missing": result[key]}
        return Outcome(
            check=check,
            success=merged.details["success"],
            judged=self._rows,
            missed=merged.places,
            examples=merged.examples,
            observed=observed,
            details=merged.details,
        )


def _columns_read(checks: Sequence[Check], rows: pa.Table) -> list[str]:
    return [
        name
        for name in rows.column_names
        if name == PLACE or any(_mentions(check, name) for check in checks)
    ]


def _values(
    check: Check, rows: pa.Table, row_indices: npt.NDArray[np.int64]
) -> pa.ChunkedArray | None:
    """The values judged at these indices; None if the check reads no single column, or no rows."""
    column = check.kwargs.get("column")
    if column not in rows.column_names or not len(row_indices):
        return None
    return rows[column].take(pa.array(np.searchsorted(rows[PLACE].to_numpy(), row_indices)))


def _context() -> EphemeralDataContext:
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    # configured in code: a stage does not depend on the environment
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
        # about values it tries to parse and regexes with groups: nothing a user could act on
        module = r"great_expectations\..*"
        warnings.filterwarnings("ignore", category=UserWarning, module=module)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
        yield


def _expectation_class(check: Check) -> type:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    try:
        return get_expectation_impl(check.type)
    except ExpectationNotFoundError:
        suggestion = did_you_mean(check.type, list_registered_expectation_implementations())
        raise ParamsError(f"no expectation is called '{check.type}'.{suggestion}") from None


def _expectation(check: Check, number: int = 0) -> Any:
    expectation_class = _expectation_class(check)
    known = (
        getattr(expectation_class, "__fields__", {})
        or inspect.signature(expectation_class).parameters
    )
    unknown = [key for key in check.kwargs if key not in known]
    if unknown:
        raise ParamsError(
            f"'{unknown[0]}' is not an argument of {check.type}.{did_you_mean(unknown[0], known)}"
        )
    try:
        return expectation_class(**check.kwargs, meta={"number": number})
    except (ValueError, TypeError) as error:  # pydantic's ValidationError is a ValueError
        raise ParamsError(" ".join(str(error).split())[:300]) from None


def _mentions(check: Check, column: str) -> bool:
    """Whether the check may read the column."""
    if check.type.startswith(_COLUMNS):  # a column it does not name may be one too many
        return True
    if not any(key.startswith("column") for key in check.kwargs):
        return not check.type.startswith(_ROW_COUNT) or "row_condition" in check.kwargs
    kwargs = json.dumps(dict(check.kwargs), ensure_ascii=False, default=str)
    return json.dumps(column, ensure_ascii=False)[1:-1] in kwargs


def _exception(info: Mapping[str, Any]) -> str:
    """The first exception's message, or ''."""
    for entry in [info] if "raised_exception" in info else info.values():
        if entry["raised_exception"]:
            return " ".join(str(entry["exception_message"]).split())[:300]
    return ""
