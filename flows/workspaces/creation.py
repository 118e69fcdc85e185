"""Makes a workspace: looks at the data, writes a complete params.yaml, sets DVC up."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.workspaces.defaults import TrainingSize, finetune_values
from flows.workspaces.guessing import Guess, guess, require_header, sample_rows
from flows.workspaces.split_names import complete, splits_in, splits_of
from tasks.core.errors import ParamsError, WorkspaceError
from tasks.core.files import write_text
from tasks.data.quality.row_account import Account
from tasks.data.tables.loaded import SPLIT, SPLITS
from tasks.params.labels import label_variants
from tasks.params.schema import Params, Source, parse
from tasks.params.workspace import Workspace, cache_dir
from tasks.pipeline import write_dvc_yaml
from tasks.problems import Problem, load_problem, module_name

IGNORED = ("/.ratchet/", "/data/", "/reports/", "/models/")


@dataclass(frozen=True)
class Request:
    """What `ratchet init` was asked for.

    problem  None: to be guessed
    columns  the problem's columns: the data's, as far as they are named; the others are guessed
    splits   the files of each split, in place of `data`
    tags     what tags that are numbers stand for, from 0
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


@dataclass(frozen=True)
class Made:
    """What `ratchet init` made; `account` is that of the rows (see data/quality/row_account.py)."""

    workspace: str
    problem: str
    columns: Mapping[str, str | tuple[str, ...]]
    model_name: str
    rows: int
    quarantined: int
    labels: list[str]
    account: dict[str, Any]
    splits: Mapping[str, list[str]]
    notes: list[str]


@dataclass(frozen=True)
class Seen:
    """What the data holds.

    to_train_on  rows that are neither for validation nor for test
    labels       each with its number of rows
    """

    account: Account
    to_train_on: int
    labels: Mapping[str, int]

    def notes(self, params: Params) -> list[str]:
        """What the user had better know before a training."""
        notes = []
        if variants := label_variants(list(self.labels)):
            shown = "; ".join(", ".join(f"'{label}'" for label in group) for group in variants[:5])
            notes.append(
                f"labels that differ by case or blanks alone: {shown}. "
                "If they mean the same, set `ingest.merge_labels: true` in params.yaml (or init with --merge-labels)."
            )
        least = params.validation.min_rows_per_class
        if rare := [label for label, count in self.labels.items() if count < least]:
            shown = ", ".join(f"'{label}' ({self.labels[label]})" for label in sorted(rare)[:5])
            notes.append(
                f"labels with fewer than {least} rows, which stop a training: {shown}{', …' if len(rare) > 5 else ''}. "
                "If they are labels, give more rows, or lower `validate.min_rows_per_class`; if not, take them out of the data."
            )
        return notes


def guess_problem(request: Request) -> Guess:
    """What the data seems to be, by its first rows; the request's own words are kept. Raises ParamsError where nothing fits."""
    if request.problem is not None:
        module_name(request.problem)  # an unknown problem type is told first
    if not (request.data or request.splits):
        raise ParamsError("init: no data.", "Name it with --data FILE.")
    root = request.directory.resolve()
    _check_new(root)
    source = Source.model_validate(data_sources(request.data, root, request.splits)[0])
    rows = sample_rows(source, root, cache_dir())
    require_header(rows, source.url)
    return guess(rows, request.problem, request.columns)


def make_workspace(request: Request, found: Guess) -> Made:
    """Make the directory a workspace; nothing is written before the data was read and the parameters checked."""
    root = request.directory.resolve()
    _check_new(root)
    kind = load_problem(found.problem)
    values: dict[str, Any] = {
        "problem": found.problem,
        "model_name": request.model_name or root.name,
        "base_model": base_model_of(request, kind),
        "ingest": {
            "sources": data_sources(request.data, root, request.splits), "columns": dict(found.columns),
            "merge_labels": request.merge_labels, **({"tag_names": request.tags} if request.tags else {}), **found.reading,
        },
    }  # fmt: skip
    params = parse(values, "init")
    seen = _look(params, root)
    size = TrainingSize(
        seen.to_train_on, len(seen.labels), values["base_model"] == dict(kind.default_base)
    )
    settings = {
        "metric": kind.metric, "recipes": kind.recipes, "finetune": finetune_values(size, kind.finetune_defaults), "size": size,
        "max_length": kind.default_max_length, "out_of_scope": request.out_of_scope,
    }  # fmt: skip
    ingest = params.ingest.model_dump(mode="json") | {"sources": values["ingest"]["sources"]}
    text = _render(values | {"labels": sorted(seen.labels), "ingest": ingest} | settings)
    write_text(root / "params.yaml", text)
    workspace = Workspace(root)
    try:
        workspace.params()
    except ParamsError:
        (root / "params.yaml").unlink()  # what was asked for cannot be: nothing is left of it
        raise
    _ignore(root)
    _init_dvc(root)
    write_dvc_yaml(workspace)
    sources = params.ingest.sources
    splits = (
        {split: [source.url for source in sources if source.split == split] for split in SPLITS}
        if sources[0].split
        else {}
    )
    return Made(
        os.path.relpath(root), found.problem, dict(found.columns), params.model_name, seen.account.used, seen.account.set_aside,
        sorted(seen.labels), seen.account.plain(), splits, seen.notes(params),
    )  # fmt: skip


