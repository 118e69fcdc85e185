"""The rows of a problem type: their columns, how those are read from sources, and checks on them.

Rows travel by column: `{"text": [...], "label": [...]}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.core.arrays import Columns
    from tasks.data.quality.checks import Check
    from tasks.data.tables.readings import Reading, SourceColumn
    from tasks.params.ingestion import ReadingParams
    from tasks.params.schema import ValidateParams

# a problem's columns -> the source's column, or several source columns that make up one
Guessed = Mapping[str, str | tuple[str, ...]]


class RowFormat(Protocol):
    """The part of a problem type that the data stages use.

    name           the problem type's, for messages
    columns        what a row must have: column -> what it holds, for people
    types          DuckDB type of the columns that are not text, such as VARCHAR[]
    derived        further columns, each an SQL expression (DuckDB) over `columns`
    replaceable    derived columns that sources may hold themselves
    text_columns   hashed to split, checked for damage, measured for length
    split_columns  rows that agree in these stay in one split; empty: rows of the same text do
    label_column   classes, one or a list of several a row: counted, and sliced by; None: no classes
    """

    @property
    def name(self) -> str: ...
    @property
    def columns(self) -> Mapping[str, str]: ...
    @property
    def types(self) -> Mapping[str, str]: ...
    @property
    def derived(self) -> Mapping[str, str]: ...
    @property
    def replaceable(self) -> tuple[str, ...]: ...
    @property
    def text_columns(self) -> tuple[str, ...]: ...
    @property
    def split_columns(self) -> tuple[str, ...]: ...
    @property
    def label_column(self) -> str | None: ...

    def readings(
        self, given: Mapping[str, Sequence[SourceColumn]], params: ReadingParams
    ) -> dict[str, Reading]:
        """SQL that makes each column from one source column, or from several named ones.

        Raises ParamsError or DataError where that is impossible.
        """
        ...

    def guess_columns(self, rows: Columns, /) -> Guessed | None:
        """Source columns for the problem's, from a sample of rows; None: not of this problem."""
        ...

    def is_meant(self, rows: Columns, /) -> bool:
        """Whether rows with the right columns may be taken for this problem without asking."""
        ...

    def guess_reading(self, rows: Columns, columns: Guessed, /) -> dict[str, Any]:
        """Values of `ingest` in params.yaml that a sample of the rows calls for."""
        ...

    def expectations(self, validate: ValidateParams, labels: Sequence[str], /) -> list[Check]:
        """Checks beyond those that hold for any text; ParamsError for impossible `labels`."""
        ...

    def facts(self, rows: pa.Table, /) -> pa.Table | None:
        """Further columns that only `expectations` judge, one value a row."""
        ...
