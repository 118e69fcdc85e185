"""The tokenized data set on disk: one Arrow file per split, the tokenizer, and tokens.json."""

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

UNLABELLED_TOKENS = "unlabelled.arrow"
_FILES = "ratchet_files"
Files = Callable[[str], bytes | None]  # a file's bytes by its name; None if it does not exist


@dataclass(frozen=True)
class TokensInfo:
    """The contents of tokens.json.

    max_length    in tokens; longer texts were cut
    pad_token_id  padding for batches
    rows          rows of each split
    truncated     share of each split's rows that were cut
    """

    max_length: int
    pad_token_id: int
    rows: Mapping[str, int]
    truncated: Mapping[str, float]

    @classmethod
    def read(cls, tokens: Path) -> TokensInfo:
        """Read tokens.json in the directory `tokens`."""
        return cls(**read_json(tokens / "tokens.json"))

    def write(self, tokens: Path) -> None:
        """Write tokens.json into the directory `tokens`."""
        write_json(tokens / "tokens.json", asdict(self))


def read_tokens(path: Path) -> pa.Table:
    """One split, memory-mapped: rows are read on access."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def take(table: pa.Table, rows: Sequence[int] | npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    """Features of the given rows, in that order."""
    features: dict[str, list[Any]] = table.take(pa.array(rows, pa.int64())).to_pydict()
    return features


def read_features(path: Path) -> dict[str, list[Any]]:
    """All features of one split, in memory; for small splits, such as held-out ones."""
    features: dict[str, list[Any]] = read_tokens(path).to_pydict()
    return features


def token_lengths(table: pa.Table) -> npt.NDArray[np.int64]:
    """Number of tokens in each row, (rows,)."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(table["input_ids"]).to_numpy()
    return np.asarray(lengths, np.int64)


def load_tokenizer(source: Path | Files, max_length: int | None = None) -> Tokenizer:
    """The fast tokenizer of a Hugging Face directory; truncates to `max_length`, never pads."""
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
    """Reader of a directory's files."""

    def read(name: str) -> bytes | None:
        try:
            return (directory / name).read_bytes()
        except FileNotFoundError:
            return None

    return read


def files_of(tokenizer: Tokenizer) -> Files:
    """The files that `load_tokenizer` read from; they hold what tokenizer.json lacks, such as the
    chat template.
    """
    files: Files = getattr(tokenizer, _FILES)
    return files
