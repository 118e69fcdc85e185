"""CSV, TSV, JSONL and Parquet files as DuckDB tables, every record either a row or set aside with its line and the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError, SourceError
from tasks.core.records import Record, RecordReader
from tasks.core.texts import Text, as_utf8, undecodable

if TYPE_CHECKING:
    import duckdb

    from tasks.core.params import Source

FILE, LINE, SPLIT = "_file", "_line", "split"  # the columns that every table gets
_ENDINGS = {
    "csv": "csv", "tsv": "tsv", "tab": "tsv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl", "parquet": "parquet", "pq": "parquet",
}  # fmt: skip
_BATCH = 50_000
_CONTENT = 200  # characters of a quarantined record that are kept
# no value is null in CSV: an empty field is the empty text, and DuckDB wants some text to stand for null
_OCCURRENCES = "strlen({c}) - strlen(replace({c}, {x}, ''))"  # of a one-byte character
_NEVER = "\x01\x02 no null \x02\x01"


@dataclass
class Loaded:
    """What became of one file: the DuckDB table it is now (its source's columns are `columns`), and what was set aside."""

    table: str
    name: str
    columns: list[str] = field(default_factory=list)
    rows: int = 0
    quarantine: list[dict[str, Any]] = field(default_factory=list)

    def reject(self, line: int, reason: str, content: str) -> None:
        """Set a record aside."""
        printable = content.rstrip("\r\n").encode("utf-8", "backslashreplace").decode()
        self.quarantine.append({"file": self.name, "line": line, "reason": reason, "content": printable[:_CONTENT]})


def quoted(name: str) -> str:
    """A column's or table's name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def format_of(source: Source, name: str) -> str:
    """The format that params.yaml or else the file's ending names."""
    if source.format != "auto":
        return source.format
    ending = name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending not in _ENDINGS:
        raise SourceError(
            f"{name}: its ending does not say what format it has.", "Name it in params.yaml: `format: csv` (or tsv, jsonl, parquet) beside its `url`."
        )
    return _ENDINGS[ending]


def load(
    connection: duckdb.DuckDBPyConnection, path: Path, loaded: Loaded, source: Source, wanted: Collection[str] | None, scratch: Path
) -> None:
    """Fill the table `loaded.table` from the file.

    wanted    the source's columns that are needed, values read as text where the format lets them be; None: all, as they are
    scratch   directory for working copies
    CSV and TSV values are always text ('01' stays '01'), JSONL and Parquet values have their own types.
    """
    kind = format_of(source, loaded.name)
    reserved = {FILE, LINE} | ({SPLIT} if source.split else set())
    if kind == "parquet":
        _load_parquet(connection, path, loaded, reserved)
    else:
        text = as_utf8(path, loaded.name, source.encoding, scratch / f"{loaded.table}.txt")
        if kind == "jsonl":
            _load_jsonl(connection, text, loaded, wanted, reserved)
        else:
            _load_csv(connection, text, loaded, kind, source.quote, reserved)
    constants = f"{literal(loaded.name)} AS {FILE}" + (f", {literal(source.split)} AS {SPLIT}" if source.split else "")
    table = quoted(loaded.table)
    connection.execute(f"ALTER TABLE {table} RENAME TO {quoted(loaded.table + '_rows')}")
    connection.execute(f"CREATE VIEW {table} AS SELECT *, {constants} FROM {quoted(loaded.table + '_rows')}")
    loaded.rows = _scalar(connection, f"SELECT count(*) FROM {table}")
    if loaded.quarantine and not loaded.rows:
        first = loaded.quarantine[0]
        raise DataError(
            f"{loaded.name}: none of its {len(loaded.quarantine)} records can be read; line {first['line']}: {first['reason']}.",
            "Check `format`, `quote` and `encoding` of the source in params.yaml.",
        )


def _load_csv(
    connection: duckdb.DuckDBPyConnection, text: Text, loaded: Loaded, kind: str, quote: str, reserved: set[str]
) -> None:
    with text.open() as lines:
        header_lines = list(islice(lines, 1000))
    delimiter = "\t" if kind == "tsv" else _delimiter(header_lines[0] if header_lines else "")
    reader = RecordReader(header_lines, delimiter, quote)
    header = next(iter(reader), None)
    if header is None or not any(header.fields):
        raise DataError(f"{loaded.name}: empty; wanted a line with the columns' names, then one record a line.", "Give a file with rows.")
    if header.reason or undecodable(header.text):
        raise DataError(f"{loaded.name}, line {header.line}: the header cannot be read: {header.reason or undecodable(header.text)}.", "Mend the line.")
    loaded.columns = _distinct(header.fields, reserved)
    # blank lines above the header are no concern of the quick reader
    if text.damaged or header.line != 1 or not _load_csv_quickly(connection, text, loaded, header, delimiter, quote):
        _load_csv_carefully(connection, text, loaded, delimiter, quote)


def _delimiter(header: str) -> str:
    """The comma; or what else the header has, where it has none: some countries' spreadsheets write semicolons."""
    others = [character for character in ";\t|" if character in header]
    return others[0] if "," not in header and len(others) == 1 else ","


def _distinct(names: Sequence[str], reserved: set[str]) -> list[str]:
    """Names without repeats (DuckDB tells no cases apart): the second `x` is `x_2`, a nameless third column `column3`."""
    seen = {name.lower() for name in reserved}
    result = []
    for position, given in enumerate(names, 1):
        name, number = given or f"column{position}", 1
        while name.lower() in seen:
            number += 1
            name = f"{given or f'column{position}'}_{number}"
        seen.add(name.lower())
        result.append(name)
    return result


def _load_csv_quickly(
    connection: duckdb.DuckDBPyConnection, text: Text, loaded: Loaded, header: Record, delimiter: str, quote: str
) -> bool:
    """Let DuckDB read the file, and take the result only if every byte and every line of the file is accounted for.

    DuckDB is quick but in corners silently lenient (it trims blanks around quotes, skips blank lines), and knows no line numbers.
    """
    import duckdb

    columns = {f"c{i}": "VARCHAR" for i in range(len(loaded.columns))}
    try:
        connection.execute(
            "CREATE TEMP TABLE quick AS SELECT * FROM read_csv($path, auto_detect=false, header=true, strict_mode=true, delim=$delimiter, "
            "quote=$quote, escape=$quote, columns=$columns, nullstr=$never, allow_quoted_nulls=false)",
            {"path": _escape_glob(text.path), "delimiter": delimiter, "quote": quote, "columns": columns, "never": _NEVER},
        )
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.BinderException):
        return False
    try:
        if not _accounted_for(connection, text.path, header, list(columns), quote):
            return False
        first = header.text.count("\n") + 1
        newlines = " + ".join(_OCCURRENCES.format(c=c, x="chr(10)") for c in columns)
        line = f"rowid + {first}"
        if _scalar(connection, f"SELECT coalesce(sum({newlines}), 0) FROM quick"):
            line = f"{first} + rowid + coalesce(sum({newlines}) OVER (ORDER BY rowid ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)"
        names = ", ".join(f"{c} AS {quoted(name)}" for c, name in zip(columns, loaded.columns, strict=True))
        connection.execute(f"CREATE TABLE {quoted(loaded.table)} AS SELECT {names}, ({line})::BIGINT AS {LINE} FROM quick ORDER BY rowid")
    finally:
        connection.execute("DROP TABLE quick")
    return True


