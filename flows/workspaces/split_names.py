"""Which files are which split, told by their names: train.csv, dev.csv, data/train-00000-of-00003.parquet, test/part-0.parquet."""

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

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".ndjson", ".parquet")
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

Splits = Mapping[str, Sequence[str]]  # split: its addresses


def split_of(address: str, common: Counter[str] | None = None) -> str | None:
    """The split that the file's name tells, or else the nearest of its folders that is called by one; None where none does, or several.

    common  words of the name that tell nothing where it has several: those that other files' names have too
    """
    path = _path(address)
    words = _words(path)
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    if len(found) > 1 and common:
        found = {SPLIT_WORDS[word] for word in words - common if word in SPLIT_WORDS}
    if found:
        return found.pop() if len(found) == 1 else None
    folder = _split_folder(path)
    return SPLIT_WORDS[folder.name.lower()] if folder else None


def splits_of(addresses: Sequence[str]) -> Splits:
    """The split of each of several files: by their names, or in the order train, validation, test where no name tells another."""
    common = reduce(and_, (_words(_path(address)) for address in addresses))
    told = [split_of(address, common) for address in _below_common_folder(addresses)]
    if None not in told:
        return complete(
            {
                split: [one for one, name in zip(addresses, told, strict=True) if name == split]
                for split in SPLITS
            }
        )
    if len(addresses) != len(SPLITS):
        raise ParamsError(
            f"init: --data was given {len(addresses)} times, and the names do not tell the splits.",
            f"Give {_ALL}.",
        )
    for address, name, split in zip(addresses, told, SPLITS, strict=True):
        if name not in (None, split):
            raise ParamsError(
                f"init: {address} would be the {split} split by its place, the {name} split by its name.",
                "Say which is which: --train FILE --validation FILE --test FILE.",
            )
    return {split: [address] for split, address in zip(SPLITS, addresses, strict=True)}


def _path(address: str) -> PurePosixPath:
    return PurePosixPath(address.replace(os.sep, "/"))


def _words(path: PurePosixPath) -> Counter[str]:
    """The words of a file's name without its ending: of my.train_v2.csv, reviewsTrain.csv and trainset.csv `train` is one."""
    while path.suffix.lower() in (*ENDINGS, ".gz"):
        path = path.with_suffix("")
    return Counter(word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", path.name))


def _split_folder(path: PurePosixPath) -> PurePosixPath | None:
    return next((folder for folder in path.parents if folder.name.lower() in SPLIT_WORDS), None)


def _below_common_folder(addresses: Sequence[str]) -> list[str]:
    """The addresses without the folders that all of them lie in, whatever those are called."""
    parts = [_path(address).parts for address in addresses]
    levels = zip(*(one[:-1] for one in parts), strict=False)
    shared = len([*takewhile(lambda names: len(set(names)) == 1, levels)])
    return [str(PurePosixPath(*one[shared:])) for one in parts]


def splits_in(directory: Path) -> Splits:
    """The splits in a directory, of one or several files each, also as Hugging Face lays them out."""
    files = [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name.lower().removesuffix(".gz").endswith(ENDINGS)
    ]
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in files:
        split = split_of(str(path.relative_to(directory)))
        if split:
            found[split].append(path)
    missing = [split for split in SPLITS if not found[split]]
    if missing:
        there = ", ".join(str(path.relative_to(directory)) for path in files[:10]) or "none"
        raise DataError(
            f"{directory}: {', '.join(f'{split}.*' for split in missing)} is not there; its files of rows: {there}.",
            "Wanted: train.*, validation.* and test.* (CSV, TSV, JSONL or Parquet), or name one file alone: it is split by its texts.",
        )
    folders = {
        _laid_out_in(path.relative_to(directory)) for paths in found.values() for path in paths
    }
    if len(folders) > 1:
        raise DataError(
            f"{directory}: several folders hold splits: {', '.join(sorted(map(str, folders)))}.",
            "Name one of them.",
        )
    return {split: _pattern(paths) for split, paths in found.items()}


def _laid_out_in(path: Path) -> PurePosixPath:
    """The folder that holds the splits: that of the file, or of the folder that is called by its split."""
    folder = _split_folder(PurePosixPath(path.as_posix()))
    return folder.parent if folder else PurePosixPath(path.parent.as_posix())


def complete(found: Splits) -> Splits:
    """The splits; ParamsError where one has no file."""
    missing = [split for split in SPLITS if not found.get(split)]
    if missing:
        named = ", ".join(
            f"{split}: {', '.join(found[split])}" for split in SPLITS if found.get(split)
        )
        raise ParamsError(
            f"init: there is no {' and no '.join(missing)} split ({named}).",
            f"Give {_ALL}. Of one file, validation and test rows are taken by a hash of their texts.",
        )
    return found


def _pattern(paths: Sequence[Path]) -> list[str]:
    """One address for the parts of a split where a pattern stands for them and for nothing else."""
    names = [str(path) for path in paths]
    parts = re.compile(r"\d+")
    patterns = {parts.sub("*", path.name) for path in paths}
    pattern = str(paths[0].parent / patterns.pop())
    alone = len(names) > 1 and not patterns and sorted(glob.glob(pattern)) == names  # noqa: PTH207
    return [pattern] if alone else names
