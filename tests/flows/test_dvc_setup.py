"""DVC's databases hold pickles: where they lie, and who may write there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from workspaces import run

from flows.engine.dvc_setup import VARIABLE, set_up_dvc
from tasks.core.errors import WorkspaceError


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, "")  # restored afterwards, also if the code sets it
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))


def test_by_default_only_the_user_may_write_to_them(tmp_path: Path) -> None:
    set_up_dvc(tmp_path / ".ratchet")
    assert os.environ[VARIABLE] == str(tmp_path / "cache" / "dvc")
    assert (tmp_path / "cache" / "dvc").stat().st_mode & 0o777 == 0o700
    set_up_dvc(tmp_path / ".ratchet")


def test_a_chosen_directory_is_made_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "chosen" / "here"))
    set_up_dvc(tmp_path / ".ratchet")
    assert (tmp_path / "chosen" / "here").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "cache").exists()


def test_without_a_home_they_lie_in_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_CACHE", "/proc/nowhere")
    set_up_dvc(tmp_path / ".ratchet")
    assert os.environ[VARIABLE] == str(tmp_path / ".ratchet" / "dvc")
    assert (tmp_path / ".ratchet" / "dvc").is_dir()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720])
def test_a_directory_that_others_may_write_to_is_refused_until_the_remedy_is_run(
    tmp_path: Path, mode: int
) -> None:
    directory = tmp_path / "cache" / "dvc"
    directory.mkdir(parents=True)
    directory.chmod(mode)
    with pytest.raises(WorkspaceError, match="other users may write to it") as refused:
        set_up_dvc(tmp_path / ".ratchet")
    run(tmp_path, "sh", "-c", refused.value.remedy.removeprefix("Try: "))
    set_up_dvc(tmp_path / ".ratchet")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "cache" / "dvc"
    directory.mkdir(parents=True, mode=0o700)
    os.chown(directory, 12345, 12345)
    with pytest.raises(WorkspaceError, match="it belongs to another user"):
        set_up_dvc(tmp_path / ".ratchet")


def test_the_commands_keep_dvc_s_databases_there(template: Path, tmp_path: Path) -> None:
    run(template, "ratchet", "status", RATCHET_CACHE=str(tmp_path / "own"))
    assert [*(tmp_path / "own" / "dvc").rglob("cache.db")]
    options = ("--yes", "--data", "reviews.csv", "--base-model", "base")
    run(
        template,
        "ratchet",
        "init",
        str(tmp_path / "new"),
        *options,
        RATCHET_CACHE=str(tmp_path / "other"),
    )
    assert [*(tmp_path / "other" / "dvc").rglob("cache.db")]