def _accounted_for(connection: duckdb.DuckDBPyConnection, path: Path, header: Record, columns: list[str], quote: str) -> bool:
    """Whether the rows of `quick`, written out again, have the bytes, the quotes and the line ends that the file has.

    A field that is quoted costs 2 quotes more than its value has, and 1 more for each quote inside; so the file must be as much
    longer than the values, separators and line ends as it has more quotes than they.
    """
    q = quote or "\0"
    sums = (_sum(columns, "strlen({0})"), _sum(columns, _OCCURRENCES.format(c="{0}", x="chr(10)")), _sum(columns, _OCCURRENCES.format(c="{0}", x=literal(q))))
    row = connection.execute(f"SELECT count(*), {', '.join(sums)} FROM quick").fetchone()
    assert row is not None
    records, length, newlines, quotes = row
    found = _count_bytes(path, len(header.text.encode()), q.encode())
    ends = found.newlines - newlines  # line ends that end a record
    if ends != records - (found.size > 0 and not found.ends_with_newline):
        return False
    separators = records * (len(columns) - 1)
    end_length = 2 if header.text.endswith("\r\n") else 1
    return bool(found.size - length - separators - ends * end_length == (found.quotes - quotes if quote else 0))


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


def _load_csv_carefully(connection: duckdb.DuckDBPyConnection, text: Text, loaded: Loaded, delimiter: str, quote: str) -> None:
    """Read record by record, and set aside those that do not fit."""
    import pyarrow as pa

    names = [*loaded.columns, LINE]
    columns = ", ".join(f"{quoted(name)} VARCHAR" for name in loaded.columns)
    connection.execute(f"CREATE TABLE {quoted(loaded.table)} ({columns}, {LINE} BIGINT)")
    with text.open() as lines:
        records = iter(RecordReader(lines, delimiter, quote))
        next(records)
        good = (record for record in records if _keep(record, loaded, bool(text.damaged)))
        while batch := list(islice(good, _BATCH)):
            fields = [*zip(*(record.fields for record in batch), strict=True)]
            arrays = [pa.array(values, pa.string()) for values in fields] + [pa.array([record.line for record in batch], pa.int64())]
            _insert(connection, loaded.table, pa.Table.from_arrays(arrays, names))


def _keep(record: Record, loaded: Loaded, damaged: bool) -> bool:
    reason = record.reason
    if not reason and len(record.fields) != len(loaded.columns):
        reason = f"{len(record.fields)} fields, the header has {len(loaded.columns)}"
    if damaged:
        reason = undecodable(record.text) or reason
    if reason:
        loaded.reject(record.line, reason, record.text)
    return not reason


