"""Sources to one table, with what could not be read beside it, and where it all came from.

rows.parquet       row (int64, from 0), the problem's columns, kept columns, `_file` and `_line` (where the record starts, from 1), and
                   `split` where the sources name splits
quarantine.jsonl   file, line, reason, content (cut); records read = rows + quarantined, unless `ingest.query` itself selects or joins
account.json       the same in numbers, with the reasons (see core/losses.py), and how many rows were mended (see core/mending.py)
"""

from __future__ import annotations

import errno
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core import queries, tables
from tasks.core.errors import DataError, ParamsError, StorageError, did_you_mean
from tasks.core.files import atomic_path, sha256_file, write_json, write_jsonl
from tasks.core.loaded import FILE, LINE, SPLIT, SPLITS, Loaded, converted, is_nested, no_fault_of_data, one_line, quoted
from tasks.core.losses import Account, Loss, Losses
from tasks.core.mending import Mender
from tasks.core.params import IngestParams, Source
from tasks.core.progress import Report
from tasks.core.row_store import ROW_GROUP
from tasks.core.sources import LocalFile, fetch, public_address
from tasks.problems import load_problem

MEMORY = "512MB"  # enough to copy columns; what a user's own query needs, only DuckDB can tell

if TYPE_CHECKING:
    import duckdb

    from tasks.problems.base import Problem


def ingest_sources(raw: Path, *, problem: str, ingest: IngestParams, root: Path, cache: Path, report: Report) -> None:
    """Fetch the sources and write the directory `raw`; then DataError if more records are set aside than `ingest` allows.

    root    the workspace, which local addresses are relative to
    cache   where downloads are kept
    """
    account = read_sources(raw, problem=problem, ingest=ingest, root=root, cache=cache, report=report)
    if account.warning and ingest.on_too_many == "error":
        allowed = math.ceil(account.set_aside / account.records * 10_000) / 10_000
        raise DataError(
            "\n".join(["ingest: too many records cannot be read.", *account.lines()]),
            f"Mend the lines named; all of them are in {raw / 'quarantine.jsonl'}, with the reasons. To train without them: "
            f"`ratchet train -S ingest.max_quarantined_share={allowed:g}`",
        )


def read_sources(raw: Path, *, problem: str, ingest: IngestParams, root: Path, cache: Path, report: Report) -> Account:
    """The same however many records are set aside; the account says whether that is too many."""
    kind = load_problem(problem)
    fetched = [fetch(source, root, cache, report) for source in ingest.sources]
    if not ingest.query:
        with suppress(StorageError):  # records may be so large that it takes more
            return _ingest(raw, kind, ingest, fetched, MEMORY, report)
    return _ingest(raw, kind, ingest, fetched, None, report)


def _ingest(
    raw: Path, kind: Problem, ingest: IngestParams, fetched: Sequence[Sequence[LocalFile]], memory: str | None, report: Report
) -> Account:
    names = _distinct_names(ingest.sources, fetched)
    wanted = None if ingest.query else {*_mapping(kind, ingest).values()}
    with atomic_path(raw) as new, _database(raw.parent, memory) as (connection, scratch):
        new.mkdir()
        loaded: list[list[Loaded]] = []
        for i, (source, files) in enumerate(zip(ingest.sources, fetched, strict=True)):
            loaded.append([])
            for j, file in enumerate(files):
                loaded[i].append(Loaded(f"_source{i}_{j}", names[i][j]))
                tables.load(connection, file.path, loaded[i][j], source, wanted, scratch)
            report(i + 1, {"progress": (i + 1) / (len(fetched) + 1), "rows": sum(one.rows for some in loaded for one in some)})
        quarantine = _map(connection, kind, ingest, loaded)
        losses = Losses("ingest")
        write_jsonl(new / "quarantine.jsonl", losses.watch(quarantine))
        records = sum(one.rows + len(one.quarantine) for some in loaded for one in some)
        account = Account(records, records, tuple(losses.found()))
        rows, mended = _write_rows(connection, _converted(connection, kind, ingest), new / "rows.parquet", account)
        account = _judge(replace(account, held=rows + len(quarantine), mended=mended), ingest)
        account.write(new)
        write_json(new / "sources.json", {"rows": rows, "sources": _provenance(ingest.sources, fetched, loaded, quarantine)})
    report(len(fetched) + 1, {"progress": 1.0, "rows": rows, "quarantined": len(quarantine)})
    return account


