"""A moved, copied or cloned workspace uses the files of its new place and never the old ones."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from tampered import flip
from workspaces import STAGES, copy_workspace, git, ratchet_json, run, states

from tasks.core.files import sha256_file
from tasks.lifecycle.moved_workspace import follow_move
from tasks.params.schema import save_overrides

TEXT = "a good lovely film"


@pytest.fixture(scope="module")
def two_versions(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 is champion; version 2 is the challenger and matches params.yaml.

    Copy this workspace before use, and move only the copy.
    """
    root = copy_workspace(template, tmp_path_factory.mktemp("two") / "reviews")
    save_overrides(root / "params.yaml", ["finetune.epochs=5"])
    ratchet_json(root, "train")
    assert (
        ratchet_json(root, "promote", "1", "--force", "--reason", "to begin with")["champion"] == 1
    )
    return root


def contents(root: Path) -> dict[str, str]:
    """All that a command could change, the server's and DVC's own notes aside."""
    aside = (".dvc/tmp", ".git", ".ratchet/prefect")
    names = {
        file.relative_to(root).as_posix(): file
        for file in sorted(root.rglob("*"))
        if file.is_file() and not file.is_symlink()
    }
    return {name: sha256_file(file) for name, file in names.items() if not name.startswith(aside)}


def use(root: Path) -> None:
    """Everything that opens what was registered."""
    status = ratchet_json(root, "status")
    assert {stage["state"] for stage in status["stages"]} == {"clean"}
    assert {version["version"]: version["aliases"] for version in status["model"]["versions"]} == {
        1: ["champion"],
        2: ["challenger"],
    }
    assert status["ledger_champion"] == 1
    trained = ratchet_json(root, "train")
    assert (states(trained), trained["version"]) == (dict.fromkeys(STAGES, "cached"), 2)
    assert ratchet_json(root, "predict", TEXT)[0]["text"] == TEXT
    compared = ratchet_json(root, "compare", "2", "1")
    assert [model["version"] for model in compared["models"]] == [2, 1]
    assert ratchet_json(root, "promote", "--force", "--reason", "in the new place")["champion"] == 2
    assert ratchet_json(root, "rollback")["champion"] == 1
    assert [decision["version"] for decision in ratchet_json(root, "history")] == [1, 2, 1]


def addresses(root: Path) -> set[str]:
    """Every address of a file in the workspace's own database."""
    with closing(sqlite3.connect(root / ".ratchet" / "mlflow.db")) as connection:
        columns = connection.execute(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c "
            "WHERE m.type = 'table'"
        )
        values = [
            value
            for t, c in columns.fetchall()
            for (value,) in connection.execute(f'SELECT "{c}" FROM "{t}"')
        ]
    return {
        value.partition(".ratchet")[0]
        for value in values
        if isinstance(value, str) and value.startswith("file:") and ".ratchet" in value
    }


def test_a_moved_workspace_works_in_its_new_place(two_versions: Path, tmp_path: Path) -> None:
    old, new = copy_workspace(two_versions, tmp_path / "reviews"), tmp_path / "another place" / "né"
    ratchet_json(old, "status")
    new.parent.mkdir()
    old.rename(new)
    use(new)
    assert not old.exists()
    assert addresses(new) == {f"{new.as_uri()}/"}
    mlflow.set_tracking_uri(f"sqlite:///{new}/.ratchet/mlflow.db")
    assert (
        len(mlflow.pyfunc.load_model("models:/tiny/1").predict(pd.DataFrame({"text": [TEXT]}))) == 1
    )


def test_a_copy_and_what_it_was_copied_from_are_two_workspaces(
    two_versions: Path, tmp_path: Path
) -> None:
    old, new = copy_workspace(two_versions, tmp_path / "reviews"), tmp_path / "copy"
    ratchet_json(old, "status")
    shutil.copytree(old, new, symlinks=True)
    bundles = list((old / ".ratchet" / "mlartifacts").rglob("model.onnx"))
    assert len(bundles) == 2
    for file in bundles:
        flip(file)  # whoever opened the old files would be told
    before = contents(old)
    use(new)
    again = ratchet_json(new, "train", "-S", "tokenize.max_length=16")
    assert again["version"] == 3
    assert contents(old) == before
    for file in bundles:
        flip(file)
    use(old)
    assert len(ratchet_json(new, "status")["model"]["versions"]) == 3
    assert (addresses(old), addresses(new)) == ({f"{old.as_uri()}/"}, {f"{new.as_uri()}/"})


def test_a_clone_has_what_the_remote_has_and_registers_anew(template: Path, tmp_path: Path) -> None:
    old, new = copy_workspace(template, tmp_path / "reviews"), tmp_path / "clone"
    run(old, "dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    run(old, "dvc", "push", "--run-cache", "-q")
    git(old, "add", "-A")
    git(old, "commit", "-qm", "Trained")
    git(tmp_path, "clone", "-q", str(old), str(new))
    shutil.rmtree(old)
    run(new, "dvc", "pull", "--run-cache", "-q")
    trained = ratchet_json(new, "train")
    assert (states(trained), trained["version"]) == (dict.fromkeys(STAGES, "cached"), 1)
    assert ratchet_json(new, "predict", TEXT)[0]["text"] == TEXT
    assert ratchet_json(new, "promote", "--force", "--reason", "in the clone")["champion"] == 1
    assert addresses(new) == {f"{new.as_uri()}/"}


def test_addresses_elsewhere_stay(two_versions: Path, tmp_path: Path) -> None:
    root = copy_workspace(two_versions, tmp_path / "reviews")
    database = root / ".ratchet" / "mlflow.db"
    client = mlflow.MlflowClient(f"sqlite:///{database}")
    elsewhere = {
        "bucket": "s3://bucket/.ratchet/mlartifacts",
        "other": f"file://{two_versions}-2/.ratchet/mlartifacts",
    }
    for name, address in elsewhere.items():
        client.create_experiment(name, artifact_location=address)

    def location(name: str) -> str:
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        return str(experiment.artifact_location)

    follow_move(database, root / ".ratchet", "tiny")
    for name, address in elsewhere.items():
        assert location(name) == address
    assert location("tiny") == f"{root.as_uri()}/.ratchet/mlartifacts"
