"""The stage table agrees with dvc.yaml, the stages' functions and the modules."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from workspaces import run

from tasks.core.errors import ParamsError
from tasks.params.schema import Params
from tasks.params.workspace import Workspace
from tasks.pipeline import STAGES, Stage, find_stage, render_dvc_yaml

ROOT = Path(__file__).resolve().parents[2]
MODULES_THAT_ARE_NO_STAGES = {"comparison", "pipeline", "registration", "serving"}


def test_dvc_yaml_of_the_default_workspace_is_rendered() -> None:
    assert (ROOT / "dvc.yaml").read_text(encoding="utf-8") == render_dvc_yaml(Workspace(ROOT))


def test_a_stale_dvc_yaml_fails_the_check(tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    check = ("ratchet", "dvc-yaml", "--check")
    run(tmp_path, *check)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    assert "stale" in run(tmp_path, *check, code=1).stderr
    run(tmp_path, *check[:-1])
    run(tmp_path, *check)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stages_function_takes_what_the_table_gives_it(stage: Stage) -> None:
    parameters = set(inspect.signature(stage.load()).parameters)
    start = ["start"] if stage.start else []
    arguments = {*stage.deps, *stage.outs, *stage.params, "report", *start}
    assert arguments <= parameters
    assert parameters - arguments <= {"root", "cache", "work"}


def test_every_stage_reads_sections_that_params_yaml_has() -> None:
    known = {field.alias or name for name, field in Params.model_fields.items()}
    assert {key for stage in STAGES for key in stage.params} <= known


def test_a_dep_is_an_out_of_an_earlier_stage() -> None:
    made: set[str] = set()
    for stage in STAGES:
        assert set(stage.deps.values()) <= made
        made |= set(stage.outs.values())


def test_ls_tasks_shows_the_steps_and_nothing_else() -> None:
    modules = {path.stem for path in (ROOT / "tasks").glob("*.py")} - {"__init__", "__main__"}
    assert modules == {stage.module.split(".")[1] for stage in STAGES} | MODULES_THAT_ARE_NO_STAGES


def test_nobody_knows_both_dvc_and_prefect_and_no_task_knows_either() -> None:
    def users(library: str) -> set[str]:
        imports = (f"import {library}", f"from {library}")

        def uses(path: Path) -> bool:
            lines = path.read_text(encoding="utf-8").splitlines()
            return any(line.strip().startswith(imports) for line in lines)

        files = [path for folder in ("flows", "tasks") for path in (ROOT / folder).rglob("*.py")]
        return {path.relative_to(ROOT).as_posix() for path in files if uses(path)}

    assert users("dvc") == {
        "flows/engine/stage_cache.py",
        "flows/engine/cache_contents.py",
        "flows/workspaces/creation.py",
    }
    assert users("prefect") >= {"flows/training.py", "flows/promotion.py", "flows/retraining.py"}
    assert not users("dvc") & users("prefect")
    assert not [file for file in users("prefect") if file.startswith("tasks/")]


def test_an_unknown_stage_is_a_users_mistake() -> None:
    with pytest.raises(ParamsError, match="no stage"):
        find_stage("fintune")


def test_help_and_imports_are_light() -> None:
    heavy = ("torch", "great_expectations", "mlflow", "prefect", "transformers", "pandas")
    script = (
        "import sys, flows, flows.cli.main, flows.launch, flows.printing.runs; "
        f"print(*(name for name in {heavy} if name in sys.modules))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