def _judge(account: Account, ingest: IngestParams) -> Account:
    """The account with a warning where more records are set aside than may be."""
    share, most = account.set_aside / max(1, account.records), ingest.max_quarantined_share
    if share <= most:
        return account
    words = f"{account.set_aside} of {account.records} records are {share:.2%}; ingest.max_quarantined_share allows {most:.2%}"
    return replace(account, warning=words)


@contextmanager
def _database(place: Path, memory: str | None) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A DuckDB database on disk, so that data may be larger than memory, and a directory; both gone afterwards.

    memory   what the database may take before it writes to disk; None: nearly all that there is
    """
    import duckdb

    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".ingest.", dir=place) as directory:
        # extensions would be fetched from the network
        config: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "true",
        }
        if memory:
            config["memory_limit"] = memory
        connection = duckdb.connect(str(Path(directory) / "rows.duckdb"), config=config)
        try:
            connection.execute("SET enable_progress_bar=false")
            yield connection, Path(directory)
        except duckdb.Error as error:
            if not no_fault_of_data(error):
                raise
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, "No space left on device", str(place)) from None
            raise StorageError(f"ingest: {one_line(error)}", "Use a machine with more memory, or fewer sources at once.") from None
        finally:
            connection.close()


def _distinct_names(sources: Sequence[Source], fetched: Sequence[Sequence[LocalFile]]) -> list[list[str]]:
    """What each file is called in `_file` and in messages; two of one name are told apart by their addresses."""
    every = [file.name for files in fetched for file in files]
    return [
        [file.name if every.count(file.name) == 1 else f"{public_address(source.url)}#{file.name}" for file in files]
        for source, files in zip(sources, fetched, strict=True)
    ]


def _mapping(problem: Problem, ingest: IngestParams) -> dict[str, str]:
    """Column of the result -> the sources' column."""
    known = [*problem.columns, *problem.replaceable]
    unknown = [f"'{name}'.{did_you_mean(name, known)}" for name in ingest.columns if name not in known]
    if unknown:
        raise ParamsError(
            f"ingest.columns: {problem.name} has no column {' and no '.join(unknown)}",
            f"Its columns are {', '.join(known)}; further ones to keep go into `ingest.keep`.",
        )
    mapping = {name: ingest.columns.get(name, name) for name in problem.columns}
    mapping |= {name: column for name, column in ingest.columns.items() if name in problem.replaceable}
    for name in ingest.keep:
        if name == "row" or mapping.get(name, name) != name:
            raise ParamsError(f"ingest.keep: the name '{name}' is taken by another column.", "Rename it with `ingest.query`: SELECT … AS …")
        mapping[name] = name
    return {name: column for name, column in mapping.items() if name not in (FILE, LINE)}


def _map(
    connection: duckdb.DuckDBPyConnection, problem: Problem, ingest: IngestParams, loaded: Sequence[Sequence[Loaded]]
) -> list[dict[str, Any]]:
    """Make the table `result` with the query, or a view of that name; returns the quarantine, in the order of the sources."""
    quarantine = [entry for some in loaded for one in some for entry in one.quarantine]
    if ingest.query:
        queries.confine(connection)
        stacks: dict[str, list[str]] = {}
        for source, some in zip(ingest.sources, loaded, strict=True):
            stacks.setdefault(source.table, []).extend(one.table for one in some)
        for name, members in stacks.items():
            queries.stack(connection, name, members)
        for culprit in queries.run(connection, ingest.query, list(stacks)):
            row = {name: value for name, value in culprit["row"].items() if name != "_number"}
            content = " | ".join(str(value) for name, value in row.items() if name not in (FILE, LINE, SPLIT))
            quarantine.append({"file": row[FILE], "line": row[LINE], "reason": culprit["reason"], "content": content[:200]})
    else:
        mapping = _mapping(problem, ingest)
        _require_columns(mapping, loaded)
        queries.stack(connection, "data", [one.table for some in loaded for one in some])
        columns = ", ".join(f"{quoted(column)} AS {quoted(name)}" for name, column in mapping.items())
        split = f", {SPLIT}" if ingest.sources[0].split else ""
        connection.execute(f"CREATE VIEW {queries.RESULT} AS SELECT {columns}, {FILE}, {LINE}{split} FROM data")
    return quarantine


def _require_columns(mapping: dict[str, str], loaded: Sequence[Sequence[Loaded]]) -> None:
    problems = []
    for one in (one for some in loaded for one in some):
        missing = [
            f"'{column}'.{did_you_mean(column, one.columns)}" for column in dict.fromkeys(mapping.values()) if column not in one.columns
        ]
        if missing:
            found = ", ".join(f"'{column}'" for column in one.columns[:30])
            problems.append(f"{one.name}: there is no column {' and no '.join(missing)} Its {len(one.columns)} columns are {found}.")
    if problems:
        raise DataError(
            "\n".join(problems), "Name the columns in params.yaml, for example `ingest.columns: {text: sentence}`; or check `format`."
        )


