"""Tokenize the splits: one memory-mappable Arrow file per split, and the tokenizer used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.errors import DataError, ParamsError, SourceError
from tasks.core.files import read_json
from tasks.core.foreign import foreign_file
from tasks.core.prefetch import map_ahead
from tasks.core.progress import Report, silent
from tasks.data.sources.base_models import positions_of
from tasks.data.sources.fetching import resolve_model
from tasks.data.tables.loaded import SPLITS
from tasks.data.tables.unlabelled_rows import UNLABELLED
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import TokensInfo, load_tokenizer
from tasks.params.schema import BaseModelParams, TokenizeParams
from tasks.problems import Problem, load_problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tasks.core.arrays import Features

BATCH_ROWS = 10_000  # rows in memory at a time


def tokenize_splits(
    splits: Path,
    tokens: Path,
    *,
    problem: str,
    labels: tuple[str, ...],
    base_model: BaseModelParams,
    tokenize: TokenizeParams,
    root: Path,
    cache: Path,
    report: Report,
) -> None:
    """Write tokens/{train,validation,test}.arrow, tokens/tokenizer/ and tokens/tokens.json.

    Columns: `row` (int64), `input_ids` (list of int32), `truncated` (bool), the references.
    unlabelled.arrow has no references; it is there if the splits hold unlabelled rows.
    Raises ParamsError if `max_length` exceeds what the model reads, SourceError for a tokenizer
    that does not fit the model.
    """
    base = resolve_model(base_model, root, cache)
    config = read_json(base / "config.json")
    _check_length(config, tokenize.max_length)
    pad_token_id = save_tokenizer(base, config, tokens / "tokenizer")
    problem_type = load_problem(problem)
    rows: dict[str, int] = {}
    truncated: dict[str, float] = {}
    total = sum(pq.read_metadata(splits / f"{split}.parquet").num_rows for split in SPLITS)
    for split in SPLITS:
        done = sum(rows.values())
        rows[split], cut = _tokenize(
            splits / f"{split}.parquet", tokens,
            problem_type, labels, tokenize.max_length, (done, total), report,
        )  # fmt: skip
        truncated[split] = cut / max(rows[split], 1)
    if (splits / UNLABELLED).is_file():
        _tokenize(
            splits / UNLABELLED, tokens,
            problem_type, None, tokenize.max_length, (total, total), silent,
        )  # fmt: skip
    TokensInfo(tokenize.max_length, pad_token_id, rows, truncated).write(tokens)


def _check_length(config: Mapping[str, Any], max_length: int) -> None:
    positions = positions_of(config)
    if positions is not None and max_length > positions:
        raise ParamsError(
            f"tokenize.max_length: {max_length} tokens; the base model reads at most {positions}.",
            f"Set tokenize.max_length to {positions} or less.",
        )


def save_tokenizer(base: Path, config: Mapping[str, Any], directory: Path) -> int:
    """Save the base model's fast tokenizer; returns its pad token id.

    Raises SourceError if there is no fast tokenizer, or it does not fit the model.
    """
    from transformers import AutoTokenizer

    what = f"{base}: its tokenizer.json or tokenizer_config.json cannot be read"
    with foreign_file(what, "Use a model as written by `save_pretrained`."):
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False, use_fast=True)
    if not tokenizer.is_fast:
        raise SourceError(
            f"{base.name}: has no fast tokenizer (tokenizer.json).",
            "Use a base model that has one.",
        )
    tokens, vocab_size = max(tokenizer.get_vocab().values()) + 1, config.get("vocab_size")
    if isinstance(vocab_size, int) and tokens > vocab_size:
        raise SourceError(
            f"{base.name}: its tokenizer has {tokens} tokens, its model knows {vocab_size}: "
            "they do not belong together.",
            "Put the tokenizer's files beside the model they were made for, "
            "or use another base model.",
        )
    tokenizer.save_pretrained(directory)
    return pad_token_id(tokenizer)


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id that pads batches: the pad token, else the end-of-text token, else 0."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(pad or 0)


def _tokenize(
    table: Path,
    tokens: Path,
    problem: Problem,
    labels: tuple[str, ...] | None,
    max_length: int,
    progress: tuple[int, int],
    report: Report,
) -> tuple[int, int]:
    """Tokenize one split batch by batch; (rows, truncated rows).

    labels  None: the rows have only their texts
    """
    tokenizer = load_tokenizer(tokens / "tokenizer", max_length)
    wanted = ["row", *problem.rows.text_columns]
    if labels is not None:
        wanted = ["row", *problem.rows.columns, *problem.rows.derived]

    def features(columns: dict[str, list[Any]]) -> Features:
        if labels is None:
            return problem.encoding.encode(tokenizer, columns)
        return encode_rows(problem.encoding, tokenizer, columns, labels)

    done, total = progress
    rows = cut = 0
    writer = None

    def encode(batch: pa.RecordBatch) -> pa.Table:
        columns = batch.to_pydict()
        arrow = pa.table({"row": columns.pop("row"), **features(columns)})
        position = arrow.column_names.index("input_ids")
        input_ids = arrow["input_ids"].cast(pa.list_(pa.int32()))
        return arrow.set_column(position, "input_ids", input_ids)

    batches = pq.ParquetFile(table).iter_batches(BATCH_ROWS, columns=wanted)
    with pa.OSFile(str(tokens / f"{table.stem}.arrow"), "wb") as file:
        # two batches at once take a fifth less time: one is tokenized on all cores while the
        # lists of the other become Arrow on one
        for arrow in map_ahead(encode, batches, 2):
            writer = writer or pa.ipc.new_file(file, arrow.schema)
            writer.write_table(arrow)
            rows += arrow.num_rows
            cut += pc.sum(arrow["truncated"]).as_py()
            report(done + rows, {"progress": (done + rows) / total})
        if writer is None:
            raise DataError(
                f"the {table.stem} split has no rows.",
                "Provide more rows, or raise that split's share.",
            )
        writer.close()
    return rows, cut