def _insert(connection: duckdb.DuckDBPyConnection, table: str, batch: Any) -> None:
    connection.register("batch", batch)
    connection.execute(f"INSERT INTO {quoted(table)} SELECT * FROM batch")
    connection.unregister("batch")


def _load_jsonl(
    connection: duckdb.DuckDBPyConnection, text: Text, loaded: Loaded, wanted: Collection[str] | None, reserved: set[str]
) -> None:
    import pyarrow as pa

    connection.execute(f"CREATE TEMP TABLE lines ({LINE} BIGINT, value VARCHAR)")
    for first, lines in _decoded_batches(text, loaded):
        numbers = pa.array(range(first, first + len(lines)), pa.int64())
        _insert(connection, "lines", pa.Table.from_arrays([numbers, pa.array(lines, pa.string())], [LINE, "value"]))
    # text that NULL stands for was undecodable and is set aside already
    connection.execute("DELETE FROM lines WHERE value IS NULL OR trim(value, e' \\t\\r\\n') = ''")
    is_object = "json_valid(value) AND json_type(CASE WHEN json_valid(value) THEN value END) = 'OBJECT'"
    bad = connection.execute(
        f"SELECT {LINE}, value[:{_CONTENT}], json_valid(value), (SELECT min({LINE}) FROM lines) FROM lines WHERE NOT ({is_object}) ORDER BY {LINE}"
    ).fetchall()
    if bad and bad[0][0] == bad[0][3] and bad[0][1].lstrip().startswith("["):
        raise DataError(f"{loaded.name}: a JSON array; wanted JSONL, one object a line.", f"Convert it: jq -c '.[]' {loaded.name} > rows.jsonl")
    for line, value, valid, _ in bad:
        loaded.reject(line, "not a JSON object" if valid else "not valid JSON", value)
    connection.execute(f"DELETE FROM lines WHERE NOT ({is_object})")
    structure = connection.execute("SELECT json_group_structure(value::JSON) FROM lines").fetchone()
    keys: dict[str, Any] = json.loads(structure[0]) if structure and structure[0] else {}
    if not keys and not bad:
        raise DataError(f"{loaded.name}: empty; wanted one JSON object a line.", "Give a file with rows.")
    loaded.columns = _distinct(list(keys), reserved)
    columns = [f"{_member(key, kind, wanted)} AS {quoted(name)}" for (key, kind), name in zip(keys.items(), loaded.columns, strict=True)]
    connection.execute(f"CREATE TABLE {quoted(loaded.table)} AS SELECT {', '.join([*columns, LINE])} FROM lines ORDER BY {LINE}")
    connection.execute("DROP TABLE lines")
    loaded.quarantine.sort(key=lambda entry: int(entry["line"]))


def _decoded_batches(text: Text, loaded: Loaded) -> Iterator[tuple[int, list[str | None]]]:
    """(number of the first line, lines), None for a line that is set aside because it cannot be decoded."""
    first = 1
    with text.open() as file:
        while lines := list(islice(file, _BATCH)):
            batch: list[str | None] = list(lines)
            if text.damaged:
                for i, line in enumerate(lines):
                    if reason := undecodable(line):
                        loaded.reject(first + i, reason, line)
                        batch[i] = None
            yield first, batch
            first += len(lines)


def _member(key: str, kind: Any, wanted: Collection[str] | None) -> str:
    """SQL for one key's value: of its own type, or as it is written if it is `wanted` or has no one type."""
    pointer = literal("/" + key.replace("~", "~0").replace("/", "~1"))
    if kind in ("VARCHAR", "JSON", "NULL") or (wanted is not None and key in wanted and isinstance(kind, str)):
        return f"json_extract_string(value, {pointer})"
    return f"json_transform(json_extract(value, {pointer}), {literal(json.dumps(kind))})"


def _load_parquet(connection: duckdb.DuckDBPyConnection, path: Path, loaded: Loaded, reserved: set[str]) -> None:
    import duckdb

    reading = f"read_parquet({literal(_escape_glob(path))}, hive_partitioning=false, filename=false"
    try:
        names = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {reading})").fetchall()]
        loaded.columns = _distinct(names, reserved)
        columns = ", ".join(f"{quoted(name)} AS {quoted(new)}" for name, new in zip(names, loaded.columns, strict=True))
        connection.execute(
            f"CREATE TABLE {quoted(loaded.table)} AS SELECT {columns}, file_row_number + 1 AS {LINE} FROM {reading}, file_row_number=true)"
        )
    except (duckdb.InvalidInputException, duckdb.IOException, duckdb.SerializationException) as error:
        first = re.sub(r"\s+", " ", str(error).replace(str(path), loaded.name))[:300]
        raise DataError(f"{loaded.name}: not a Parquet file that can be read: {first}", "Write it again, or mend `format`.") from None


def _escape_glob(path: Path) -> str:
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def _scalar(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])
