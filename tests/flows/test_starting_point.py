"""Where training starts: pinned by hash, and moved only when a training has to run anyway.

The tests use the command line and real stores.
"""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_rows
from workspaces import (
    ROWS,
    STAGES,
    copy_workspace,
    git,
    ratchet,
    ratchet_json,
    run,
    states,
    write_csv,
)

from flows.engine.stage_cache import StageCache
from flows.engine.starting_point import settle_start
from tasks.core.errors import RegistryError
from tasks.core.files import read_json, sha256_file
from tasks.lifecycle.registry import connect
from tasks.params.schema import parse, save_overrides
from tasks.params.workspace import Workspace

CHAMPION = ("-S", "finetune.start_from=champion")
FEWER_EPOCHS = ("-S", "finetune.epochs=1")


@pytest.fixture(scope="module")
def went_on(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 as champion, and version 2 trained from it on more rows; copy it before use.

    MLflow's addresses still lead to the template's files.
    """
    root = copy_workspace(template, tmp_path_factory.mktemp("went_on") / "reviews")
    promote(root, 1)
    add_rows(root, 60)
    told = ratchet(
        root,
        "train",
        *CHAMPION,
        *FEWER_EPOCHS,
        "-S",
        "finetune.replay_share=0.5",
        "--save",
        "--json",
    )
    assert "starts from tiny version 1 (champion)" in told.stderr
    assert json.loads(told.stdout)["version"] == 2
    return root


@pytest.fixture
def workspace(went_on: Path, tmp_path: Path) -> Path:
    """A copy of the test's own."""
    return copy_workspace(went_on, tmp_path / "reviews")


def promote(root: Path, version: int) -> None:
    """Move the alias, as a promotion does."""
    workspace = Workspace(root)
    client, _ = connect(workspace.default_tracking_uri, workspace.store, "tiny")
    client.set_registered_model_alias("tiny", "champion", str(version))


def add_rows(root: Path, count: int) -> None:
    write_csv(root / "reviews.csv", tiny_rows(ROWS + count))


def start_of(root: Path) -> Any:
    return read_json(root / "reports" / "training.json")["start"]


def checkpoint_sha(root: Path) -> str:
    return sha256_file(root / "models" / "checkpoint" / "model.safetensors")


def assert_nothing_to_do(root: Path, version: int, *arguments: str) -> None:
    again = ratchet_json(root, "train", *arguments)
    assert states(again) == dict.fromkeys(STAGES, "cached")
    assert (again["state"], again["version"]) == ("cached", version)


def test_a_training_goes_on_from_the_champion_and_a_promotion_alone_calls_for_none(
    template: Path, workspace: Path
) -> None:
    start = start_of(workspace)
    assert start["checkpoint_sha256"] == checkpoint_sha(template) != checkpoint_sha(workspace)
    assert start["rows"]["new"] > 0
    assert start["rows"]["replayed"] == pytest.approx(start["rows"]["left_out"], abs=3)
    assert "models/start/checkpoint" in (workspace / "dvc.yaml").read_text()
    assert "up to date" in run(workspace, "dvc", "status").stdout
    assert "Running stage" not in run(workspace, "dvc", "repro").stdout
    assert_nothing_to_do(workspace, 2)
    promote(workspace, 2)
    pin = (workspace / "start.dvc").read_bytes()
    assert_nothing_to_do(workspace, 2)
    assert (workspace / "start.dvc").read_bytes() == pin


def test_an_override_that_is_not_saved_counts_as_if_it_were(workspace: Path) -> None:
    git(workspace, "checkout", "-q", "--", "params.yaml")
    assert_nothing_to_do(workspace, 2, *CHAMPION, *FEWER_EPOCHS, "-S", "finetune.replay_share=0.5")


def test_new_rows_call_for_a_training_which_starts_from_the_champion_of_now(
    workspace: Path,
) -> None:
    second = checkpoint_sha(workspace)
    promote(workspace, 2)
    add_rows(workspace, 90)
    assert ratchet_json(workspace, "train")["version"] == 3
    assert start_of(workspace)["checkpoint_sha256"] == second
    assert "up to date" in run(workspace, "dvc", "status").stdout


def test_a_training_from_the_base_pins_nothing(workspace: Path) -> None:
    assert (
        ratchet_json(workspace, "train", "-S", "finetune.start_from=base", "--save")["version"] == 3
    )
    assert start_of(workspace) is None
    assert not (workspace / "start.dvc").exists()
    assert not (workspace / "models" / "start").exists()
    assert "models/start" not in (workspace / "dvc.yaml").read_text()
    assert "up to date" in run(workspace, "dvc", "status").stdout


def test_dvc_alone_starts_from_what_was_pinned_last_and_the_flow_has_nothing_to_add(
    workspace: Path,
) -> None:
    promote(workspace, 2)
    save_overrides(workspace / "params.yaml", ["finetune.weight_decay=0.3"])
    assert "Running stage 'finetune'" in run(workspace, "dvc", "repro", "finetune").stdout
    start = start_of(workspace)
    assert start["checkpoint_sha256"] == sha256_file(
        workspace / "models" / "start" / "checkpoint" / "model.safetensors"
    )
    trained = states(ratchet_json(workspace, "train"))
    assert [trained[name] for name in STAGES[:5]] == ["cached"] * 5
    assert start_of(workspace) == start


def test_git_and_dvc_bring_back_what_a_training_started_from(
    workspace: Path, tmp_path: Path
) -> None:
    run(workspace, "dvc", "remote", "modify", "local", "url", str(tmp_path / "remote"))
    git(workspace, "add", "-A")
    git(workspace, "commit", "-qm", "Go on from version 1")
    run(workspace, "dvc", "push")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(workspace), str(clone))
    run(clone, "dvc", "pull")
    assert "up to date" in run(clone, "dvc", "status").stdout
    assert checkpoint_sha(clone) == checkpoint_sha(workspace)
    shutil.rmtree(clone / "models" / "start")
    shutil.rmtree(clone / ".dvc" / "cache")
    run(clone, "dvc", "fetch", *STAGES)
    result = ratchet_json(clone, "train")  # its registry is empty: no champion is asked for
    assert states(result) == dict.fromkeys(STAGES, "cached")
    assert start_of(clone)["checkpoint_sha256"] == sha256_file(
        clone / "models" / "start" / "checkpoint" / "model.safetensors"
    )


