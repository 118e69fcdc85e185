"""Load CSV and TSV files into DuckDB tables.

DuckDB reads the file if every byte can be accounted for afterwards; else it is read by record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import DataError
from tasks.data.tables.csv_records import Record, RecordReader
from tasks.data.tables.csv_swallowed import reject_swallowed
from tasks.data.tables.loaded import (
    BATCH,
    LINE,
    LoadedFile,
    escape_glob,
    insert,
    literal,
    quoted,
    scalar,
)
from tasks.data.tables.text_files import Text, undecodable

if TYPE_CHECKING:
    import duckdb

    from tasks.params.ingestion import Source

_OCCURRENCES = "strlen({c}) - strlen(replace({c}, {x}, ''))"  # of a one-byte character
_SEPARATOR_LINE = re.compile(r"sep=([,;|\t])\r?\n")  # written by Excel
_SAMPLE = 50  # records that a delimiter is tried on
_FEW = 0.5  # share of them that a wrong delimiter may fit
# DuckDB requires a spelling of null, but CSV has none: an empty field is an empty text
_NEVER = "\x01\x02 no null \x02\x01"


def load_csv(
    connection: duckdb.DuckDBPyConnection,
    text: Text,
    loaded: LoadedFile,
    file_format: str,
    source: Source,
    reserved: set[str],
) -> None:
    """Fill the table `loaded.table` with the file's fields as text; `file_format` is csv or tsv."""
    quote = source.quote
    with text.open() as lines:
        header_lines = list(islice(lines, 1000))
    usual = "\t" if file_format == "tsv" else _delimiter(header_lines, quote)
    delimiter = source.delimiter or usual
    header = next(_records(header_lines, delimiter, quote), None)
    if header is None or not any(header.fields):
        raise DataError(
            f"{loaded.name}: empty; wanted a line of column names, then one record per line.",
            "Give a file with rows.",
        )
    if reason := header.reason or undecodable(header.text):
        raise DataError(
            f"{loaded.name}, line {header.line}: the header cannot be read: {reason}.",
            "Fix the line.",
        )
    loaded.name_columns(header.fields, reserved)
    # the quick reader does not support blank lines above the header
    is_plain = not text.damaged and header.line == 1
    if not is_plain or not _load_csv_quickly(connection, text, loaded, header, delimiter, quote):
        _load_csv_carefully(connection, text, loaded, delimiter, quote)
    if quote and len(header.fields) > 1:
        reject_swallowed(connection, loaded, delimiter)
    _reject_headers(connection, loaded, header)


def _reject_headers(
    connection: duckdb.DuckDBPyConnection, loaded: LoadedFile, header: Record
) -> None:
    """Set aside rows that repeat the header, as in concatenated files."""
    if len(header.fields) < 2:
        return
    same = " AND ".join(
        f"{quoted(name)} = {literal(field)}"
        for name, field in zip(loaded.columns, header.fields, strict=True)
    )
    query = f"SELECT {LINE} FROM {quoted(loaded.table)} WHERE {same} ORDER BY {LINE}"
    repeats = connection.execute(query).fetchall()
    for (line,) in repeats:
        loaded.reject(line, "repeats the header", header.text)
    if repeats:
        connection.execute(f"DELETE FROM {quoted(loaded.table)} WHERE {same}")
        loaded.quarantine.sort(key=lambda entry: int(entry["line"]))


def _delimiter(lines: list[str], quote: str) -> str:
    """Field delimiter of a CSV file.

    Excel's first line `sep=` names it. Otherwise it is the comma, unless with another delimiter
    most records have as many fields as the header, and with the comma they do not.
    """
    first = next((line for line in lines if line.strip("\r\n")), "")
    if named := _SEPARATOR_LINE.fullmatch(first):
        return named[1]
    fitting = {mark: _share_like_header(lines, mark, quote) for mark in ",;\t|" if mark in first}
    best = max(fitting, key=lambda mark: fitting[mark], default=",")  # the first of equals
    return best if "," not in fitting or fitting[","] <= _FEW < fitting[best] else ","


def _share_like_header(lines: list[str], delimiter: str, quote: str) -> float:
    """Share of the first records that have as many fields as the header."""
    records = islice(_records(lines, delimiter, quote), _SAMPLE)
    header_width, *widths = [len(record.fields) for record in records]
    return sum(width == header_width for width in widths) / len(widths) if widths else 1.0


def _records(lines: Iterable[str], delimiter: str, quote: str) -> Iterator[Record]:
    """The records, without Excel's `sep=` line."""
    records = iter(RecordReader(lines, delimiter, quote))
    for first in islice(records, 1):
        if not _SEPARATOR_LINE.match(first.text):
            yield first
    yield from records


