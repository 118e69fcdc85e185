"""The tokenized data set as it lies on disk: one Arrow file a split, the tokenizer, and tokens.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.core.files import read_json, write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_FILES = "ratchet_files"
Files = Callable[
    [str], bytes | None
]  # a file's bytes by its name; None where there is no such file


@dataclass(frozen=True)
class TokensInfo:
    """What tokens.json says.

    max_length    tokens; longer texts were cut
    pad_token_id  what batches are padded with
    rows          rows of each split
    truncated     share of rows of each split that were cut
    """

    max_length: int
    pad_token_id: int
    rows: Mapping[str, int]
    truncated: Mapping[str, float]

    @classmethod
    def read(cls, tokens: Path) -> TokensInfo:
        """Of the directory `tokens`."""
        return cls(**read_json(tokens / "tokens.json"))

    def write(self, tokens: Path) -> None:
        """Into the directory `tokens`."""
        write_json(tokens / "tokens.json", asdict(self))


def read_tokens(path: Path) -> pa.Table:
    """One split, memory-mapped: nothing is read until it is used."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def take(table: pa.Table, rows: Sequence[int] | npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    """Features of some rows, in the order asked for."""
    features: dict[str, list[Any]] = table.take(pa.array(rows, pa.int64())).to_pydict()
    return features


def read_features(path: Path) -> dict[str, list[Any]]:
    """All features of one split; for splits that are small, as held-out ones are."""
    features: dict[str, list[Any]] = read_tokens(path).to_pydict()
    return features


def token_lengths(table: pa.Table) -> npt.NDArray[np.int64]:
    """Tokens of each row, (rows,)."""
    import pyarrow.compute as pc

    lengths: npt.NDArray[np.int64] = (
        pc.list_value_length(table["input_ids"]).to_numpy().astype(np.int64)
    )
    return lengths


def load_tokenizer(source: Path | Files, max_length: int | None = None) -> Tokenizer:
    """The fast tokenizer of a Hugging Face directory, which cuts at `max_length` tokens and does not pad."""
    from tokenizers import Tokenizer

    files = files_in(source) if isinstance(source, Path) else source
    tokenizer = Tokenizer.from_buffer(files("tokenizer.json") or b"")
    setattr(tokenizer, _FILES, files)
    tokenizer.no_padding()
    if max_length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_length)
    return tokenizer


def files_in(directory: Path) -> Files:
    """Those of a directory."""

    def read(name: str) -> bytes | None:
        try:
            return (directory / name).read_bytes()
        except FileNotFoundError:
            return None

    return read


def files_of(tokenizer: Tokenizer) -> Files:
    """Where `load_tokenizer` had it from: what a tokenizer's own file does not say, such as its chat template, lies there."""
    files: Files = getattr(tokenizer, _FILES)
    return files