def test_without_a_champion_the_base_is_where_it_starts_and_a_lost_one_is_told(
    template: Path, tmp_path: Path
) -> None:
    workspace = copy_workspace(template, tmp_path / "reviews")
    told = ratchet(workspace, "train", *CHAMPION, *FEWER_EPOCHS, "--json", "--save")
    assert "starts from the base model: tiny has no champion yet" in told.stderr
    assert start_of(workspace) is None
    assert not (workspace / "start.dvc").exists()
    promote(workspace, 2)
    assert_nothing_to_do(workspace, 2)

    add_rows(workspace, 60)
    shutil.rmtree(workspace / ".dvc" / "cache")
    error = ratchet_json(workspace, "train", code=2)["error"]
    assert error["type"] == "WorkspaceError"
    assert "tiny version 2 (champion)" in error["message"]
    assert "dvc push" in error["remedy"]
    assert "start_from: base" in error["remedy"]
    assert not (workspace / "start.dvc").exists()
    assert ratchet_json(workspace, "status")["model"]["versions"][0]["version"] == 2


def test_a_champion_that_no_dvc_lock_describes_is_told(template: Path, tmp_path: Path) -> None:
    workspace = Workspace(copy_workspace(template, tmp_path / "reviews"))
    client, experiment_id = connect(workspace.default_tracking_uri, workspace.store, "tiny")
    source = str(client.get_model_version("tiny", "1").source)
    client.create_model_version(
        "tiny", source=source, run_id=client.create_run(experiment_id).info.run_id
    )
    promote(workspace.root, 2)
    values = workspace.values([CHAMPION[1]])
    with (
        closing(StageCache(workspace, values)) as cache,
        pytest.raises(RegistryError, match=r"version 2 \(champion\).*no dvc.lock") as caught,
    ):
        settle_start(cache, parse(values), client, workspace.default_tracking_uri, workspace.store)
    assert "start_from: base" in caught.value.remedy
    assert not (workspace.root / "start.dvc").exists()
