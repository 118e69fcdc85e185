"""Load CSV, TSV, JSON, JSONL, Parquet and Excel files, zipped or not, into DuckDB tables.

Every record becomes a row, or is set aside with its line number and the reason.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError, ParamsError, SourceError
from tasks.data.tables.csv_files import load_csv
from tasks.data.tables.json_files import unfold_json
from tasks.data.tables.loaded import (
    BATCH,
    CONTENT,
    FILE,
    LINE,
    RAW,
    SPLIT,
    LoadedFile,
    escape_glob,
    insert,
    is_resource_error,
    literal,
    one_line,
    quoted,
    scalar,
)
from tasks.data.tables.sheets import unfold_sheet, unzip
from tasks.data.tables.text_files import Text, as_utf8, undecodable

if TYPE_CHECKING:
    import duckdb

    from tasks.params.ingestion import Source

log = logging.getLogger(__name__)

_ENDINGS = {
    "csv": "csv", "tsv": "tsv", "tab": "tsv", "parquet": "parquet", "pq": "parquet",
    "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl", "xlsx": "xlsx", "xlsm": "xlsx",
}  # fmt: skip
_SPREADSHEETS = ("xls", "xlsb", "ods", "numbers")
_CONLL = ("conll", "conllu", "iob", "iob2", "bio")


def format_of(source: Source, name: str) -> str:
    """File format: as set in params.yaml, else by the file's ending."""
    if source.format != "auto":
        return source.format
    ending = name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending in _CONLL:
        raise SourceError(
            f"{name}: CoNLL format, one word per line; wanted one sentence per row.",
            'Convert it to JSONL, such as {"tokens": ["Anna", "left"], "tags": ["B-PER", "O"]}, '
            "and name the file .jsonl.",
        )
    if ending in _SPREADSHEETS:
        raise SourceError(
            f"{name}: a spreadsheet in a format that is not read.", "Save it as .xlsx or .csv."
        )
    if ending not in _ENDINGS:
        raise SourceError(
            f"{name}: its ending does not tell its format.",
            f"{source.setting('format', 'csv')} (or tsv, json, jsonl, parquet, xlsx)",
        )
    return _ENDINGS[ending]


def load(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    loaded: LoadedFile,
    source: Source,
    wanted: Collection[str] | None,
    scratch: Path,
) -> None:
    """Fill the table `loaded.table` from the file.

    wanted    columns that will be read: their plain JSON values stay as written, not converted;
              None: all columns, converted, and JSON values of mixed types become text
    scratch   directory for working copies
    CSV and TSV values are always text ('01' stays '01'); JSONL and Parquet values are typed.
    """
    path, name = unzip(path, loaded.name, scratch / f"{loaded.table}.unzipped")
    file_format = format_of(source, name)
    _require_used(source, loaded.name, file_format)
    reserved = {FILE, LINE} | ({SPLIT} if source.split else set())
    unfolded = scratch / f"{loaded.table}.jsonl"
    if file_format == "parquet":
        _load_parquet(connection, path, loaded, reserved)
    elif file_format == "xlsx":
        text = unfold_sheet(path, loaded.name, source, unfolded)
        _load_jsonl(connection, text, loaded, source, wanted, reserved)
    else:
        text = as_utf8(path, loaded.name, source, scratch / f"{loaded.table}.txt")
        if file_format == "json" or (_ends_as_json(source, name) and _is_array(text)):
            text = Text(unfold_json(text, loaded.name, source, unfolded))
        if file_format in ("json", "jsonl"):
            _load_jsonl(connection, text, loaded, source, wanted, reserved)
        else:
            load_csv(connection, text, loaded, file_format, source, reserved)
    constants = f"{literal(loaded.name)} AS {FILE}"
    if source.split:
        constants += f", {literal(source.split)} AS {SPLIT}"
    table, rows = quoted(loaded.table), quoted(loaded.table + "_rows")
    connection.execute(f"ALTER TABLE {table} RENAME TO {rows}")
    connection.execute(f"CREATE VIEW {table} AS SELECT *, {constants} FROM {rows}")
    loaded.rows = scalar(connection, f"SELECT count(*) FROM {table}")
    log.debug("%s: %s, %d rows", loaded.name, file_format, loaded.rows)
    if loaded.quarantine and not loaded.rows:
        first = loaded.quarantine[0]
        raise DataError(
            f"{loaded.name}: none of its {len(loaded.quarantine)} records can be read; "
            f"line {first['line']}: {first['reason']}.",
            "Check its format, encoding, delimiter and quotes. For example: "
            f"{source.setting('encoding', 'cp1252')}",
        )


def _require_used(source: Source, name: str, file_format: str) -> None:
    """Raise ParamsError if an option of the source means nothing in a file of this format."""
    for option, formats in (("sheet", ("xlsx",)), ("delimiter", ("csv", "tsv"))):
        if getattr(source, option) is not None and file_format not in formats:
            option = source.name_of(option)
            raise ParamsError(
                f"{name}: is {file_format}, which has no {option}.", f"Leave out {option}."
            )


def _ends_as_json(source: Source, name: str) -> bool:
    return source.format == "auto" and name.lower().removesuffix(".gz").endswith(".json")


def _is_array(text: Text) -> bool:
    """Whether the text starts like a JSON array."""
    with text.open() as lines:
        return next((line for line in lines if line.strip()), "").lstrip().startswith("[")


