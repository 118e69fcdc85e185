"""Read the sources into one table; quarantine unreadable records; record the provenance.

rows.parquet       row (int64, from 0), the problem's columns, kept columns, `_file` and `_line`
                   (where the record starts, from 1), and `split` where the sources name splits
quarantine.jsonl   file, line, reason, content (cut); records read = rows + quarantined, unless
                   `ingest.query` itself selects or joins
account.json       the counts, with reasons (data/quality/row_account.py), and the number of rows
                   mended (data/tables/mending.py)
sources.json       address, files, hashes and counts of every source
unlabelled.parquet see data/tables/unlabelled_rows.py; only if `ingest.unlabelled` names sources
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

from tasks.core.addresses import LocalFile, public_address
from tasks.core.errors import DataError, StorageError
from tasks.core.files import atomic_path, sha256_file, write_json, write_jsonl
from tasks.core.progress import Report
from tasks.data.quality.row_account import Account, Loss, Losses
from tasks.data.sources.fetching import fetch
from tasks.data.tables import loading as tables
from tasks.data.tables import queries
from tasks.data.tables.foreign_values import register
from tasks.data.tables.loaded import (
    CONTENT,
    FILE,
    LINE,
    SPLIT,
    LoadedFile,
    is_resource_error,
    one_line,
)
from tasks.data.tables.mending import Mender
from tasks.data.tables.problem_rows import (
    ORIGINAL,
    PROBLEM,
    column_mapping,
    rows_of_columns,
    rows_of_result,
)
from tasks.data.tables.row_store import ROW_GROUP
from tasks.data.tables.source_columns import roots
from tasks.data.tables.span_borders import SpanBorders
from tasks.data.tables.unlabelled_rows import write_unlabelled
from tasks.params.ingestion import IngestParams, Source
from tasks.problems import load_problem

MEMORY = "512MB"  # enough to copy columns; only DuckDB knows what a user's own query needs

if TYPE_CHECKING:
    import duckdb

    from tasks.problems import Problem


def ingest_sources(
    raw: Path, *, problem: str, ingest: IngestParams, root: Path, cache: Path, report: Report
) -> None:
    """Fetch the sources and write the directory `raw`.

    root    the workspace; local addresses are relative to it
    cache   directory of downloads
    Raises DataError, after writing, if more records are quarantined than `ingest` allows.
    """
    account = read_sources(
        raw, problem=problem, ingest=ingest, root=root, cache=cache, report=report
    )
    if account.warning and ingest.on_too_many == "error":
        allowed = math.ceil(account.set_aside / account.records * 10_000) / 10_000
        raise DataError(
            "\n".join(["ingest: too many records cannot be read.", *account.lines()]),
            f"Fix the lines named; {raw / 'quarantine.jsonl'} lists all of them with the reasons. "
            f"To train without them: `ratchet train -S ingest.max_quarantined_share={allowed:g}`",
        )


def read_sources(
    raw: Path, *, problem: str, ingest: IngestParams, root: Path, cache: Path, report: Report
) -> Account:
    """Like ingest_sources, but too many quarantined records are only a warning in the account."""
    problem_type = load_problem(problem)
    fetched = [fetch(source, root, cache, report) for source in ingest.sources]
    unlabelled = [fetch(source, root, cache, report) for source in ingest.unlabelled]
    if not ingest.query:
        with suppress(StorageError):  # very large records need more memory
            return _ingest(raw, problem_type, ingest, fetched, unlabelled, MEMORY, report)
    return _ingest(raw, problem_type, ingest, fetched, unlabelled, None, report)


def _ingest(
    raw: Path,
    problem: Problem,
    ingest: IngestParams,
    fetched: Sequence[Sequence[LocalFile]],
    unlabelled: Sequence[Sequence[LocalFile]],
    memory: str | None,
    report: Report,
) -> Account:
    names = _distinct_names(ingest.sources, fetched)
    mapping = {} if ingest.query else column_mapping(problem.rows, ingest)
    mapped = (column for columns in mapping.values() for column in columns)
    wanted = None if ingest.query else {name for column in mapped for name in roots(column)}
    with atomic_path(raw) as new, _database(raw.parent, memory) as (connection, scratch, spans):
        new.mkdir()
        loaded: list[list[LoadedFile]] = []
        for i, (source, files) in enumerate(zip(ingest.sources, fetched, strict=True)):
            loaded.append([])
            for j, file in enumerate(files):
                loaded[i].append(LoadedFile(f"_source{i}_{j}", names[i][j]))
                tables.load(connection, file.path, loaded[i][j], source, wanted, scratch)
            rows_so_far = sum(table.rows for of_source in loaded for table in of_source)
            report(i + 1, {"progress": (i + 1) / (len(fetched) + 1), "rows": rows_so_far})
        loaded_tables = [table for of_source in loaded for table in of_source]
        quarantine = [entry for table in loaded_tables for entry in table.quarantine]
        if ingest.query:
            quarantine += _query(connection, ingest, loaded)
            query = rows_of_result(connection, problem.rows, ingest, loaded)
        else:
            query = rows_of_columns(connection, problem.rows, ingest, mapping, loaded)
        rows, mended, set_aside = _write_rows(connection, query, new / "rows.parquet")
        spans.require_words()
        quarantine += set_aside
        losses = Losses("ingest")
        write_jsonl(new / "quarantine.jsonl", losses.watch(quarantine))
        records = sum(table.rows + len(table.quarantine) for table in loaded_tables)
        account = Account(records, rows + len(quarantine), tuple(losses.found()), mended)
        if not rows:
            failure = "no row is left" if set_aside else "the sources hold no rows"
            raise DataError(
                account.before(f"ingest: {failure}."),
                "Provide files with rows below the header, "
                "or check `ingest.columns` and `ingest.query`.",
            )
        account = _judge(account, ingest)
        account.write(new)
        provenance = _provenance(ingest.sources, fetched, loaded, quarantine)
        described: dict[str, Any] = {"rows": rows, "sources": provenance}
        if ingest.unlabelled:
            write_unlabelled(new, problem.rows, ingest.unlabelled, unlabelled, mapping)
            described["unlabelled"] = _files(ingest.unlabelled, unlabelled)
        write_json(new / "sources.json", described)
    report(len(fetched) + 1, {"progress": 1.0, "rows": rows, "quarantined": len(quarantine)})
    return account


def _judge(account: Account, ingest: IngestParams) -> Account:
    """The account, with a warning if more records are quarantined than allowed."""
    share, most = account.set_aside / max(1, account.records), ingest.max_quarantined_share
    if share <= most:
        return account
    warning = (
        f"{account.set_aside} of {account.records} records are {share:.2%}; "
        f"ingest.max_quarantined_share allows {most:.2%}"
    )
    return replace(account, warning=warning)


@contextmanager
def _database(
    parent: Path, memory: str | None
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path, SpanBorders]]:
    """Temporary DuckDB database and a scratch directory, both below `parent`; spans' borders.

    It lies on disk, so that data may be larger than memory.
    memory   DuckDB's limit, above which it spills to disk; None: nearly all of the machine's
    """
    import duckdb

    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".ingest.", dir=parent) as directory:
        # otherwise DuckDB would download extensions
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
            yield connection, Path(directory), register(connection)
        except duckdb.Error as error:
            if not is_resource_error(error):
                raise
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, "No space left on device", str(parent)) from None
            raise StorageError(
                f"ingest: {one_line(error)}",
                "Use a machine with more memory, or fewer sources at once.",
            ) from None
        finally:
            connection.close()


def _distinct_names(
    sources: Sequence[Source], fetched: Sequence[Sequence[LocalFile]]
) -> list[list[str]]:
    """File names for `_file` and messages; files that share a name get their address in front."""
    all_names = [file.name for files in fetched for file in files]
    return [
        [
            file.name
            if all_names.count(file.name) == 1
            else f"{public_address(source.url)}#{file.name}"
            for file in files
        ]
        for source, files in zip(sources, fetched, strict=True)
    ]


def _query(
    connection: duckdb.DuckDBPyConnection,
    ingest: IngestParams,
    loaded: Sequence[Sequence[LoadedFile]],
) -> list[dict[str, Any]]:
    """Run the query into the table `result`; quarantine entries of the rows that it failed on."""
    queries.confine(connection)
    stacks: dict[str, list[str]] = {}
    for source, of_source in zip(ingest.sources, loaded, strict=True):
        stacks.setdefault(source.table, []).extend(entry.table for entry in of_source)
    for name, members in stacks.items():
        queries.stack(connection, name, members)
    quarantine = []
    for failed in queries.run(connection, ingest.query or "", list(stacks)):
        row = {name: value for name, value in failed["row"].items() if name != "_number"}
        content = " | ".join(
            str(value) for name, value in row.items() if name not in (FILE, LINE, SPLIT)
        )
        quarantine.append({
            "file": row[FILE], "line": row[LINE],
            "reason": failed["reason"], "content": content[:CONTENT],
        })  # fmt: skip
    return quarantine


def _write_rows(
    connection: duckdb.DuckDBPyConnection, query: str, path: Path
) -> tuple[int, Loss | None, list[dict[str, Any]]]:
    """Write the usable rows in the query's order, texts mended, with row numbers.

    Returns the number of rows, the account of mended ones, and quarantine entries of the unusable.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    # DuckDB keeps the order of what it reads (preserve_insertion_order)
    reader = connection.sql(query).to_arrow_reader(ROW_GROUP)
    names = [name for name in reader.schema.names if name not in (PROBLEM, ORIGINAL)]
    schema = pa.schema(
        [pa.field("row", pa.int64()), *(reader.schema.field(name) for name in names)]
    )
    count, mender, set_aside = 0, Mender((FILE, SPLIT)), []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in reader:
            good = batch
            if batch[PROBLEM].null_count < batch.num_rows:
                for row in batch.filter(pc.is_valid(batch[PROBLEM])).to_pylist():
                    set_aside.append({
                        "file": row.get(FILE), "line": row.get(LINE),
                        "reason": row[PROBLEM], "content": row[ORIGINAL],
                    })  # fmt: skip
                good = batch.filter(pc.is_null(batch[PROBLEM]))
            numbers = pa.array(range(count, count + good.num_rows), pa.int64())
            count += good.num_rows
            columns = [numbers, *mender.mend(good.select(names)).columns]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return count, mender.mended, set_aside


def _files(
    sources: Sequence[Source], fetched: Sequence[Sequence[LocalFile]]
) -> list[dict[str, Any]]:
    """Address, and name and hash of each file, of sources of unlabelled rows."""
    return [
        {
            "url": public_address(source.url),
            "files": [{"name": file.name, "sha256": sha256_file(file.path)} for file in files],
        }
        for source, files in zip(sources, fetched, strict=True)
    ]


def _provenance(
    sources: Sequence[Source],
    fetched: Sequence[Sequence[LocalFile]],
    loaded: Sequence[Sequence[LoadedFile]],
    quarantine: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    entries = []
    for source, files, of_source in zip(sources, fetched, loaded, strict=True):
        described = []
        for file, table in zip(files, of_source, strict=True):
            set_aside = sum(entry["file"] == table.name for entry in quarantine)
            described.append({
                "name": table.name,
                "sha256": sha256_file(file.path), "bytes": file.path.stat().st_size,
                "records": table.rows + len(table.quarantine), "quarantined": set_aside,
            })  # fmt: skip
        entries.append(
            {"url": public_address(source.url), "split": source.split, "files": described}
        )
    return entries
