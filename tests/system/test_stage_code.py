"""A stage's identity: what makes it stale, what does not, and what catches undeclared changes."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from ruamel.yaml import YAML
from workspaces import ratchet, ratchet_json, run, states

from flows.engine.stage_cache import StageCache
from tasks import pipeline
from tasks.lifecycle.registry import CONTENT_KEY, EARLIER_KEY, STAGE_VERSIONS, find_version
from tasks.params.schema import read_yaml
from tasks.params.workspace import Workspace
from tasks.problems import text_classification

ROOT = Path(__file__).resolve().parents[2]
CODE = '''"""What it is."""
from third.party import f

RATE = 0.5


def g(rows: int, report) -> float:
    """What it does."""
    # why
    if rows < 0:
        raise ValueError(f"{rows}: wanted none below 0")
    LINES.info("at work on %d", rows)
    return f(rows) * RATE
'''


def load_guard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stage_code", ROOT / ".ci" / "stage_code.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_code_of_a_stage_changes_with_its_version_or_with_somebodys_word_that_results_do_not() -> (
    None
):
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "stage_code.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("What it is.", "What it was."), ("What it does.", "What it did."), ("# why", "# why not"),
        ("\n\n\n", "\n\n\n\n"), ("wanted none below 0", "found less than 0"),
        ("at work on %d", "%d rows"), ("rows: int", "rows: int | None"), (" -> float", ""),
    ],
)  # fmt: skip
def test_what_changes_no_result_is_no_change(old: str, new: str) -> None:
    strip = load_guard().strip
    assert old in CODE
    assert strip(CODE.replace(old, new)) == strip(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.5", "0.6"), ("rows < 0", "rows <= 0"), ("* RATE", "/ RATE"), ("third.party", "another")],
)
def test_what_can_change_a_result_is_a_change(old: str, new: str) -> None:
    strip = load_guard().strip
    assert strip(CODE.replace(old, new)) != strip(CODE)


def test_a_change_is_told_with_every_stage_that_reaches_it_until_its_version_is_raised() -> None:
    guard = load_guard()
    recorded = guard.current()
    found = json.loads(json.dumps(recorded))
    found["files"]["tasks/training/loop.py"] = "0"
    reaching = [name for name in found["stages"] if name.startswith("finetune of ")]
    for name in reaching:
        found["stages"][name][1] = "0"
    assert guard.changes(recorded, found) == (["tasks/training/loop.py"], reaching)
    for name in reaching[1:]:
        found["stages"][name][0] = "2"
    assert guard.changes(recorded, found)[1] == reaching[:1]


def test_dvc_yaml_names_versions_and_no_file_of_code() -> None:
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert not [
        dep
        for stage in stages.values()
        for dep in stage.get("deps", [])
        if dep.endswith((".py", ".j2"))
    ]
    assert {name: stage["cmd"] for name, stage in stages.items()} == {
        stage.name: f"ratchet stage {stage.name} --code {stage.version}"
        for stage in pipeline.STAGES
    }


def test_a_raised_version_makes_its_stage_stale_and_no_other(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale() -> list[str]:
        with closing(
            StageCache(Workspace(trained), Workspace(trained).values(), reading=True)
        ) as cache:
            return [name for name, status in cache.statuses().items() if status != "clean"]

    assert stale() == []
    raised = tuple(
        replace(stage, version=stage.version + 1) if stage.name == "evaluate" else stage
        for stage in pipeline.STAGES
    )
    monkeypatch.setattr(pipeline, "STAGES", raised)
    assert stale() == ["evaluate"]
    monkeypatch.undo()
    raised_type = replace(text_classification.PROBLEM, stage_versions={"export": 1})
    monkeypatch.setattr(text_classification, "PROBLEM", raised_type)
    assert stale() == ["export"]


def as_earlier(root: Path, *, digests: bool) -> None:
    """Rewrite dvc.yaml and dvc.lock as written before versions: with code digests or code files."""
    for file in (root / "dvc.yaml", root / "dvc.lock"):
        text = re.sub(
            r"ratchet stage (\w+) --code 1",
            rf"python -m tasks \1{' --code 0123456789abcdef' * digests}",
            file.read_text(),
        )
        file.write_text(text)
    if not digests:
        lock = read_yaml(root / "dvc.lock")
        for name, stage in lock["stages"].items():
            code = [
                {"path": path, "hash": "md5", "md5": "0" * 32, "size": 1}
                for path in (f"tasks/{name}.py", "../../tasks/core/files.py")
            ]
            stage["deps"] = [*stage.get("deps", []), *code]
        with (root / "dvc.lock").open("w") as stream:
            YAML().dump(lock, stream)


@pytest.mark.parametrize("digests", [True, False])
def test_an_upgrade_trains_no_model_again(trained: Path, *, digests: bool) -> None:
    import mlflow

    root = trained
    before = ratchet_json(root, "train")
    client = mlflow.MlflowClient(Workspace(root).default_tracking_uri)
    client.delete_model_version_tag("tiny", "1", STAGE_VERSIONS)
    client.set_model_version_tag("tiny", "1", CONTENT_KEY, "e" * 64)
    client.set_tag(before["mlflow_run_id"], CONTENT_KEY, "e" * 64)
    as_earlier(root, digests=digests)

    status = ratchet_json(root, "status")
    assert {stage["state"] for stage in status["stages"]} == {"clean"}
    done = ratchet(root, "train")
    assert "what an earlier Ratchet made is kept" in done.stdout + done.stderr
    after = ratchet_json(root, "train")
    assert set(states(after).values()) == {"cached"}
    assert (after["version"], after["mlflow_run_id"]) == (
        before["version"],
        before["mlflow_run_id"],
    )
    assert after["content_key"] == before["content_key"]
    registered = client.search_model_versions("name = 'tiny'")
    assert [int(version.version) for version in registered] == [1]
    tags = client.get_model_version("tiny", "1").tags
    assert (tags[CONTENT_KEY], tags[EARLIER_KEY]) == (before["content_key"], "e" * 64)
    for key in (before["content_key"], "e" * 64):
        assert getattr(find_version(client, "tiny", key, {}), "version", None) == 1
    assert "up to date" in run(root, "dvc", "repro").stdout


def contents(root: Path) -> dict[str, bytes]:
    """Every file but what libraries keep for themselves."""
    own = (".dvc/tmp", ".ratchet")
    files = [
        file
        for file in root.rglob("*")
        if file.is_file() and not str(file.relative_to(root)).startswith(own)
    ]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("history",),
        ("compare", "1", "1"),
        ("predict", "a fine film"),
        ("promote", "9"),
        ("rollback",),
    ],
)
def test_reading_changes_nothing_also_where_another_ratchet_wrote_the_workspace(
    trained: Path, command: tuple[str, ...]
) -> None:
    as_earlier(trained, digests=True)
    before = contents(trained)
    ratchet(trained, *command, code=None)
    assert contents(trained) == before


def test_a_stage_of_another_version_says_so(trained: Path) -> None:
    done = run(trained, "ratchet", "stage", "split", "--code", "7", code=2)
    assert "split: dvc.yaml wants version 7 of its code, this Ratchet has 1." in done.stderr
    assert "ratchet dvc-yaml" in done.stderr


@pytest.mark.parametrize("inside", [True, False])
def test_editing_what_changes_no_result_leaves_every_stage_clean(
    template: Path, tmp_path: Path, *, inside: bool
) -> None:
    """In a checkout's own workspace and in one made by `init`."""
    checkout = tmp_path / "checkout"
    files = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in files:
        if name.startswith(("tasks/", "flows/", "applications/")):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    root = checkout if inside else tmp_path / "reviews"
    shutil.copytree(template, root, symlinks=True, dirs_exist_ok=True)
    for name in (
        "tasks/reports/plots.py",
        "tasks/training/loop.py",
        "tasks/scoring/classes.py",
        "flows/launch.py",
    ):
        (checkout / name).write_text(
            (checkout / name).read_text() + "\n# a comment more\nCOLOUR = '#123456'\n"
        )
    script = (
        "import sys; from flows.cli.main import main; "
        "sys.argv = ['ratchet', '-C', sys.argv[1], 'status', '--json']; main()"
    )
    done = run(checkout, sys.executable, "-c", script, str(root), PYTHONPATH=str(checkout))
    assert {stage["state"] for stage in json.loads(done.stdout)["stages"]} == {"clean"}