def _converted(connection: duckdb.DuckDBPyConnection, problem: Problem, ingest: IngestParams) -> str:
    """SQL of the result with the problem's types and with the columns that the problem derives, once it was checked."""
    types = {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE {queries.RESULT}").fetchall()}
    missing = [name for name in problem.columns if name not in types]
    if missing:
        raise ParamsError(
            f"ingest.query: it returns {', '.join(types)}; {problem.name} also wants {', '.join(missing)}.",
            "Name it in the query: SELECT … AS …",
        )
    if "row" in types:
        raise ParamsError("ingest.query: the name 'row' is taken by the row's number.", "Rename that column: SELECT … AS …")
    if ingest.sources[0].split and SPLIT not in types:
        raise ParamsError("ingest.query: the sources name splits, but it does not return `split`.", "Add the column `split` to the SELECT.")
    if SPLIT in types:
        found = [row[0] for row in connection.execute(f"SELECT DISTINCT {SPLIT} FROM {queries.RESULT} ORDER BY 1").fetchall()]
        if unknown := [value for value in found if value not in SPLITS]:
            raise DataError(
                f"column `split`: wanted {', '.join(SPLITS)}, found {unknown[:5]}.", "Rename the values or the column in `ingest.query`."
            )
    if taken := [name for name in problem.derived if name in types and name not in problem.replaceable]:
        raise ParamsError(f"ingest: {problem.name} makes the column '{taken[0]}' itself.", "Leave it out, or rename it: SELECT … AS …")
    values = {name: quoted(name) for name in types}
    for name in (*problem.columns, *(name for name in problem.replaceable if name in types)):
        wanted = problem.types.get(name, "VARCHAR")
        if is_nested(types[name]) and not is_nested(wanted):
            raise DataError(
                f"column '{name}': wanted text, found {types[name]}.", "Name another column, or make text of it in `ingest.query`."
            )
        # what cannot be converted becomes NULL, which validation sets aside
        text = problem.from_text.get(name) if types[name] == "VARCHAR" else None
        values[name] = f"TRY_CAST({text} AS {wanted})" if text else converted(name, types[name], wanted)
    if LINE in types:
        values[LINE] = f"{LINE}::BIGINT"
    columns = ", ".join(f"{value} AS {quoted(name)}" for name, value in values.items())
    derived = "".join(
        f", ({expression})::{problem.types.get(name, 'VARCHAR')} AS {quoted(name)}"
        for name, expression in problem.derived.items()
        if name not in types
    )
    return f"SELECT *{derived} FROM (SELECT {columns} FROM {queries.RESULT})"


def _write_rows(connection: duckdb.DuckDBPyConnection, query: str, path: Path, account: Account) -> tuple[int, Loss | None]:
    """Write what the query returns, in its order, texts mended, with row numbers; returns how many rows there are, and those mended.

    account  of the records, should there be no row
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # DuckDB keeps the order of what it reads (preserve_insertion_order)
    reader = connection.sql(query).to_arrow_reader(ROW_GROUP)
    schema = reader.schema.insert(0, pa.field("row", pa.int64()))
    count, mender = 0, Mender((FILE, SPLIT))
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in reader:
            numbers = pa.array(range(count, count + batch.num_rows), pa.int64())
            count += batch.num_rows
            writer.write_table(pa.Table.from_arrays([numbers, *mender.mend(batch).columns], schema=schema))
    if not count:
        raise DataError(
            account.before("ingest: the sources hold no rows."), "Give files with rows below the header, or check `ingest.query`."
        )
    return count, mender.mended


def _provenance(
    sources: Sequence[Source], fetched: Sequence[Sequence[LocalFile]], loaded: Sequence[Sequence[Loaded]], quarantine: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    entries = []
    for source, files, some in zip(sources, fetched, loaded, strict=True):
        described = []
        for file, one in zip(files, some, strict=True):
            set_aside = sum(entry["file"] == one.name for entry in quarantine)
            described.append({
                "name": one.name, "sha256": sha256_file(file.path), "bytes": file.path.stat().st_size,
                "records": one.rows + len(one.quarantine), "quarantined": set_aside,
            })  # fmt: skip
        entries.append({"url": public_address(source.url), "split": source.split, "files": described})
    return entries
