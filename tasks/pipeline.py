"""The stage table: what each stage is, what it reads and what it makes. dvc.yaml is rendered from it.

A stage's function takes its deps and outs as paths by name, the top-level keys of params.yaml that it declares by name, and
`report`; so it cannot read what DVC does not know of.
"""

from __future__ import annotations

import importlib
import inspect
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from tasks.core.errors import ParamsError, PipelineError
from tasks.core.files import replace, write_text
from tasks.core.progress import Report
from tasks.data.sources.fetching import local_files
from tasks.params.schema import Params, parse
from tasks.params.workspace import Workspace, cache_dir
from tasks.problems import load_problem
from tasks.training.methods.adapter_files import read_adapter
from tasks.training.methods.compatibility import check_method

START = "models/start"  # what a training goes on from: the champion's checkpoint, and the tokens that it was trained on
START_FILE = "start.dvc"  # pins them by hash; only the training flow writes it
START_OUTS = {"checkpoint": f"{START}/checkpoint", "tokens": f"{START}/tokens"}


@dataclass(frozen=True)
class Stage:
    """One step with outs. Paths are relative to the workspace and named as the function's arguments.

    params     top-level keys of params.yaml, each an argument (`validate` and its like name the stage's own section)
    metrics    those outs that `dvc metrics show` prints
    version    of what its code computes: a result that can differ wants the next one, and with it every workspace runs the stage again
    start      whether it goes on from another training: it takes `start`, a directory as START describes it, or None
    """

    name: str
    module: str
    function: str
    deps: dict[str, str]
    outs: dict[str, str]
    params: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    version: int = 1
    start: bool = False

    def load(self) -> Callable[..., None]:
        """The function itself; imports its module, and with it whatever is heavy."""
        return getattr(importlib.import_module(self.module), self.function)  # type: ignore[no-any-return]


STAGES = (
    Stage(
        "ingest", "tasks.ingestion", "ingest_sources",
        deps={}, outs={"raw": "data/raw"},
        params=("problem", "ingest"),
    ),
    Stage(
        "validate", "tasks.validation", "validate_rows",
        deps={"raw": "data/raw"},
        outs={"valid": "data/valid", "validation_report": "reports/validation.json", "data_docs": "reports/data_docs"},
        params=("problem", "labels", "validate"),
    ),
    Stage(
        "split", "tasks.splitting", "split_rows",
        deps={"valid": "data/valid"}, outs={"splits": "data/splits"},
        params=("problem", "labels", "split"),
    ),
    Stage(
        "tokenize", "tasks.tokenization", "tokenize_splits",
        deps={"splits": "data/splits"}, outs={"tokens": "data/tokens"},
        params=("problem", "labels", "base_model", "tokenize"),
    ),
    Stage(
        "finetune", "tasks.finetuning", "finetune_model",
        deps={"tokens": "data/tokens"}, outs={"checkpoint": "models/checkpoint", "training_report": "reports/training.json"},
        params=("problem", "labels", "base_model", "finetune", "seed", "device"), start=True,
    ),
    Stage(
        "evaluate", "tasks.evaluation", "evaluate_checkpoint",
        deps={"splits": "data/splits", "tokens": "data/tokens", "checkpoint": "models/checkpoint"},
        outs={"evaluation_report": "reports/evaluation.json"},
        params=("problem", "labels", "out_of_scope", "base_model", "evaluate", "seed", "device"),
    ),
    Stage(
        "export", "tasks.export", "export_candidates",
        deps={"tokens": "data/tokens", "checkpoint": "models/checkpoint"}, outs={"candidates": "models/candidates"},
        params=("problem", "labels", "export", "seed"),
    ),
    Stage(
        "verify", "tasks.verification", "verify_candidates",
        deps={"tokens": "data/tokens", "checkpoint": "models/checkpoint", "candidates": "models/candidates"},
        outs={"bundle": "models/bundle", "verification_report": "reports/verification.json", "metrics": "reports/metrics.json"},
        params=("problem", "labels", "out_of_scope", "verify", "seed"),
        metrics=("metrics",),
    ),
    Stage(
        "report", "tasks.reporting", "write_report",
        deps={
            "validation_report": "reports/validation.json", "splits": "data/splits", "tokens": "data/tokens",
            "training_report": "reports/training.json", "evaluation_report": "reports/evaluation.json",
            "verification_report": "reports/verification.json",
        },
        outs={"page": "reports/report.html"},
        params=("problem", "labels", "model_name"),
    ),
)  # fmt: skip


def check_params(params: Params, root: Path) -> Params:
    """The same, of the workspace at `root`; ParamsError, before anything runs, where what they ask for does not go together."""
    check_method(load_problem(params.problem), params.finetune, params.device)
    adapter = params.finetune.adapter
    if adapter and any(
        Path(adapter).is_relative_to(out) for stage in STAGES for out in stage.outs.values()
    ):
        raise ParamsError(
            f"finetune.adapter: {adapter} is made anew by the training that would go on from it.",
            "Copy it elsewhere, and name the copy.",
        )
    if adapter:
        read_adapter(root / adapter)
    return params


