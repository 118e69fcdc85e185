"""Makes a workspace: inspects the data, writes a complete params.yaml and sets up DVC."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.engine.dvc_setup import set_up_dvc
from flows.workspaces.advice import Facts, advice
from flows.workspaces.defaults import TrainingSize, check_recipe, check_values, finetune_values
from flows.workspaces.guessing import (
    SAMPLE_ROWS,
    Guess,
    guess,
    listed,
    require_header,
    sample_rows,
    unused_columns,
)
from flows.workspaces.request import Request, base_model_of, positions_of_base
from flows.workspaces.split_names import unused_files
from flows.workspaces.unlabelled import (
    LABEL_NAMES,
    about_label_names,
    about_shared_texts,
    check_unlabelled,
    check_zero_shot,
    write_label_names,
)
from tasks.core.errors import ParamsError, WorkspaceError, did_you_mean
from tasks.core.files import write_text
from tasks.core.memory import TO_READ, require_address_space
from tasks.data.sources.fetching import local_files
from tasks.data.tables.loaded import SPLIT, SPLITS
from tasks.params.ingestion import Source
from tasks.params.labels import canonical_label
from tasks.params.schema import Params, parse, source_of_options
from tasks.params.workspace import Workspace, cache_dir, require_usable
from tasks.pipeline import write_dvc_yaml
from tasks.problems import load_problem, module_name
from tasks.training.label_names import can_name_labels, mostly_say_nothing

IGNORED = ("/.ratchet/", "/data/", "/reports/", "/models/")


@dataclass(frozen=True)
class InitResult:
    """Result of `ratchet init`; `account`: see data/quality/row_account.py."""

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


def guess_problem(request: Request) -> Guess:
    """Guess problem type and columns from a sample of the data; the request's values are kept.

    Raises ParamsError if nothing fits.
    """
    require_address_space(TO_READ)
    if request.problem is not None:
        module_name(request.problem)  # report an unknown problem type first
    if not (request.data or request.splits):
        raise ParamsError("init: no data given.", "Name it with --data FILE.")
    root = request.directory.resolve()
    _check_new(root)
    named = list(request.columns.values())
    if twice := sorted({column for column in named if named.count(column) > 1}):
        raise ParamsError(
            f"init: the data column '{twice[0]}' is named for two of the problem's columns.",
            "Name another one for one of them.",
        )
    described, first = _described(request.sources()), SPLITS[1 if request.zero_shot else 0]
    sources = [source for source in described if source.split in (None, first)]
    rows = sample_rows(sources, root, cache_dir())
    require_header(rows, sources[0])
    guessed = guess(rows, request.problem, request.columns, next(iter(request.data), ""))
    return replace(guessed, notes=unused_columns(rows, guessed))


def make_workspace(request: Request, guessed: Guess) -> InitResult:
    """Make the directory a workspace; read the data and check the params before writing."""
    root = request.directory.resolve()
    _check_new(root)
    problem = load_problem(guessed.problem)
    check_recipe(request.recipe, problem)
    if request.unlabelled:
        check_unlabelled(request.recipe, problem)
    given, unlabelled = request.sources(), request.unlabelled_sources()
    names = [{"url": LABEL_NAMES, "split": SPLITS[0]}] if request.zero_shot else []
    sources = [*names, *given]
    values: dict[str, Any] = {
        "problem": guessed.problem,
        "model_name": request.model_name or root.name,
        "base_model": base_model_of(request, problem),
        "ingest": {
            "sources": sources,
            "unlabelled": unlabelled,
            "columns": dict(guessed.columns),
            "merge_labels": request.merge_labels,
            **({"tag_names": request.tags} if request.tags else {}),
            **guessed.reading,
        },
        "validate": check_values(request.recipe),
    }
    if request.tags and "tags" not in problem.rows.columns:
        raise ParamsError(
            f"--tags: names numeric tags; a row of {guessed.problem} has none.", "Leave it out."
        )
    params = parse(values, "init")
    longest = positions_of_base(request, params, root)
    facts = _inspect(params, _described(given), unlabelled, root)
    labels = sorted(facts.labels)
    if request.zero_shot:
        check_zero_shot(problem, labels)
        facts = replace(facts, to_train_on=len(labels))
    _check_out_of_scope(request.out_of_scope, params, labels)
    usual_base = values["base_model"] == dict(problem.defaults.base_model)
    named = can_name_labels(problem) and not mostly_say_nothing(labels)
    size = TrainingSize(facts.to_train_on, len(labels), usual_base, problem.objective.pools, named)
    finetune = finetune_values(size, problem.defaults.finetune, request.recipe)
    finetune["self_training"] = bool(unlabelled)
    settings = {
        "labels": labels,
        "ingest": params.ingest.model_dump(mode="json")
        | {"sources": sources, "unlabelled": unlabelled},
        "metric": problem.scoring.metric,
        "recipes": problem.defaults.recipes,
        "finetune": finetune,
        "size": size,
        "max_length": min(problem.defaults.max_length, longest or problem.defaults.max_length),
        "out_of_scope": request.out_of_scope,
    }
    write_text(root / "params.yaml", _render(values | settings))
    workspace = Workspace(root)
    try:
        workspace.params()
        if request.zero_shot:
            write_label_names(root, labels, guessed.columns)
    except ParamsError:
        (root / "params.yaml").unlink()  # an invalid request leaves nothing behind
        raise
    _ignore(root)
    _init_dvc(root)
    write_dvc_yaml(workspace)
    splits: dict[str, list[str]] = {}
    if "split" in sources[0]:
        splits = {name: [s["url"] for s in sources if s["split"] == name] for name in SPLITS}
    return InitResult(
        os.path.relpath(root),
        guessed.problem,
        dict(guessed.columns),
        params.model_name,
        facts.account.used,
        facts.account.set_aside,
        labels,
        facts.account.plain(),
        splits,
        [
            *advice(workspace.params(), facts, size, finetune),
            *about_label_names(labels if request.zero_shot else ()),
            *guessed.notes,
            *_unused_files(request.data, splits, root),
        ],
    )


def _check_out_of_scope(wanted: str | None, params: Params, labels: Sequence[str]) -> None:
    if wanted and canonical_label(wanted, merge=params.ingest.merge_labels) not in labels:
        raise ParamsError(
            f"--out-of-scope {wanted}: no row has this label.{did_you_mean(wanted, labels)}",
            f"The labels are {listed(labels, 20)}.",
        )


def _unused_files(data: Sequence[str], splits: Mapping[str, list[str]], root: Path) -> list[str]:
    """A note about the data files of the directory that no split holds."""
    if len(data) != 1 or not Path(data[0]).is_dir():
        return []
    addresses = [address for of_split in splits.values() for address in of_split]
    used = [file for address in addresses for file in local_files(address, root)]
    unused = unused_files(Path(data[0]), used)
    return [f"data files that are not used: {listed(unused)}."] if unused else []


def _check_new(root: Path) -> None:
    require_usable(root)
    if (root / "params.yaml").exists():
        raise WorkspaceError(
            f"{root}: is already a workspace (it has a params.yaml).",
            "Edit its params.yaml, or name another directory.",
        )


def _described(sources: Sequence[Mapping[str, str]]) -> tuple[Source, ...]:
    """The sources; messages about them name options, as there is no params.yaml yet."""
    return tuple(
        source_of_options(
            source["url"], {name: value for name, value in source.items() if name != "url"}
        )
        for source in sources
    )


def _inspect(
    params: Params,
    sources: tuple[Source, ...],
    unlabelled: Sequence[Mapping[str, str]],
    root: Path,
) -> Facts:
    """Ingest the data once, into a scratch directory."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from tasks.core.progress import silent
    from tasks.data.tables.label_lists import flat
    from tasks.ingestion import read_sources

    row_format = load_problem(params.problem).rows
    column, text = row_format.label_column, next(iter(row_format.text_columns), None)
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        account = read_sources(
            raw,
            problem=params.problem,
            ingest=params.ingest.model_copy(
                update={"sources": sources, "unlabelled": _described(unlabelled)}
            ),
            root=root,
            cache=cache_dir(),
            report=silent,
        )
        present = pq.read_schema(raw / "rows.parquet").names
        wanted = [name for name in (column, SPLIT) if name in present]
        table = pq.read_table(raw / "rows.parquet", columns=wanted)
        texts = _sample_texts(raw / "rows.parquet", text if text in present else None)
        shared = about_shared_texts(raw, text) if unlabelled and text else []
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
    return Facts(account, to_train_on, labels, texts, shared)


def _sample_texts(rows: Path, column: str | None) -> list[str]:
    """Texts spread over the rows."""
    import pyarrow.parquet as pq

    if column is None:
        return []
    table = pq.read_table(rows, columns=[column])
    step = max(1, table.num_rows // SAMPLE_ROWS)
    return [str(text) for text in table[column].to_pylist()[::step] if text]


def _render(values: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    template = (Path(__file__).parent / "params.yaml.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(**values)


def _ignore(root: Path) -> None:
    path = root / ".gitignore"
    present = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    missing = [line for line in IGNORED if line not in present]
    write_text(path, "\n".join([*present, *missing]) + "\n")


def _init_dvc(root: Path) -> None:
    """Initialise DVC at `root`, unless it is inside a DVC repository; add a local remote."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    from tasks.core.git import top_level, unstage

    set_up_dvc(root / ".ratchet")

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
                "autostage": False,  # what is staged in git is the user's affair
                "remote": "local",
            }
            # DVC resolves a relative path from the working directory and stores it relative to its
            # config
            config["remote"]["local"] = {"url": os.path.relpath(root / ".ratchet" / "dvc-remote")}
        unstage(root, ".dvc/config", ".dvc/.gitignore", ".dvcignore")
