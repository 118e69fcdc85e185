"""Checks judged by Great Expectations: columns in, for each check whether it holds and which rows miss it."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tasks.core.checks import Check
from tasks.core.errors import ParamsError, did_you_mean

if TYPE_CHECKING:
    from great_expectations.data_context import EphemeralDataContext

_INDEX = "row_index"  # a row's place in the table given, beside its own columns


@dataclass(frozen=True)
class Outcome:
    """What became of a check.

    judged     rows that were looked at
    missed     places, in the table given, of the rows that miss it; empty for what concerns the table as a whole
    observed   what was found in the table as a whole, plain JSON; None for checks of single rows
    details    Great Expectations' own account, plain JSON
    """

    check: Check
    success: bool
    judged: int
    missed: list[int] = field(default_factory=list)
    observed: Any = None
    details: Mapping[str, Any] = field(default_factory=dict)


def concerns_rows(check: Check) -> bool:
    """Whether the expectation holds or not for single rows, so that those that miss it can be named."""
    from great_expectations.expectations.expectation import ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation

    return issubclass(_kind(check), (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation))


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


def judge(rows: pa.Table, checks: Sequence[Check]) -> list[Outcome]:
    """The outcome of each check, in order. Raises ParamsError where an expectation cannot be computed on these columns."""
    if not checks:
        return []
    import great_expectations as gx

    suite = gx.ExpectationSuite("ratchet", expectations=[_expectation(check, number) for number, check in enumerate(checks)])
    columns = [name for name in rows.column_names if any(_mentions(check, name) for check in checks)]
    frame = rows.select(columns).append_column(_INDEX, pa.array(range(len(rows)), pa.int64())).to_pandas()
    with _quiet():
        source = _context().data_sources.add_pandas("rows")
        batch = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})
        result = batch.validate(
            suite,
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [_INDEX], "return_unexpected_index_query": False},
        )
    # Great Expectations returns them in an order of its own
    found = {one.expectation_config.meta["number"]: one.to_json_dict() for one in result.results}
    return [_outcome(check, found[number], len(rows)) for number, check in enumerate(checks)]


def _context() -> EphemeralDataContext:
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig

    # told in code: a stage does not depend on the environment
    context = gx.get_context(
        mode="ephemeral", project_config=DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults(), analytics_enabled=False)
    )
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # of values that it tries to parse, of regular expressions with groups: nothing that a user could act on
        warnings.filterwarnings("ignore", category=UserWarning, module=r"great_expectations\..*")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"great_expectations\..*")
        yield


def _kind(check: Check) -> type:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import get_expectation_impl, list_registered_expectation_implementations

    try:
        return get_expectation_impl(check.type)  # type: ignore[no-any-return]
    except ExpectationNotFoundError:
        near = did_you_mean(check.type, list_registered_expectation_implementations())
        raise ParamsError(f"no expectation is called '{check.type}'.{near}") from None


def _expectation(check: Check, number: int = 0) -> object:
    kind = _kind(check)
    known = getattr(kind, "__fields__", {}) or inspect.signature(kind).parameters
    unknown = [key for key in check.kwargs if key not in known]
    if unknown:
        raise ParamsError(f"'{unknown[0]}' is no argument of {check.type}.{did_you_mean(unknown[0], known)}")
    try:
        return kind(**check.kwargs, meta={"number": number})
    except (ValueError, TypeError) as error:  # pydantic's ValidationError is a ValueError
        raise ParamsError(" ".join(str(error).split())[:300]) from None


def _mentions(check: Check, column: str) -> bool:
    if not any(key.startswith("column") for key in check.kwargs):
        return not check.kwargs.keys() <= {"min_value", "max_value", "value"}  # of the table's columns, or its rows' number
    return json.dumps(column, ensure_ascii=False)[1:-1] in json.dumps(dict(check.kwargs), ensure_ascii=False, default=str)


def _outcome(check: Check, found: Mapping[str, Any], judged: int) -> Outcome:
    if message := _exception(found["exception_info"]):
        raise ParamsError(
            f"validate.expectations: {check.type} cannot be computed: {message}", "Check its `kwargs` and the columns they name."
        )
    result = found["result"]
    missed = sorted({int(entry[_INDEX]) for entry in result.get("unexpected_index_list") or []})
    observed = result.get("observed_value")
    for key in ("missing_list", "partial_missing_list"):  # of a set that should be there; comes in no order
        if result.get(key):
            result[key] = sorted(result[key], key=str)
            observed = {"missing": result[key]}
    return Outcome(check, bool(found["success"]), judged, missed, observed, found)


def _exception(info: Mapping[str, Any]) -> str:
    """The first exception's message; '' where there was none."""
    for entry in [info] if "raised_exception" in info else info.values():
        if entry["raised_exception"]:
            return " ".join(str(entry["exception_message"]).split())[:300]
    return ""
