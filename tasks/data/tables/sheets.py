"""Convert a sheet of an Excel file to JSONL, and unpack zipped data files.

openpyxl reads a sheet row by row; readers that keep it as a grid run out of memory on a sheet with
one cell far away.
"""

from __future__ import annotations

import datetime
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tasks.core.archives import open_archive
from tasks.core.errors import DataError
from tasks.core.foreign import foreign_file
from tasks.data.tables.loaded import distinct
from tasks.data.tables.text_files import Text

if TYPE_CHECKING:
    from openpyxl.cell import Cell
    from openpyxl.workbook import Workbook
    from openpyxl.worksheet.worksheet import Worksheet

    from tasks.params.ingestion import Source

_AGAIN = "Save it again, or save the sheet as CSV."


def unzip(path: Path, name: str, scratch: Path) -> tuple[Path, str]:
    """The data file in a .zip, extracted to `scratch`, and its name; any other file unchanged.

    Raises DataError if the archive holds several files, SourceError if it is damaged.
    """
    if not name.lower().endswith(".zip"):
        return path, name
    with open_archive(path, name, "Fetch or compress it again.") as archive:
        members = [member for member in archive.members if not _is_of_the_system(member)]
        if len(members) != 1:
            shown = ", ".join(sorted(members)[:10]) or "none"
            raise DataError(
                f"{name}: a zip archive of {len(members)} files; wanted one. Files: {shown}.",
                "Unpack it (`unzip`), and give the files in it.",
            )
        ending = ".gz" if members[0].lower().endswith(".gz") else ""
        target = scratch.with_name(scratch.name + ending)
        archive.extract(members[0], target)
    return target, PurePosixPath(members[0]).name


def _is_of_the_system(member: str) -> bool:
    """Whether macOS or the like added the member: __MACOSX/._a.csv, .DS_Store."""
    parts = PurePosixPath(member).parts
    return parts[0] == "__MACOSX" or parts[-1].startswith(".")


def unfold_sheet(path: Path, name: str, source: Source, target: Path) -> Text:
    """Write the rows of a sheet below its header to `target` as JSONL.

    name  the file's name in messages
    The header is the first row with a value. A row's line has the number of the row in the sheet;
    lines of the header and of blank rows are blank. Dates are in ISO 8601; an error such as #N/A,
    and a formula that was never computed, is a missing value.
    """
    import openpyxl

    with open_archive(path, name, _AGAIN) as archive:
        archive.require_bounded()
    what = f"{name}: not a readable Excel file (.xlsx)"
    with path.open("rb") as opened, warnings.catch_warnings():  # of a path, the ending counts
        warnings.simplefilter("ignore")  # of styles and extensions, which hold no values
        with foreign_file(what, _AGAIN):
            book = openpyxl.load_workbook(opened, read_only=True, data_only=True)
        with closing(book):
            rows = _rows(_sheet(book, name, source, what), what)
            with target.open("w", encoding="utf-8", errors="surrogatepass") as file:
                file.writelines(_lines(rows))
    return Text(target)


def _sheet(book: Workbook, name: str, source: Source, what: str) -> Worksheet:
    """The sheet that the source names, or the only visible one with values."""
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    if source.sheet is not None:
        if source.sheet not in sheets:
            raise DataError(
                f"{name}: there is no sheet '{source.sheet}'. Its sheets: {', '.join(sheets)}.",
                "Name one of them.",
            )
        return sheets[source.sheet]
    filled = [
        sheet
        for sheet in sheets.values()
        if sheet.sheet_state == "visible" and any(map(_has_values, _rows(sheet, what)))
    ]
    if len(filled) != 1:
        titles = [sheet.title for sheet in filled] or list(sheets)
        remedy = "Give a file with rows."
        if filled:
            remedy = f"Name the one with the rows. {source.setting('sheet', titles[0])}"
        raise DataError(
            f"{name}: {len(filled)} visible sheets have values; wanted one. "
            f"Its sheets: {', '.join(titles)}.",
            remedy,
        )
    return filled[0]


def _rows(sheet: Worksheet, what: str) -> Iterator[list[Any]]:
    """The values of each row."""
    sheet.reset_dimensions()  # some programs declare fewer cells than there are
    rows = iter(sheet.iter_rows())
    while True:
        with foreign_file(what, _AGAIN):
            row = next(rows, None)
            values = None if row is None else [_value(cell) for cell in row]
        if values is None:
            return
        yield values


def _value(cell: Cell) -> Any:
    value = cell.value
    if cell.data_type == "e" or value == "":
        return None
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return value if isinstance(value, str | bool | int | float | None) else str(value)


def _has_values(row: Sequence[Any]) -> bool:
    return any(value is not None for value in row)


def _lines(rows: Iterator[list[Any]]) -> Iterator[str]:
    header: list[str] = []
    names: list[str] = []
    for row in rows:
        while row and row[-1] is None:
            row.pop()
        if not row or not header:
            yield "\n"
            header = header or ["" if value is None else str(value).strip() for value in row]
            continue
        row += [None] * (len(header) - len(row))
        if len(row) > len(names):  # the first, or values right of the header: columns without names
            names = distinct(header + [""] * (len(row) - len(header)), set())
        yield json.dumps(dict(zip(names, row, strict=False)), ensure_ascii=False) + "\n"