def find_stage(name: str) -> Stage:
    """The stage of that name; ParamsError where there is none."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise ParamsError(
        f"no stage is called '{name}'.", f"Stages: {', '.join(stage.name for stage in STAGES)}."
    )


def run_stage(stage: Stage, workspace: Workspace, params: Params, report: Report) -> None:
    """Run one stage: its outs take their places only when it has ended well."""
    deps = {name: workspace.root / path for name, path in stage.deps.items()}
    start = start_deps(stage, workspace, params)
    missing = [
        path for path in (*stage.deps.values(), *start) if not (workspace.root / path).exists()
    ]
    if missing:
        raise PipelineError(
            f"{stage.name}: {', '.join(missing)} is not there.",
            "Run `ratchet train`, which makes it first.",
        )
    function = stage.load()
    arguments: dict[str, Any] = {key: params.section(key) for key in stage.params}
    accepted = inspect.signature(function).parameters
    if stage.start:
        arguments["start"] = workspace.root / START if start else None
    if "root" in accepted:  # local sources are relative to the workspace
        arguments["root"] = workspace.root
    if "cache" in accepted:
        arguments["cache"] = cache_dir()
    if "work" in accepted:  # survives a kill, so that the stage can resume
        arguments["work"] = workspace.store / "work" / stage.name
    with _staged(stage, workspace) as outs:
        function(**deps, **outs, **arguments, report=report)
    if "work" in accepted:
        shutil.rmtree(arguments["work"], ignore_errors=True)


def staging_dir(workspace: Workspace, stage: str) -> Path:
    """Where a stage's outs are while it runs, and stay if it fails."""
    return workspace.store / "staging" / stage


@contextmanager
def _staged(stage: Stage, workspace: Workspace) -> Iterator[dict[str, Path]]:
    staging = staging_dir(workspace, stage.name)
    shutil.rmtree(staging, ignore_errors=True)
    outs = {name: staging / path for name, path in stage.outs.items()}
    for path in outs.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    yield outs
    for name, path in outs.items():
        replace(path, workspace.root / stage.outs[name])
    shutil.rmtree(staging, ignore_errors=True)


def start_deps(stage: Stage, workspace: Workspace, params: Params) -> list[str]:
    """What the stage goes on from, relative to the workspace; nothing where params or the lack of a champion say the base model."""
    pinned = (
        stage.start
        and params.finetune.start_from == "champion"
        and (workspace.root / START_FILE).is_file()
    )
    return list(START_OUTS.values()) if pinned else []


def code_version(stage: Stage, problem: str) -> str:
    """The declared version of what the stage's code computes, '1', and of what the problem type's own code adds to it, '1.2'.

    tests/system/test_stage_code.py fails where that code has changed and nobody has said whether results can.
    """
    own = load_problem(problem).stage_versions.get(stage.name)
    return f"{stage.version}.{own}" if own else str(stage.version)


def render_dvc_yaml(workspace: Workspace, overridden: Mapping[str, Any] | None = None) -> str:
    """The text of the workspace's dvc.yaml, with a run's values in place of those in params.yaml: they decide what a stage reads."""
    from ruamel.yaml import YAML

    text = StringIO("")
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096
    yaml.dump(
        {"stages": dvc_stages(workspace, workspace.values() if overridden is None else overridden)},
        text,
    )
    return (
        "# Rendered from tasks/pipeline.py by `python -m tasks dvc-yaml`; edits are overwritten.\n"
        + text.getvalue()
    )


def dvc_stages(workspace: Workspace, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The stages as DVC has them, by name; `values` are those of params.yaml, or a run's."""
    params = parse(values, str(workspace.params_file))
    return {stage.name: _dvc_stage(stage, workspace, params, set(values)) for stage in STAGES}


def write_dvc_yaml(workspace: Workspace, overridden: Mapping[str, Any] | None = None) -> bool:
    """Bring dvc.yaml up to date; True if it was stale."""
    target = workspace.root / "dvc.yaml"
    text = render_dvc_yaml(workspace, overridden)
    if target.is_file() and target.read_bytes() == text.encode():
        return False
    write_text(target, text)
    return True


def _dvc_stage(
    stage: Stage, workspace: Workspace, params: Params, keys: set[str]
) -> dict[str, Any]:
    files = []
    if stage.name == "ingest":
        files += [
            file
            for source in params.ingest.sources
            for file in local_files(source.url, workspace.root)
        ]
    if "base_model" in stage.params:
        files += local_files(params.base_model.path, workspace.root)
    if "finetune" in stage.params and params.finetune.adapter:
        files += local_files(str(workspace.root / params.finetune.adapter), workspace.root)
    deps = [
        *stage.deps.values(),
        *start_deps(stage, workspace, params),
        *(_relative(file, workspace.root) for file in files),
    ]
    entry: dict[str, Any] = {
        "cmd": f"ratchet stage {stage.name} --code {code_version(stage, params.problem)}"
    }
    if deps:
        entry["deps"] = deps
    entry["params"] = [key for key in stage.params if key in keys]
    entry["outs"] = [path for name, path in stage.outs.items() if name not in stage.metrics]
    if stage.metrics:
        entry["metrics"] = [stage.outs[name] for name in stage.metrics]
    return entry


def _relative(file: Path, root: Path) -> str:
    return Path(os.path.relpath(file, root)).as_posix()
