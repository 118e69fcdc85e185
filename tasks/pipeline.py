"""The stage table: what each stage reads and makes. dvc.yaml is rendered from it.

A stage's function takes by name the paths of its deps and outs, the top-level keys of params.yaml
that it declares, and `report`; so it cannot read anything that DVC does not track.
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
from tasks.scoring.metric_names import promotion_metric, validation_metric
from tasks.training.label_names import check_label_names
from tasks.training.methods.adapter_files import read_adapter
from tasks.training.methods.compatibility import check_method
from tasks.training.self_training import check_unlabelled

# starting point of a training: the champion's checkpoint, and the tokens it was trained on
START = "models/start"
START_FILE = "start.dvc"  # pins them by hash; only the training flow writes it
START_OUTS = {"checkpoint": f"{START}/checkpoint", "tokens": f"{START}/tokens"}


@dataclass(frozen=True)
class Stage:
    """One step with outs; paths are relative to the workspace, keyed by the function's arguments.

    params     top-level keys of params.yaml, each an argument; `validate` and the like name the
               stage's own section
    metrics    outs that `dvc metrics show` prints
    version    of the stage's code: raise it when results can differ, and every workspace runs the
               stage again
    start      whether it can continue from another training: takes `start`, a directory as
               described at START, or None
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
        """Import the module, heavy dependencies included, and return the function."""
        module = importlib.import_module(self.module)
        return getattr(module, self.function)  # type: ignore[no-any-return]


STAGES = (
    Stage(
        "ingest", "tasks.ingestion", "ingest_sources",
        deps={}, outs={"raw": "data/raw"},
        params=("problem", "ingest"), version=2,
    ),
    Stage(
        "validate", "tasks.validation", "validate_rows",
        deps={"raw": "data/raw"},
        outs={
            "valid": "data/valid", "validation_report": "reports/validation.json",
            "data_docs": "reports/data_docs",
        },
        params=("problem", "labels", "validate"), version=2,
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
        deps={"tokens": "data/tokens"},
        outs={"checkpoint": "models/checkpoint", "training_report": "reports/training.json"},
        params=("problem", "labels", "base_model", "finetune", "seed", "device"), start=True,
    ),
    Stage(
        "evaluate", "tasks.evaluation", "evaluate_checkpoint",
        deps={"splits": "data/splits", "tokens": "data/tokens", "checkpoint": "models/checkpoint"},
        outs={"evaluation_report": "reports/evaluation.json"},
        params=("problem", "labels", "out_of_scope", "base_model", "evaluate", "seed", "device"),
        version=4,
    ),
    Stage(
        "export", "tasks.export", "export_candidates",
        deps={"tokens": "data/tokens", "checkpoint": "models/checkpoint"},
        outs={"candidates": "models/candidates"},
        params=("problem", "labels", "export", "seed"),
    ),
    Stage(
        "verify", "tasks.verification", "verify_candidates",
        deps={
            "tokens": "data/tokens", "checkpoint": "models/checkpoint",
            "candidates": "models/candidates",
        },
        outs={
            "bundle": "models/bundle", "verification_report": "reports/verification.json",
            "metrics": "reports/metrics.json",
        },
        params=("problem", "labels", "out_of_scope", "verify", "seed"),
        metrics=("metrics",), version=3,
    ),
    Stage(
        "report", "tasks.reporting", "write_report",
        deps={
            "validation_report": "reports/validation.json",
            "splits": "data/splits", "tokens": "data/tokens",
            "training_report": "reports/training.json",
            "evaluation_report": "reports/evaluation.json",
            "verification_report": "reports/verification.json",
        },
        outs={"page": "reports/report.html"},
        params=("problem", "labels", "model_name"),
        version=2,
    ),
)  # fmt: skip


def check_params(params: Params, root: Path) -> Params:
    """Check that the params fit together before anything runs; returns them, or raises ParamsError.

    root  the workspace; `finetune.adapter` is relative to it
    """
    problem = load_problem(params.problem)
    check_method(problem.name, problem.objective, params.finetune, params.device)
    if params.finetune.label_names:
        check_label_names(problem, params.labels)
    check_unlabelled(problem, bool(params.ingest.unlabelled), params.finetune.self_training)
    validation_metric(problem.scoring, params.finetune.early_stopping_metric)
    promotion_metric(problem.scoring, params.promotion.metric)
    adapter = params.finetune.adapter
    if adapter and any(
        Path(adapter).is_relative_to(out) for stage in STAGES for out in stage.outs.values()
    ):
        raise ParamsError(
            f"finetune.adapter: {adapter} is overwritten by the training that continues from it.",
            "Copy it elsewhere, and name the copy.",
        )
    if adapter:
        read_adapter(root / adapter)
    return params