def _load_jsonl(
    connection: duckdb.DuckDBPyConnection,
    text: Text,
    loaded: LoadedFile,
    source: Source,
    wanted: Collection[str] | None,
    reserved: set[str],
) -> None:
    import pyarrow as pa

    connection.execute(f"CREATE TEMP TABLE lines ({LINE} BIGINT, value VARCHAR)")
    for first, lines in _decoded_batches(text, loaded):
        numbers = pa.array(range(first, first + len(lines)), pa.int64())
        arrays = [numbers, pa.array(lines, pa.string())]
        insert(connection, "lines", pa.Table.from_arrays(arrays, [LINE, "value"]))
    # NULL: the line was undecodable and is set aside already
    connection.execute("DELETE FROM lines WHERE value IS NULL OR trim(value, e' \\t\\r\\n') = ''")
    is_object = (
        "json_valid(value) AND json_type(CASE WHEN json_valid(value) THEN value END) = 'OBJECT'"
    )
    bad = connection.execute(
        f"SELECT {LINE}, value[:{CONTENT}], json_valid(value), (SELECT min({LINE}) FROM lines) "
        f"FROM lines WHERE NOT ({is_object}) ORDER BY {LINE}"
    ).fetchall()
    if bad and bad[0][0] == bad[0][3] and bad[0][1].lstrip().startswith("["):
        if bad[0][2] and len(bad) > 1:
            raise DataError(
                f"{loaded.name}: its lines are JSON arrays; wanted one object per line.",
                'Convert them, for example to {"text": ..., "label": ...}.',
            )
        raise DataError(
            f"{loaded.name}: a JSON array; wanted JSONL, one object per line.",
            source.setting("format", "json"),
        )
    for line, value, valid, _ in bad:
        loaded.reject(line, "not a JSON object" if valid else "not valid JSON", value)
    connection.execute(f"DELETE FROM lines WHERE NOT ({is_object})")
    _reject_repeated_keys(connection, loaded)
    structure = connection.execute("SELECT json_group_structure(value::JSON) FROM lines").fetchone()
    keys: dict[str, Any] = json.loads(structure[0]) if structure and structure[0] else {}
    if not keys and not bad:
        raise DataError(
            f"{loaded.name}: empty; wanted one JSON object per line.", "Give a file with rows."
        )
    loaded.name_columns(list(keys), reserved)
    loaded.mixed = [
        name
        for json_type, name in zip(keys.values(), loaded.columns, strict=True)
        if wanted is None and json_type == "JSON"
    ]
    columns = [
        f"{_member(key, json_type, wanted)} AS {quoted(name)}"
        for (key, json_type), name in zip(keys.items(), loaded.columns, strict=True)
    ]
    columns += [LINE, *([f"value AS {RAW}"] if loaded.keep_raw else [])]
    connection.execute(
        f"CREATE TABLE {quoted(loaded.table)} AS "
        f"SELECT {', '.join(columns)} FROM lines ORDER BY {LINE}"
    )
    connection.execute("DROP TABLE lines")
    loaded.quarantine.sort(key=lambda entry: int(entry["line"]))


def _reject_repeated_keys(connection: duckdb.DuckDBPyConnection, loaded: LoadedFile) -> None:
    """Set aside objects with two values for one key: readers disagree on which one counts."""
    found = connection.execute(
        f"SELECT {LINE}, value[:{CONTENT}] FROM "
        f"(SELECT {LINE}, value, json_keys(value) AS keys FROM lines) "
        f"WHERE list_unique(keys) < len(keys)"
    ).fetchall()
    for line, value in found:
        loaded.reject(line, "a key is there twice", value)
    if found:
        lines = [line for line, _ in found]
        connection.execute(
            f"DELETE FROM lines WHERE list_contains($lines, {LINE})", {"lines": lines}
        )


def _decoded_batches(text: Text, loaded: LoadedFile) -> Iterator[tuple[int, list[str | None]]]:
    """(number of the first line, lines); an undecodable line is set aside and becomes None."""
    first = 1
    with text.open() as file:
        while lines := list(islice(file, BATCH)):
            batch: list[str | None] = list(lines)
            if text.damaged:
                for i, line in enumerate(lines):
                    if reason := undecodable(line):
                        loaded.reject(first + i, reason, line)
                        batch[i] = None
            yield first, batch
            first += len(lines)


def _member(key: str, json_type: object, wanted: Collection[str] | None) -> str:
    """SQL of one key's value, converted to its type; see `load` for `wanted`."""
    pointer = literal("/" + key.replace("~", "~0").replace("/", "~1"))
    if json_type in ("VARCHAR", "NULL") or (wanted is None and json_type == "JSON"):
        return f"json_extract_string(value, {pointer})"
    if wanted is not None and key in wanted and isinstance(json_type, str):
        return f"json_extract(value, {pointer})"
    return f"json_transform(json_extract(value, {pointer}), {literal(json.dumps(json_type))})"


def _load_parquet(
    connection: duckdb.DuckDBPyConnection, path: Path, loaded: LoadedFile, reserved: set[str]
) -> None:
    import duckdb

    reading = f"read_parquet({literal(escape_glob(path))}, hive_partitioning=false, filename=false"
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {reading})").fetchall()
        names = [row[0] for row in described]
        loaded.name_columns(names, reserved)
        columns = ", ".join(
            f"{quoted(name)} AS {quoted(new)}"
            for name, new in zip(names, loaded.columns, strict=True)
        )
        connection.execute(
            f"CREATE TABLE {quoted(loaded.table)} AS SELECT {columns}, "
            f"file_row_number + 1 AS {LINE} FROM {reading}, file_row_number=true)"
        )
    except duckdb.Error as error:
        if is_resource_error(error):
            raise
        reason = one_line(error).replace(str(path), loaded.name)
        raise DataError(
            f"{loaded.name}: not a readable Parquet file: {reason}",
            "Write it again, or correct `format`.",
        ) from None
