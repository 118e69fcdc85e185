"""Which files are which split, told by their names: train.csv, dev.csv, data/train-00000-of-00003.parquet, test/part-0.parquet."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tasks.core.errors import DataError, ParamsError
from tasks.core.loaded import SPLITS

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".ndjson", ".parquet")
_WORDS = {
    "train": "train", "training": "train",
    "dev": "validation", "devel": "validation", "development": "validation",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_ALL = "one file, a directory, or three files: --train FILE --validation FILE --test FILE"

Splits = Mapping[str, Sequence[str]]  # split: its addresses


def split_of(address: str) -> str | None:
    """The split that the file's name tells, or else its folder is called by; None where they tell none, or several."""
    path = PurePosixPath(address.replace(os.sep, "/"))
    found = {_WORDS[word] for word in re.findall("[a-z]+", path.name.partition(".")[0].lower()) if word in _WORDS}
    if found:
        return found.pop() if len(found) == 1 else None
    return _WORDS.get(path.parent.name.lower())


def splits_of(addresses: Sequence[str]) -> Splits:
    """The split of each of several files: by their names, or in the order train, validation, test where no name tells another."""
    told = [split_of(address) for address in addresses]
    if len(set(told)) == 1:  # the folder they all lie in
        told = [split_of(PurePosixPath(address).name) for address in addresses]
    if None not in told:
        return complete({split: [one for one, name in zip(addresses, told, strict=True) if name == split] for split in SPLITS})
    if len(addresses) != len(SPLITS):
        raise ParamsError(f"init: --data was given {len(addresses)} times, and the names do not tell the splits.", f"Give {_ALL}.")
    for address, name, split in zip(addresses, told, SPLITS, strict=True):
        if name not in (None, split):
            raise ParamsError(
                f"init: {address} would be the {split} split by its place, the {name} split by its name.",
                "Say which is which: --train FILE --validation FILE --test FILE.",
            )
    return {split: [address] for split, address in zip(SPLITS, addresses, strict=True)}


def splits_in(directory: Path) -> Splits:
    """The splits in a directory, of one or several files each, also as Hugging Face lays them out."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.name.lower().removesuffix(".gz").endswith(ENDINGS)]
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
    folders = {path.parent.parent if split_of(f"{path.parent.name}/x") else path.parent for paths in found.values() for path in paths}
    if len(folders) > 1:
        raise DataError(
            f"{directory}: several folders hold splits: {', '.join(sorted(str(folder.relative_to(directory)) for folder in folders))}.",
            "Name one of them.",
        )
    return {split: _pattern(paths) for split, paths in found.items()}


def complete(found: Splits) -> Splits:
    """The splits; ParamsError where one has no file."""
    missing = [split for split in SPLITS if not found.get(split)]
    if missing:
        named = ", ".join(f"{split}: {', '.join(found[split])}" for split in SPLITS if found.get(split))
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
