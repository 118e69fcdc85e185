"""The rows of every type: columns, with guesses, checks and special readings as functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.core.arrays import Columns
from tasks.core.errors import ParamsError
from tasks.data.quality.checks import COPIES_LABELS, LABEL_PRESENT, LABEL_ROWS, LABEL_SHARE, Check
from tasks.data.row_format import Guessed
from tasks.data.tables.readings import (
    Reading,
    SourceColumn,
    one_column,
    read_label,
    read_other,
    read_text,
)
from tasks.params.labels import label_variants

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.params.ingestion import ReadingParams
    from tasks.params.schema import ValidateParams

# the source columns that each of a problem's columns is read from
SourceColumns = Mapping[str, Sequence[SourceColumn]]


@dataclass(frozen=True)
class Rows:
    """A RowFormat (tasks/data/row_format.py, which documents the fields).

    read  readings of several source columns or of nested ones; where it returns None, as without
          it, each column is read from one source column
    """

    name: str
    columns: Mapping[str, str]
    text_columns: tuple[str, ...]
    guess_columns: Callable[[Columns], Guessed | None]
    expectations: Callable[[ValidateParams, Sequence[str]], list[Check]]
    label_column: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)
    replaceable: tuple[str, ...] = ()
    split_columns: tuple[str, ...] = ()
    is_meant: Callable[[Columns], bool] = lambda rows: True
    guess_reading: Callable[[Columns, Guessed], dict[str, Any]] = lambda rows, columns: {}
    facts: Callable[[pa.Table], pa.Table | None] = lambda rows: None
    read: Callable[[SourceColumns, ReadingParams], dict[str, Reading] | None] = (
        lambda given, params: None
    )

    def readings(self, given: SourceColumns, params: ReadingParams) -> dict[str, Reading]:
        """See RowFormat."""
        special = self.read(given, params)
        if special is not None:
            return special
        return {
            name: self._reading(name, one_column(name, columns), params)
            for name, columns in given.items()
        }

    def _reading(self, name: str, column: SourceColumn, params: ReadingParams) -> Reading:
        if name in self.types:
            return read_other(column, self.types[name])
        if name == self.label_column:
            return read_label(column, merge=params.merge_labels)
        return read_text(column)


def class_checks(validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
    """Checks of one class a row, in the column `label`; ParamsError where there are no labels."""
    if not labels:
        raise ParamsError(
            "labels: empty; wanted every label that rows may have.",
            "List them in params.yaml: `labels: [ham, spam]`.",
        )
    known = {"column": "label", "value_set": list(labels)}
    between = "expect_column_values_to_be_between"
    conflicts = {"column": COPIES_LABELS, "max_value": 1, "mostly": 1 - validate.max_conflict_share}
    few, most = validate.min_rows_per_class, validate.max_class_share
    variants = [label for group in label_variants(labels) for label in group]
    return [
        Check("null_label", "expect_column_values_to_not_be_null", {"column": "label"},
              "quarantine", "the label is missing"),
        Check("unknown_label", "expect_column_values_to_be_in_set", known, "error",
              "the label is not in `labels` of params.yaml"),
        Check("conflicts", between, conflicts, "warn", "the same text also has another label"),
        Check("rows_per_class", between, {"column": LABEL_ROWS, "min_value": few}, "error",
              f"the label has fewer than {few} rows (validate.min_rows_per_class)"),
        Check("missing_class", "expect_column_distinct_values_to_contain_set",
              known | {"column": LABEL_PRESENT}, "error", "labels of params.yaml have no rows"),
        Check("one_class", "expect_column_unique_value_count_to_be_between",
              {"column": LABEL_PRESENT, "min_value": 2}, "error",
              "two classes or more are needed to tell apart"),
        Check("label_variants", "expect_column_values_to_not_be_in_set",
              {"column": "label", "value_set": variants}, "warn",
              "another label differs only by case or by blanks"
              " (ingest.merge_labels makes one of them)"),
        Check("class_share", "expect_column_max_to_be_between",
              {"column": LABEL_SHARE, "max_value": most}, "warn",
              f"the most frequent label has more than {most:.0%} of the rows"
              " (validate.max_class_share)"),
    ]  # fmt: skip