def _check_new(root: Path) -> None:
    if (root / "params.yaml").exists():
        raise WorkspaceError(
            f"{root}: is a workspace already (it has a params.yaml).",
            "Edit its params.yaml, or name another directory.",
        )


def base_model_of(request: Request, kind: Problem) -> dict[str, Any]:
    """`base_model` of params.yaml as the request names it, or the problem's usual one."""
    if request.base_model is None:
        return dict(kind.default_base)
    path = request.base_model
    if Path(path).exists():  # params.yaml counts from the workspace
        path = os.path.relpath(Path(path).resolve(), request.directory.resolve())
        path = path if path.startswith(".") else f"./{path}"
    return {"path": path, **({"revision": request.revision} if request.revision else {})}


def data_sources(
    data: Sequence[str], root: Path, splits: Mapping[str, Sequence[str]] | None = None
) -> list[dict[str, str]]:
    """`ingest.sources` of params.yaml: a file; or the files of each split, of a directory, told by their names, or as they are named."""
    if data and splits:
        raise ParamsError(
            "init: --data and --train, --validation or --test exclude each other.",
            "Give one file, or all three splits.",
        )
    if splits:
        found = complete(splits)
    elif len(data) == 1 and not Path(data[0]).is_dir():
        return [{"url": _address(data[0], root)}]
    else:
        found = splits_in(Path(data[0])) if len(data) == 1 else splits_of(data)
    return [
        {"url": _address(name, root), "split": split} for split in SPLITS for name in found[split]
    ]


def _address(name: str, root: Path) -> str:
    return name if "://" in name else os.path.relpath(Path(name).resolve(), root)


def _look(params: Params, root: Path) -> Seen:
    """The data, ingested once."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from tasks.core.progress import silent
    from tasks.data.tables.label_lists import flat
    from tasks.ingestion import read_sources

    column = load_problem(params.problem).label_column
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        account = read_sources(
            raw,
            problem=params.problem,
            ingest=params.ingest,
            root=root,
            cache=cache_dir(),
            report=silent,
        )
        present = pq.read_schema(raw / "rows.parquet").names
        table = pq.read_table(
            raw / "rows.parquet", columns=[name for name in (column, SPLIT) if name in present]
        )
    counts = [] if column is None else pc.value_counts(flat(table[column])).to_pylist()
    labels = {
        str(entry["values"]): entry["counts"]
        for entry in counts
        if entry["values"] not in (None, "")
    }
    if SPLIT in present:
        to_train_on = pc.sum(pc.equal(table[SPLIT], SPLITS[0])).as_py()
    else:
        to_train_on = round(table.num_rows * (1 - params.split.validation - params.split.test))
    return Seen(account, to_train_on, labels)


def _render(values: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    template = environment.from_string(
        (Path(__file__).parent / "params.yaml.j2").read_text(encoding="utf-8")
    )
    return template.render(**values)


def _ignore(root: Path) -> None:
    target = root / ".gitignore"
    present = target.read_text(encoding="utf-8").splitlines() if target.is_file() else []
    write_text(
        target, "\n".join([*present, *(line for line in IGNORED if line not in present)]) + "\n"
    )


def _init_dvc(root: Path) -> None:
    """A DVC repository at `root`, unless it is in one already; a local remote under the store."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    from tasks.core.git import top_level

    logging.getLogger("dvc").setLevel(logging.ERROR)  # standard output is ours

    try:
        Repo.find_root(str(root))
    except NotDvcRepoError:
        git_root = top_level(root)
        with (
            Repo.init(
                str(root), no_scm=git_root is None, subdir=git_root not in (None, root)
            ) as repo,
            repo.config.edit("repo") as config,
        ):
            config["core"] |= {
                "analytics": False,
                "check_update": False,
                "autostage": git_root is not None,
                "remote": "local",
            }
            # DVC takes a relative path from the working directory, and keeps it relative to its config
            config["remote"]["local"] = {"url": os.path.relpath(root / ".ratchet" / "dvc-remote")}
