"""Recognises splits by file name: train.csv, dev.csv, train-00000-of-00003.parquet, test/0.csv."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import takewhile
from operator import and_
from pathlib import Path, PurePosixPath

from tasks.core.errors import DataError, ParamsError
from tasks.data.tables.loaded import SPLITS

ENDINGS = (
    *(".csv", ".tsv", ".tab", ".jsonl", ".json", ".ndjson", ".parquet", ".pq", ".xlsx"),
    *(".csv.zip", ".tsv.zip", ".jsonl.zip", ".json.zip"),
)
_NAMES = {
    "train": ("train", "training", "trn"),
    "validation": ("dev", "devel", "development", "val", "valid", "validate", "validation", "vld"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout"),
}
SPLIT_WORDS = {
    f"{word}{end}": split
    for split, words in _NAMES.items()
    for word in words
    for end in ("", "s", "set", "sets", "data")
}
_ALL = "one file, a directory, or three files: --train FILE --validation FILE --test FILE"

Splits = Mapping[str, Sequence[str]]  # the addresses of each split


def split_of(address: str, common: Counter[str] | None = None) -> str | None:
    """The split named by the file's name, or else by its nearest folder named after a split.

    common  words that all file names share: ignored if a name has words of several splits
    Returns None if nothing names a split, or if the name names several.
    """
    path = _path(address)
    words = _words(path)
    matches = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    if len(matches) > 1 and common:
        matches = {SPLIT_WORDS[word] for word in words - common if word in SPLIT_WORDS}
    if matches:
        return matches.pop() if len(matches) == 1 else None
    folder = _split_folder(path)
    return SPLIT_WORDS[folder.name.lower()] if folder else None


def splits_of(addresses: Sequence[str]) -> Splits:
    """Assign files to splits by name, else by the order train, validation, test.

    The order counts only if no name contradicts it; otherwise ParamsError.
    """
    common = reduce(and_, (_words(_path(address)) for address in addresses))
    names = [split_of(address, common) for address in _below_common_folder(addresses)]
    named = list(zip(addresses, names, strict=True))
    if None not in names:
        return complete({split: [url for url, name in named if name == split] for split in SPLITS})
    if len(addresses) != len(SPLITS):
        raise ParamsError(
            f"init: --data was given {len(addresses)} times, and the names do not say the splits.",
            f"Give {_ALL}.",
        )
    for (address, name), split in zip(named, SPLITS, strict=True):
        if name not in (None, split):
            raise ParamsError(
                f"init: {address} is the {split} split by position, but the {name} split by name.",
                "Say which is which: --train FILE --validation FILE --test FILE.",
            )
    return {split: [address] for split, address in zip(SPLITS, addresses, strict=True)}


def _path(address: str) -> PurePosixPath:
    return PurePosixPath(address.replace(os.sep, "/"))


def _words(path: PurePosixPath) -> Counter[str]:
    """Words of a file's name; my.train_v2.csv, reviewsTrain.csv and trainset.csv hold `train`."""
    while path.suffix.lower() in (*ENDINGS, ".gz", ".zip"):
        path = path.with_suffix("")
    return Counter(word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", path.name))


def _split_folder(path: PurePosixPath) -> PurePosixPath | None:
    return next((folder for folder in path.parents if folder.name.lower() in SPLIT_WORDS), None)


def _below_common_folder(addresses: Sequence[str]) -> list[str]:
    """The addresses without their common leading folders."""
    paths = [_path(address).parts for address in addresses]
    levels = zip(*(parts[:-1] for parts in paths), strict=False)
    shared = len([*takewhile(lambda names: len(set(names)) == 1, levels)])
    return [str(PurePosixPath(*parts[shared:])) for parts in paths]


def splits_in(directory: Path) -> Splits:
    """The splits in a directory, each of one or several files; Hugging Face's layout works too."""
    files = _data_files(directory)
    splits: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in files:
        split = split_of(str(path.relative_to(directory)))
        if split:
            splits[split].append(path)
    missing = [f"{split}.*" for split in SPLITS if not splits[split]]
    if missing:
        present = ", ".join(str(path.relative_to(directory)) for path in files[:10]) or "none"
        raise DataError(
            f"{directory}: {', '.join(missing)} not found; data files there: {present}.",
            "Wanted: train.*, validation.* and test.* (CSV, TSV, JSONL or Parquet); "
            "or name a single file, which is split by a hash of its texts.",
        )
    folders = {
        _folder_of_splits(path.relative_to(directory))
        for paths in splits.values()
        for path in paths
    }
    if len(folders) > 1:
        raise DataError(
            f"{directory}: several folders hold splits: {', '.join(sorted(map(str, folders)))}.",
            "Name one of them.",
        )
    return {split: _pattern(paths) for split, paths in splits.items()}


def _data_files(directory: Path) -> list[Path]:
    """Files of rows by their endings, without hidden ones such as macOS's ._train.csv."""
    return [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and path.name.lower().removesuffix(".gz").endswith(ENDINGS)
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    ]


def unused_files(directory: Path, used: Sequence[Path]) -> list[str]:
    """Data files in the directory, relative to it, that are not used."""
    known = {path.resolve() for path in used}
    files = _data_files(directory)
    return [str(path.relative_to(directory)) for path in files if path.resolve() not in known]


def _folder_of_splits(path: Path) -> PurePosixPath:
    """The folder that holds the splits: the file's, or the parent of a folder named by a split."""
    folder = _split_folder(PurePosixPath(path.as_posix()))
    return folder.parent if folder else PurePosixPath(path.parent.as_posix())


def complete(splits: Splits) -> Splits:
    """The splits unchanged; ParamsError if one has no file."""
    missing = [split for split in SPLITS if not splits.get(split)]
    if missing:
        present = ", ".join(
            f"{split}: {', '.join(splits[split])}" for split in SPLITS if splits.get(split)
        )
        raise ParamsError(
            f"init: there is no {' and no '.join(missing)} split ({present}).",
            f"Give {_ALL}. A single file is split by a hash of its texts.",
        )
    return splits


def _pattern(paths: Sequence[Path]) -> list[str]:
    """One glob pattern for a split's parts if it matches exactly those, else their paths."""
    names = [str(path) for path in paths]
    patterns = {re.sub(r"\d+", "*", path.name) for path in paths}
    pattern = str(paths[0].parent / patterns.pop())
    exact = len(names) > 1 and not patterns and sorted(glob.glob(pattern)) == names  # noqa: PTH207
    return [pattern] if exact else names