def _load_csv_quickly(
    connection: duckdb.DuckDBPyConnection,
    text: Text,
    loaded: LoadedFile,
    header: Record,
    delimiter: str,
    quote: str,
) -> bool:
    """Load the file with DuckDB; False, and no table, unless every byte and line is accounted for.

    DuckDB is fast, but silently lenient in corner cases (it trims blanks around quotes and skips
    blank lines), and it reports no line numbers.
    """
    import duckdb

    columns = {f"c{i}": "VARCHAR" for i in range(len(loaded.columns))}
    try:
        connection.execute(
            "CREATE TEMP TABLE quick AS SELECT * FROM read_csv($path, auto_detect=false, "
            "header=true, strict_mode=true, delim=$delimiter, quote=$quote, escape=$quote, "
            "columns=$columns, nullstr=$never, allow_quoted_nulls=false)",
            {
                "path": escape_glob(text.path),
                "delimiter": delimiter,
                "quote": quote,
                "columns": columns,
                "never": _NEVER,
            },
        )
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.BinderException):
        return False
    try:
        if not _accounted_for(connection, text.path, header, list(columns), delimiter, quote):
            return False
        first = header.text.count("\n") + 1
        newlines = " + ".join(_OCCURRENCES.format(c=c, x="chr(10)") for c in columns)
        line = f"rowid + {first}"
        if scalar(connection, f"SELECT coalesce(sum({newlines}), 0) FROM quick"):
            before = "ORDER BY rowid ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
            line += f" + coalesce(sum({newlines}) OVER ({before}), 0)"
        names = ", ".join(
            f"{c} AS {quoted(name)}" for c, name in zip(columns, loaded.columns, strict=True)
        )
        connection.execute(
            f"CREATE TABLE {quoted(loaded.table)} AS "
            f"SELECT {names}, ({line})::BIGINT AS {LINE} FROM quick ORDER BY rowid"
        )
    finally:
        connection.execute("DROP TABLE quick")
    return True


def _accounted_for(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    header: Record,
    columns: list[str],
    delimiter: str,
    quote: str,
) -> bool:
    """Whether the rows of `quick`, written out again, have the file's bytes, quotes and line ends.

    Quoting a field adds 2 quotes, plus 1 for each quote inside. So the file must be longer than
    the values, separators and line ends by exactly its number of additional quotes.
    """
    q = quote or "\0"
    sums = (
        _sum(columns, "strlen({0})"),
        _sum(columns, _OCCURRENCES.format(c="{0}", x="chr(10)")),
        _sum(columns, _OCCURRENCES.format(c="{0}", x=literal(q))),
    )
    row = connection.execute(f"SELECT count(*), {', '.join(sums)} FROM quick").fetchone()
    assert row is not None
    records, length, newlines, quotes = row
    file = _count_bytes(path, len(header.text.encode()), q.encode())
    ends = file.newlines - newlines  # line ends that end a record
    if ends != records - (file.size > 0 and not file.ends_with_newline):
        return False
    separators = records * (len(columns) - 1) * len(delimiter.encode())
    end_length = 2 if header.text.endswith("\r\n") else 1
    surplus = file.size - length - separators - ends * end_length
    return bool(surplus == (file.quotes - quotes if quote else 0))


def _sum(columns: list[str], expression: str) -> str:
    return f"coalesce(sum({' + '.join(expression.format(c) for c in columns)}), 0)"


@dataclass
class _Counts:
    size: int = 0
    newlines: int = 0
    quotes: int = 0
    ends_with_newline: bool = False


def _count_bytes(path: Path, start: int, quote: bytes) -> _Counts:
    counts = _Counts()
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(2**23):
            counts.size += len(chunk)
            counts.newlines += chunk.count(b"\n")
            counts.quotes += chunk.count(quote)
            counts.ends_with_newline = chunk.endswith(b"\n")
    return counts


def _load_csv_carefully(
    connection: duckdb.DuckDBPyConnection,
    text: Text,
    loaded: LoadedFile,
    delimiter: str,
    quote: str,
) -> None:
    """Load the file record by record, and set malformed records aside."""
    import pyarrow as pa

    names = [*loaded.columns, LINE]
    columns = ", ".join(f"{quoted(name)} VARCHAR" for name in loaded.columns)
    connection.execute(f"CREATE TABLE {quoted(loaded.table)} ({columns}, {LINE} BIGINT)")
    with text.open() as lines:
        records = _records(lines, delimiter, quote)
        next(records)
        good = (record for record in records if _keep(record, loaded, bool(text.damaged)))
        while batch := list(islice(good, BATCH)):
            fields = [*zip(*(record.fields for record in batch), strict=True)]
            arrays = [pa.array(values, pa.string()) for values in fields] + [
                pa.array([record.line for record in batch], pa.int64())
            ]
            insert(connection, loaded.table, pa.Table.from_arrays(arrays, names))


def _keep(record: Record, loaded: LoadedFile, damaged: bool) -> bool:
    reason = record.reason
    if not reason and len(record.fields) != len(loaded.columns):
        reason = f"{len(record.fields)} fields, the header has {len(loaded.columns)}"
    if damaged:
        reason = undecodable(record.text) or reason
    if reason:
        loaded.reject(record.line, reason, record.text)
    return not reason