def find_stage(name: str) -> Stage:
    """The stage called `name`; ParamsError if there is none."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise ParamsError(
        f"no stage is called '{name}'.", f"Stages: {', '.join(stage.name for stage in STAGES)}."
    )


def run_stage(stage: Stage, workspace: Workspace, params: Params, report: Report) -> None:
    """Run one stage; its outs replace the old ones only if it succeeds."""
    deps = {name: workspace.root / path for name, path in stage.deps.items()}
    start = start_deps(stage, workspace, params)
    missing = [
        path for path in (*stage.deps.values(), *start) if not (workspace.root / path).exists()
    ]
    if missing:
        raise PipelineError(
            f"{stage.name}: {', '.join(missing)} is missing.",
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
    if "work" in accepted:  # outlives a kill, so that the stage can resume
        arguments["work"] = workspace.store / "work" / stage.name
    with _staged(stage, workspace) as outs:
        function(**deps, **outs, **arguments, report=report)
    if "work" in accepted:
        shutil.rmtree(arguments["work"], ignore_errors=True)


def staging_dir(workspace: Workspace, stage: str) -> Path:
    """Directory of a stage's outs while it runs; they stay there if it fails."""
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
    """Paths that the stage continues from, relative to the workspace.

    Empty where it starts from the base model: as params say, or for lack of a pinned champion.
    """
    pinned = (
        stage.start
        and params.finetune.start_from == "champion"
        and (workspace.root / START_FILE).is_file()
    )
    return list(START_OUTS.values()) if pinned else []


def code_version(stage: Stage, problem: str) -> str:
    """Declared version of the stage's code, '1'; plus that of the problem type's code, '1.2'.

    tests/system/test_stage_code.py fails if that code has changed and nobody has declared whether
    results can differ.
    """
    problem_version = load_problem(problem).stage_versions.get(stage.name)
    return f"{stage.version}.{problem_version}" if problem_version else str(stage.version)


def render_dvc_yaml(workspace: Workspace, overridden: Mapping[str, Any] | None = None) -> str:
    """Text of the workspace's dvc.yaml.

    overridden  a run's values in place of params.yaml's; they decide which files a stage reads
    """
    from ruamel.yaml import YAML

    text = StringIO("")
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096
    values = workspace.values() if overridden is None else overridden
    yaml.dump({"stages": dvc_stages(workspace, values)}, text)
    header = "Rendered from tasks/pipeline.py by `ratchet dvc-yaml`; edits are overwritten."
    return f"# {header}\n{text.getvalue()}"


def dvc_stages(workspace: Workspace, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """DVC's entry of each stage, by name; `values` come from params.yaml or from a run."""
    params = parse(values, str(workspace.params_file))
    return {stage.name: _dvc_stage(stage, workspace, params, set(values)) for stage in STAGES}


def write_dvc_yaml(workspace: Workspace, overridden: Mapping[str, Any] | None = None) -> bool:
    """Bring dvc.yaml up to date; returns whether it was stale."""
    text = render_dvc_yaml(workspace, overridden)
    if is_current(workspace, text):
        return False
    write_text(workspace.root / "dvc.yaml", text)
    return True


def is_current(workspace: Workspace, rendered: str) -> bool:
    """Whether the workspace's dvc.yaml is what was rendered."""
    target = workspace.root / "dvc.yaml"
    return target.is_file() and target.read_bytes() == rendered.encode()


def _dvc_stage(
    stage: Stage, workspace: Workspace, params: Params, keys: set[str]
) -> dict[str, Any]:
    addresses = []
    if stage.name == "ingest":
        ingest = params.ingest
        addresses += [source.url for source in (*ingest.sources, *ingest.unlabelled)]
    if "base_model" in stage.params:
        addresses.append(params.base_model.path)
    if "finetune" in stage.params and params.finetune.adapter:
        addresses.append(str(workspace.root / params.finetune.adapter))
    files = [file for address in addresses for file in local_files(address, workspace.root)]
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
